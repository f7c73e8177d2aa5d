"""What DISPATCHER_REDIS_URL may say beyond one server, and errors that quote nothing of it."""

from typing import Any
from urllib.parse import quote

import pytest
import redis.asyncio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kombu import Connection
from pydantic import SecretStr

from config import broker
from config.settings import Settings, load
from dispatcher import AsyncDispatcher, Dispatcher
from dispatcher.errors import InvalidInput
from dispatcher.store.connection import connect, connect_async, safe_url, translate
from dispatcher.store.redis_url import RedisUrl, with_authorities
from dispatcher.store.topology import Kind, Topology

SENTINELS = "redis+sentinel://a,b/main"
CLUSTER = "redis+cluster://a,b"
LIST = "redis://a,redis://b"


@pytest.mark.parametrize(
    ("text", "kind", "urls"),
    [
        ("redis://h/1", Kind.ONE, ["redis://h/1"]),
        (" unix:/s?db=2,\n", Kind.ONE, ["unix:/s?db=2"]),
        ("redis://:a,b@h", Kind.ONE, ["redis://:a,b@h"]),
        ("redis://a,redis://b", Kind.SEVERAL, ["redis://a", "redis://b"]),
        (
            "redis://:p,w@a/1 , unix:///s\nREDISS://b",
            Kind.SEVERAL,
            ["redis://:p,w@a/1", "unix:///s", "REDISS://b"],
        ),
        ("redis://a/0 redis://a/1", Kind.SEVERAL, ["redis://a/0", "redis://a/1"]),
        ("redis+cluster://a", Kind.CLUSTER, ["redis://a"]),
        ("REDISS+Cluster://a:1,b/?db=0", Kind.CLUSTER, ["rediss://a:1/?db=0", "rediss://b/?db=0"]),
        (
            "redis+cluster://u:p%2Cw,x@a:1, [::1]:2/0?socket_timeout=3",
            Kind.CLUSTER,
            ["redis://u:p%2Cw,x@a:1/0?socket_timeout=3", "redis://u:p%2Cw,x@[::1]:2/0?socket_timeout=3"],
        ),
    ],
)
def test_read(text: str, kind: Kind, urls: list[str]) -> None:
    """One server, a list, or the first nodes of a cluster: each URL has the login and the options."""
    found = Topology.parse(text)
    assert (kind, urls) == (found.kind, list(found.urls))
    assert RedisUrl.parse(urls[0]) == found.server


@pytest.mark.parametrize(
    ("text", "urls", "server", "master"),
    [
        ("redis+sentinel://a/m", ["redis://a:26379/0"], "redis://primary:6379/0", "m"),
        (
            "redis+sentinel://:pw@a:1,[::1],[::2]:3,b/My-m.1_/4",
            ["redis://a:1/0", "redis://[::1]:26379/0", "redis://[::2]:3/0", "redis://b:26379/0"],
            "redis://:pw@primary:6379/4",
            "My-m.1_",
        ),
        (
            "redis+sentinel://u:p@a/m?sentinel_username=s%40&socket_timeout=2&db=5&sentinel_password=x+%2C,%20",
            ["redis://s%40:x%2B%2C%2C%20@a:26379/0?socket_timeout=2"],
            "redis://u:p@primary:6379/5",
            "m",
        ),
        (
            "rediss+sentinel://a/m/?client_name=me&ssl_ca_certs=%2Fca",
            ["rediss://a:26379/0?ssl_ca_certs=%2Fca"],
            "rediss://primary:6379/0",
            "m",
        ),
    ],
)
def test_read_sentinels(text: str, urls: list[str], server: str, master: str) -> None:
    """The sentinels have port 26379, a login of their own or none, and what TLS and time-outs the servers have."""
    found = Topology.parse(text)
    assert (Kind.SENTINEL, urls, server, master) == (
        found.kind,
        list(found.urls),
        found.server.plain,
        found.master,
    )
    assert found.db == found.server.db
    assert RedisUrl.parse(urls[0]).tls == found.server.tls


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("redis+hush://h", "or with redis+cluster:// or redis+sentinel://"),
        ("redis+cluster:/h", "must start with"),
        ("redis-cluster://hush:1,b:2", "write redis+cluster://HOST:PORT,HOST:PORT"),
        ("redis-cluster://:hush@b", "write redis+cluster://HOST:PORT,HOST:PORT"),
        ("Redis-Cluster://a:1 redis-cluster://hush:1", "write redis+cluster://HOST:PORT,HOST:PORT"),
        ("rediss-cluster://hush", "write rediss+cluster://HOST:PORT,HOST:PORT"),
        ("redis_cluster://hush", "write redis+cluster://HOST:PORT,HOST:PORT"),
        ("sentinel://hush:1", "write redis+sentinel://HOST:PORT,HOST:PORT/NAME"),
        ("valkey://hush:1", "write redis://HOST:PORT"),
        ("valkeys+sentinel://hush:1", "write rediss+sentinel://HOST:PORT,HOST:PORT/NAME"),
        ("redis://h1,hush:2", "names several hosts: write redis+cluster://"),
        ("redis+cluster://", "names no host"),
        ("redis+cluster:///0", "names no host"),
        ("redis+cluster://a,,hush", "a comma too many"),
        ("redis+cluster://a,hush,/0", "a comma too many"),
        ("redis+cluster://a:1,a:2,a:1", "one host twice"),
        ("redis+cluster://a,a:6379", "one host twice"),
        ("redis+cluster://a,b/1", "a cluster has none but 0"),
        ("redis+cluster://a,b?db=1", "a cluster has none but 0"),
        ("redis+cluster://a,b/hush", "number of a database"),
        ("redis+cluster://a:hush,b", "no number from 1 to 65535"),
        ("redis+cluster://a,b:0", "port 0"),
        ("redis+cluster://a,hu!sh", "no host that there can be"),
        ("redis+cluster://[::hush]:1,b", "percent-encoded"),
        ("redis+cluster://::1:5,b", "port"),
        ("redis+cluster://hush@a,b", "no password"),
        ("redis+cluster://:hu/sh@a,b", "percent-encoded"),
        ("redis+cluster://:1/hush@a,b", "an @ behind its host"),
        ("redis+cluster://:1#hush@a,b", "percent-encoded"),
        ("redis+cluster://:hu sh@a,b", "a blank"),
        ("redis+cluster://:%ffhush@a,b", "UTF-8"),
        ("redis+cluster://a,b#hush", "holds a #"),
        ("redis+cluster://a,b?hush=1", "an option that is not known"),
        ("redis+cluster://a,b?sentinel_password=hush", "an option that is not known"),
        ("redis+cluster://a,b?ssl_ca_certs=/hush", "goes with rediss:// only"),
        ("redis+sentinel://a,b", "must name the primary"),
        ("redis+sentinel://a,b/", "must name the primary"),
        ("redis+sentinel://a,b//1", "must name the primary"),
        ("redis+sentinel://a,b/hu%20sh", "must name the primary"),
        ("redis+sentinel://a,b/main/hush", "number of a database"),
        ("redis+sentinel://a,b/main/1/hush", "number of a database"),
        ("redis+sentinel://a,b/main/1?db=2", "two databases"),
        ("redis+sentinel://a,a:26379/main", "one host twice"),
        ("redis+sentinel://,a/main", "a comma too many"),
        ("redis+sentinel:///main", "names no host"),
        ("redis+sentinel://a,b:hush/main", "no number from 1 to 65535"),
        ("redis+sentinel://a/main?sentinel_username=hush", "sentinel_username without sentinel_password"),
        ("redis+sentinel://a/main?sentinel_password=", "sentinel_password, which is empty"),
        ("redis+sentinel://a/main?sentinel_password=1&sentinel_password=hush", "sentinel_password twice"),
        ("redis+sentinel://a/main?sentinel_password=hush%ff", "UTF-8"),
        ("redis+sentinel://a/main?sentinel_hush=1", "an option that is not known"),
        ("redis+sentinel://a/main?sentinel_password=hu#sh", "holds a #"),
        ("redis+sentinel://a/main?sentinel_password=hu@sh", "an @ behind its host"),
        ("redis://a,redis+cluster://b,hush", "one URL with all its hosts"),
        ("redis+sentinel://a/main redis+sentinel://hush/main", "one URL with all its hosts"),
        ("redis://a,redis://hush:x", "a list of 2, whose number 2 has a port that is no number"),
        ("redis://a,amqp://hush", "a list of 2, whose number 2 must start with redis://"),
        (
            "redis://:hush@a redis://b redis://a:6379/0",
            "twice, as number 1 and number 3: name each server once",
        ),
        ("unix:///hush unix:/hush", "one server in it twice"),
    ],
)
def test_refused(monkeypatch: pytest.MonkeyPatch, text: str, says: str) -> None:
    """What is wrong is said in one line by settings and by producers, and none of it is quoted."""
    monkeypatch.setenv("DISPATCHER_REDIS_URL", text)
    for refuse in (load, lambda: Dispatcher.from_url(text), lambda: AsyncDispatcher.from_url(text)):
        with pytest.raises(InvalidInput) as caught:
            refuse()
        found = str(caught.value)
        assert (True, 1, False) == (says in found, len(found.splitlines()), "hush" in found.lower())


@pytest.mark.parametrize(("text", "what"), [(CLUSTER, "a cluster"), (LIST, "several servers")])
def test_where_one_server_is_needed(text: str, what: str) -> None:
    """What works on one server alone refuses others before it connects."""
    for make in (connect, connect_async):
        with pytest.raises(InvalidInput, match=f"^the Redis URL names {what}, and one server is needed"):
            make(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://u:p@H:1/2?x=y", "redis://h:1/2"),
        ("redis://u:p@a/1,rediss://:p@b unix://u:p@/s?db=3", "redis://a/1, rediss://b/, unix:///s"),
        ("redis+cluster://u:p,w@a:1, [::1]:2/0?socket_timeout=3", "redis+cluster://a:1,[::1]:2/0"),
        ("rediss+sentinel://u:p@a,b:2/main/3?sentinel_password=p", "rediss+sentinel://a,b:2/main/3"),
        ("redis+cluster://u:p@a,b:x", "the URL that is set"),
        ("redis+sentinel://u:p/w@a,b/main", "the URL that is set"),
        ("redis://a,redis://u:p/w@b", "the URL that is set"),
    ],
)
def test_shown(text: str, shown: str) -> None:
    """All hosts are shown, and neither login nor query; nothing of a URL that is wrong."""
    assert shown.replace("b/,", "b,") == safe_url(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rediss://a redis://b,rediss://c?ssl_ca_certs=/own", [True, None, False]),
        ("rediss+cluster://a,b?db=0", [True, True]),
        ("rediss+sentinel://a,b/main", [True, True]),
        ("RedisS+sentinel://a/main?ssl_ca_certs=/own", [False]),
        ("redis+sentinel://a,b/main", [None, None]),
    ],
)
def test_authorities(text: str, expected: list[bool | None]) -> None:
    """A file of authorities comes to each URL with TLS that names none."""
    found = Topology.parse(with_authorities(text, "/c a,.pem"))
    files = [RedisUrl.parse(url).tls.get("ssl_ca_certs") for url in found.urls]
    assert [{True: "/c a,.pem", False: "/own", None: None}[one] for one in expected] == files


@pytest.mark.parametrize(
    "text", ["rediss://a,rediss://b{}", "rediss+cluster://a,b{}", "rediss+sentinel://a/m{}"]
)
def test_files_that_are_not_there(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Files that a URL names are read when the settings are."""
    monkeypatch.setenv("DISPATCHER_REDIS_URL", text.format("?ssl_ca_certs=/hush/missing"))
    with pytest.raises(InvalidInput, match=r"ssl_ca_certs.*cannot be used") as caught:
        load()
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"REDIS_URL": CLUSTER}, "names a cluster: set DISPATCHER_PARTITIONS"),
        ({"REDIS_URL": LIST}, "names 2 servers: set DISPATCHER_PARTITIONS"),
        (
            {"REDIS_URL": f"{LIST},redis://c", "PARTITIONS": "2"},
            r"DISPATCHER_PARTITIONS \(2\) must be at least .* \(3\)",
        ),
        (
            {"REDIS_URL": CLUSTER, "PARTITIONS": "2"},
            "a cluster, which cannot be Celery's broker: set DISPATCHER_BROKER_URL",
        ),
        (
            {"REDIS_URL": LIST, "PARTITIONS": "2"},
            "2 servers, which cannot be Celery's broker: set DISPATCHER_BROKER_URL",
        ),
        ({"PARTITIONS": "0"}, "DISPATCHER_PARTITIONS: Input should be greater than or equal to 1"),
        ({"PARTITIONS": "1025"}, "DISPATCHER_PARTITIONS: Input should be less than or equal to 1024"),
        ({"PARTITIONS": "many"}, "DISPATCHER_PARTITIONS"),
        ({"BROKER_URL": CLUSTER}, "DISPATCHER_BROKER_URL: names a cluster, and Celery's broker is one Redis"),
        (
            {"BROKER_URL": LIST},
            "DISPATCHER_BROKER_URL: names several servers, and Celery's broker is one Redis",
        ),
        (
            {"BROKER_URL": "sentinel://a;sentinel://b"},
            r"DISPATCHER_BROKER_URL: must say which primary: write redis\+sent",
        ),
        ({"BROKER_URL": "redis+hush://a"}, "DISPATCHER_BROKER_URL: must start with redis://"),
        (
            {"BROKER_URL": "rediss+sentinel://a/m?ssl_ca_certs=/hush"},
            "ssl_ca_certs or ssl_ca_path cannot be used",
        ),
    ],
)
def test_settings_that_do_not_go_together(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], says: str
) -> None:
    """A topology that needs more partitions, or a broker of its own, is refused without them, in one line."""
    for name, value in values.items():
        monkeypatch.setenv(f"DISPATCHER_{name}", value)
    with pytest.raises(InvalidInput, match=says) as caught:
        load()
    assert ("\n" in str(caught.value), "hush" in str(caught.value)) == (False, False)


@pytest.mark.parametrize("text", [CLUSTER, LIST])
@pytest.mark.parametrize("celery", ["redis://broker", SENTINELS, "amqp://u:p@broker//"])
def test_settings_that_go_together(monkeypatch: pytest.MonkeyPatch, text: str, celery: str) -> None:
    """Several servers, or a cluster, with partitions and a broker of its own."""
    for name, value in {"REDIS_URL": text, "PARTITIONS": "2", "BROKER_URL": celery}.items():
        monkeypatch.setenv(f"DISPATCHER_{name}", value)
    found = load()
    assert (2, celery) == (found.partitions, found.celery_url)


def test_celery_by_sentinel() -> None:
    """kombu gets the servers' login in each URL, the sentinels' own apart from it, TLS for both, and our options."""
    url = "rediss+sentinel://u:p%40@a,[::1]:5/main/3?sentinel_username=s&sentinel_password=q&client_name=me&socket_timeout=4"
    celery_url, tls, options = broker.of(with_authorities(url, "/ca.pem"), None)
    assert "sentinel://u:p%40@a:26379/3;sentinel://u:p%40@[::1]:5/3" == celery_url
    asked = options.pop("sentinel_kwargs")
    assert {"master_name": "main", "client_name": "me", "socket_timeout": 4.0} == options
    assert ("s", "q") == asked["credential_provider"].get_credentials()
    assert (True, "/ca.pem", 4.0) == (asked["ssl"], asked["ssl_ca_certs"], asked["socket_timeout"])
    assert tls == RedisUrl.parse("rediss://h?ssl_ca_certs=/ca.pem").tls
    assert "sentinel://a:26379/3;sentinel://b:26379/3" == broker.of("redis+sentinel://a,b/m/3", "/ca.pem")[0]


def test_what_celery_says_of_sentinels() -> None:
    """Neither password is in it, also where one is the beginning of the other, however they are written."""
    url = "redis+sentinel://u:hush@a,b/main?sentinel_password=hush%2B2"
    said = broker.problem(OSError("u:hush@a, hush+2 and hush are away"), url)
    assert "a, ******** and ******** are away" == said


ODD = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
SHAPES = (
    "redis://:{}@a,redis://b",
    "redis://a redis://u:{}@b/1",
    "redis+cluster://u:{}@a:1,b:2",
    "redis+cluster://{}:x@a",
    "rediss+cluster://a,b?ssl_ca_certs={}",
    "redis+sentinel://u:{}@a,b/main",
    "redis+sentinel://a,b/main?sentinel_password={}",
    "redis+sentinel://a,b/main?sentinel_username={}&sentinel_password=x",
    "redis+sentinel://a,b/main?{}",
)


@given(st.sampled_from(SHAPES), ODD, ODD)
@example("redis+cluster://u:{}@a:1,b:2", "1/", "x")
@example("redis+sentinel://u:{}@a,b/main", "1#", "x")
@example("redis://:{}@a,redis://b", " ", ",redis://x")
@settings(max_examples=500)
def test_no_part_of_a_password_is_told(shape: str, before: str, after: str) -> None:
    """Whatever characters it holds, a password is in no error, no `repr`, not in what `config` shows and no banner."""
    secret = "Zw8qXr"
    url = shape.format(before + secret + after)
    told: list[str] = [safe_url(url), str(translate(redis.ConnectionError("away"), url))]
    for values in (
        {"redis_url": url, "broker_url": "memory://"},
        {"redis_url": "redis://h", "broker_url": url},
    ):
        try:
            found = Settings(
                **{name: SecretStr(value) for name, value in values.items()}, partitions=2, _env_file=None
            )  # type: ignore[arg-type]
            told += [repr(found), repr(found.shown())]
        except ValueError as error:
            told += [str(error)]
    try:
        topology = Topology.parse(url)
    except InvalidInput as error:
        told += [str(error)]
    else:
        told += [repr(topology), topology.described]
        if topology.kind is Kind.SENTINEL:
            told += told_of_sentinels(url)
    assert [] == [text for text in told if secret in text or secret.lower() in text]


def told_of_sentinels(url: str) -> list[str]:
    """What clients and Celery show of a URL."""
    celery_url, tls, options = broker.of(url, None)
    connection: Any = Connection(celery_url, ssl=tls, transport_options=options)
    shown = [repr(connect(url)), repr(connect_async(url)), connection.as_uri(), repr(options)]
    return [*shown, broker.problem(OSError(celery_url), celery_url), broker.problem(OSError(celery_url), url)]


@given(ODD, ODD)
@settings(max_examples=100)
def test_every_password_can_be_written(password: str, own: str) -> None:
    """Percent-encoded, any password of servers and of sentinels is read as it is."""
    url = f"redis+sentinel://u:{quote(password, '')}@a,b/main?sentinel_password={quote(own, '')}"
    found = Topology.parse(url)
    assert (password, own) == (found.server.password, RedisUrl.parse(found.urls[1]).password)
    cluster = Topology.parse(f"redis+cluster://u:{quote(password, '')}@a,b")
    assert [password] * 2 == [RedisUrl.parse(one).password for one in cluster.urls]


def test_config_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each topology has words for users."""
    texts = ("redis://h", LIST, CLUSTER, SENTINELS, "redis+sentinel://a/m")
    assert [
        "one server",
        "2 servers: partition i lies on server i modulo 2",
        "a cluster, found through 2 nodes",
        "the primary main, found through 2 sentinels",
        "the primary m, found through 1 sentinel",
    ] == [Topology.parse(text).described for text in texts]
