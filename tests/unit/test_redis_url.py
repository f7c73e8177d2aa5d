"""One reading of a Redis URL for redis-py and Celery, and errors that quote nothing of it."""

import importlib
import json
import ssl
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import redis.asyncio
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from kombu import Connection
from kombu.transport.redis import Channel
from pydantic import SecretStr

from config import broker
from config.settings import Settings, load
from dispatcher import AsyncDispatcher, Dispatcher
from dispatcher.errors import InvalidInput
from dispatcher.store.connection import connect, connect_async, safe_url, translate
from dispatcher.store.redis_url import RedisUrl, with_authorities

KEPT = (
    "host",
    "port",
    "path",
    "db",
    "username",
    "password",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_ca_certs",
)
DEFAULTS = {"host": "localhost", "port": 6379, "db": 0}


def by_redis_py(url: str) -> dict[str, Any]:
    """What our own client connects with."""
    client = connect(url)
    try:
        return client.connection_pool.connection_kwargs
    finally:
        client.close()


def by_redis_py_async(url: str) -> dict[str, Any]:
    """The same of its asyncio twin."""
    client = connect_async(url)
    return client.connection_pool.connection_kwargs


def by_celery(url: str) -> dict[str, Any]:
    """What kombu connects with."""
    celery_url, tls, _ = broker.of(url, None)
    channel = Channel.__new__(Channel)
    channel.connection = Connection(celery_url, ssl=tls).transport  # as Celery makes it
    return channel._connparams()


@pytest.mark.parametrize("read", [by_redis_py, by_redis_py_async, by_celery])
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", {"host": "h", "port": 6379, "db": 0}),
        ("redis://H:1/2\n", {"host": "h", "port": 1, "db": 2}),
        ("redis://h/?db=3", {"host": "h", "port": 6379, "db": 3}),
        ("redis://[::1]:7/0", {"host": "::1", "port": 7, "db": 0}),
        ("redis:///4", {"host": "localhost", "port": 6379, "db": 4}),
        ("redis://:p%2Fw;x@h", {"host": "h", "port": 6379, "db": 0, "password": "p/w;x"}),
        ("redis://u:p@w@h/1", {"host": "h", "port": 6379, "db": 1, "username": "u", "password": "p@w"}),
        ("unix:///tmp/a%40b.sock?db=5", {"path": "/tmp/a@b.sock", "db": 5}),
        ("unix://u:p%40@/s", {"path": "/s", "db": 0, "username": "u", "password": "p@"}),
        ("rediss://h", {"host": "h", "ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}),
        (
            "rediss://h?ssl_cert_reqs=CERT_OPTIONAL&ssl_ca_certs=%2Fca",
            {
                "host": "h",
                "ssl_cert_reqs": ssl.CERT_REQUIRED,
                "ssl_check_hostname": True,
                "ssl_ca_certs": "/ca",
            },
        ),
        (
            "rediss://h?ssl_check_hostname=0",
            {"host": "h", "ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": False},
        ),
        (
            "rediss://h?ssl_cert_reqs=none",
            {"host": "h", "ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False},
        ),
    ],
)
def test_read_alike(read: Callable[[str], dict[str, Any]], url: str, expected: dict[str, Any]) -> None:
    """Each client connects to the same place, as the same user, with the same TLS."""
    found = {name: value for name, value in read(url).items() if name in KEPT and value is not None}
    if "path" in expected:
        found = {name: value for name, value in found.items() if name not in ("host", "port")}
    else:
        expected = DEFAULTS | expected
    assert expected == found


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis", "must start with redis://"),
        ("localhost:6379", "must start with redis://"),
        ("http://h", "must start with redis://"),
        ("redis://:hush/x@h:1/0", "percent-encoded"),
        ("redis://:12/hush@h/0", "an @ behind its host"),
        ("redis://hush:12?x=hush@h/0", "an @ behind its host"),
        ("redis://:1#hush@h/0", "percent-encoded"),
        ("redis://h/0#hush", "holds a #"),
        ("redis://:hu sh@h/0", "a blank"),
        ("redis://:hu\tsh@h/0", "a control character"),
        ("redis://:hush℀@h/0", "is no URL"),
        ("redis://[hush@h/0", "is no URL"),
        ("redis://hush@h/0", "no password"),
        ("redis://hush:@h/0", "no password"),
        ("redis://:hush%ff@h/0", "UTF-8"),
        ("redis://h:hush/0", "has a port that is no number from 1 to 65535"),
        ("redis://u:p@h:hush/0", "has a port that is no number from 1 to 65535"),
        ("redis://h:0/0", "port 0"),
        ("redis://h:65536/0", "has a port that is no number from 1 to 65535"),
        ("redis:/127.0.0.1", "must start with redis://"),
        ("rediss:h", "must start with redis://"),
        ("redis://hu!sh/0", "no host"),
        ("redis://[v1.hush]/0", "no IPv6 address"),
        ("redis://h/hush", "number of a database"),
        ("redis://h/-1", "number of a database"),
        ("redis://h/1?db=2", "two databases"),
        ("redis://h?db=hush", "the option db, which must be a number"),
        ("redis://h?hush=1", "an option that is not known; known are db,"),
        ("redis://h?password=hush", "an option that is not known"),
        ("redis://h?db=1&db=1", "the option db twice"),
        ("redis://h?socket_timeout=hush", "must be seconds"),
        ("redis://h?socket_timeout=0", "must be seconds"),
        ("redis://h?max_connections=0", "a number above 0"),
        ("redis://h?ssl_cert_reqs=none", "goes with rediss:// only"),
        ("unix:///s?ssl_ca_certs=/hush", "goes with rediss:// only"),
        ("unix:///s?socket_keepalive=1", "does not go with unix://"),
        ("rediss://h?ssl_cert_reqs=hush", "must be required, optional or none"),
        ("rediss://h?ssl_check_hostname=maybe", "must be true or false"),
        ("rediss://h?ssl_min_version=1.1", "must be 1.2 or 1.3"),
        ("rediss://h?ssl_keyfile=/hush", "ssl_keyfile without ssl_certfile"),
        ("rediss://h?ssl_exclude_verify_flags=HUSH", "names of ssl.VerifyFlags"),
        ("unix://hush/s", "three slashes"),
        ("unix://", "three slashes"),
        ("rediss+socket:///s", "must start with redis://"),
    ],
)
def test_refused(monkeypatch: pytest.MonkeyPatch, url: str, says: str) -> None:
    """What is wrong with a URL is said in one line by settings and by producers, and none of it is quoted."""
    monkeypatch.setenv("DISPATCHER_REDIS_URL", url)
    for refuse in (load, lambda: Dispatcher.from_url(url), lambda: AsyncDispatcher.from_url(url)):
        with pytest.raises(InvalidInput) as caught:
            refuse()
        text = str(caught.value)
        assert (True, 1, False) == (says in text, len(text.splitlines()), "hush" in text.lower())
    assert "hush" not in safe_url(url) or url in ("redis://[v1.hush]/0", "redis://h/hush", "unix://hush/s")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("foo://a:hush@h", "another of Celery's transports"),
        ("hush", "another of Celery's transports"),
        ("amqp://a:hu/sh@h", "percent-encoded"),
        ("amqp://h?hush=1", "cannot be used by Celery"),
        ("amqp://a:b@h;amqp://c:hu/sh@h", "percent-encoded"),
        ("rediss+socket:///s", "TLS on a unix socket"),
        ("redis://h/0;redis://hush/0", "number of a database"),
        ("rediss://h?ssl_cert_reqs=hush", "must be required, optional or none"),
    ],
)
def test_broker_refused(monkeypatch: pytest.MonkeyPatch, url: str, says: str) -> None:
    """The same of Celery's own broker, whatever its transport."""
    monkeypatch.setenv("DISPATCHER_BROKER_URL", url)
    with pytest.raises(InvalidInput, match="DISPATCHER_BROKER_URL: ") as caught:
        load()
    text = str(caught.value)
    assert (True, 1, False) == (says in text, len(text.splitlines()), "hush" in text)


def test_amqps_verifies_the_name() -> None:
    """Left alone, Celery would verify the certificate of an amqps:// host and not its name."""
    url = "amqps://u:p@h/v"
    assert (url, {"server_hostname": "h"}, {}) == broker.of(url, None)
    assert {"server_hostname": "h", "ca_certs": "/ca.pem"} == broker.of(f" {url};{url}", "/ca.pem")[1]


@pytest.mark.parametrize("url", ["amqp://u:p@h//", "amqps://a;amqps://b", "memory://", "amqp://a;amqp://b"])
def test_other_transports_are_left_alone(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A broker that is no Redis is Celery's, with its URL as it is and no TLS options of Redis."""
    monkeypatch.setenv("DISPATCHER_BROKER_URL", url)
    assert url == load().broker_url.get_secret_value()  # type: ignore[union-attr]
    assert (url, None, {}) == broker.of(url, "/ca.pem")


@pytest.mark.parametrize("url", ["redis+socket://u:p@/s?virtual_host=2", "unix://u:p@/s?db=2"])
def test_broker_on_a_socket(url: str) -> None:
    """A socket may be named as Celery does."""
    assert "redis+socket://u:p@/s?virtual_host=2" == broker.of(url, "/ca.pem")[0]


def test_options_are_understood_by_both() -> None:
    """Options of the connection go to our client and into Celery's transport options."""
    url = "redis://h?socket_timeout=1.5&client_name=billing&health_check_interval=7"
    expected = {"socket_timeout": 1.5, "client_name": "billing", "health_check_interval": 7}
    found = by_redis_py(url)
    assert expected == {name: found[name] for name in expected} == broker.of(url, None)[2]


def test_authorities() -> None:
    """A file of authorities is for rediss:// alone, and what the URL names wins."""
    added = with_authorities("rediss://h/0?ssl_cert_reqs=required", "/a b@c.pem")
    assert "/a b@c.pem" == RedisUrl.parse(added).tls["ssl_ca_certs"]
    assert (
        "/own" == RedisUrl.parse(with_authorities("rediss://h?ssl_ca_certs=/own", "/ca")).tls["ssl_ca_certs"]
    )
    assert "redis://h" == with_authorities("redis://h", "/ca")


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_ca_path", "ssl_certfile"])
def test_files_that_are_not_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Files that a URL names are read when the settings are."""
    monkeypatch.setenv("DISPATCHER_REDIS_URL", f"rediss://h?{name}=/hush/missing")
    with pytest.raises(InvalidInput, match=rf"{name}.*cannot be used") as caught:
        load()
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", broker.OVERRIDES)
def test_celery_is_not_sent_elsewhere(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A variable of Celery's own that would go round our rules is refused."""
    monkeypatch.setenv(name, "rediss://other.example")
    with pytest.raises(InvalidInput, match=name):
        broker.of("redis://h", None)


def test_no_password_of_a_list_is_told() -> None:
    """Of several brokers each one's user and password is left out of what Celery says of them; the reason is not."""
    url = "amqp://u:hush1@a//;amqp://v:hush%402@b//"
    told = broker.problem(OSError(f"{url} (hush@2) are away"), url)
    assert "amqp://a//;amqp://b// (********) are away" == told


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_refused_broker_is_one_line(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Where logs are JSON it is JSON too, as for any other setting."""
    monkeypatch.setenv("DISPATCHER_LOG_FORMAT", form)
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://elsewhere")
    monkeypatch.delitem(sys.modules, "config.celeryconfig", raising=False)
    with pytest.raises(SystemExit) as caught:
        importlib.import_module("config.celeryconfig")
    said = str(caught.value)
    problem = json.loads(said)["problem"] if form == "json" else said.removeprefix("error: ")
    assert problem.startswith("CELERY_BROKER_URL ")


ODD = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
SHAPES = (
    "redis://:{}@h:1/0",
    "rediss://u:{}@h:1/0",
    "redis://{}:x@h",
    "unix://u:{}@/s",
    "redis://h/0?{}",
    "redis://h?ssl_cert_reqs={}",
    "rediss://h?ssl_ca_certs={}",
    "amqp://u:{}@h//",
    "redis+socket://:{}@/s",
    "http://u:{}@h:1/",
    "{}",
)


@given(st.sampled_from(SHAPES), ODD, ODD)
@example("redis://:{}@h:1/0", "1/", "x")
@example("redis://:{}@h:1/0", "", "℀")
@example("amqp://u:{}@h//", "12/", "3")
@example("http://u:{}@h:1/", "12/", "3")
@settings(max_examples=500)
def test_no_part_of_a_password_is_told(shape: str, before: str, after: str) -> None:
    """Whatever characters it holds, a password is in no error, no `repr`, not in what `config` shows and no banner."""
    secret = "Zw8qXr"  # in the middle: what is left after some parser cut at an odd character
    url = shape.format(before + secret + after)
    told: list[str] = [safe_url(url)] if shape != "{}" else []
    for name in ("redis_url", "broker_url", "proxy_url", "alert_url"):
        try:
            found = Settings(**{name: SecretStr(url), "_env_file": None})
            told += [repr(found), repr(found.shown())]
        except ValueError as error:
            told += [str(error)]
    try:
        where = RedisUrl.parse(url)
    except InvalidInput as error:
        told += [str(error)]
    else:
        told += [repr(where), str(translate(redis.ConnectionError("away"), url))]
        if "ssl_ca_certs" not in shape:  # redis-py shows the file
            told += [repr(connect(url)), repr(connect_async(url))]
        celery_url, tls, _ = broker.of(url, None)
        told += [broker.problem(OSError(celery_url), celery_url)]
        if shape != "redis://{}:x@h":  # Celery shows the user's name
            told += [Connection(celery_url, ssl=tls).as_uri()]
    assert [] == [text for text in told if secret in text or secret.lower() in text]


@given(ODD, ODD)
@settings(max_examples=100)
def test_every_password_can_be_written(username: str, password: str) -> None:
    """Percent-encoded, any user name and any password reach redis-py and kombu as they are."""
    assume("\0" not in username + password)
    login = f"{quote(username, '')}:{quote(password, '')}@"
    for url in (f"redis://{login}h/0", f"unix://{login}/s"):
        for read in (by_redis_py, by_redis_py_async, by_celery):
            found = read(url)
            assert (username, password) == (found["username"], found["password"])
