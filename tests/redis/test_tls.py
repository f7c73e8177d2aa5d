"""Both connections to Redis, ours and Celery's, over TLS: whom they trust, and what they tell an impostor."""

import asyncio
import json
import os
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from config import broker
from dispatcher.errors import RedisUnavailable
from dispatcher.store.check_finding import Verdict
from dispatcher.store.connection import connect, connect_async, translated
from dispatcher.store.redis_url import with_authorities
from tasks.actions.check_broker import celery_encryption
from tasks.redis_server import RedisServer
from tests.acceptance.stack import CLI
from tests.faults.proxy import Proxy
from tests.http.test_transport import Certificates

PASSWORD = "hush:/?#%@;"  # each of these ends a part of a URL
LOGIN = "app:hush%3A%2F%3F%23%25%40%3B@"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One authority for all tests."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def authority(certificates: Certificates) -> str:
    """Its file."""
    return str(certificates._authority)


@pytest.fixture
def password(redis_url: str) -> Iterator[None]:
    """There is a user whose password no URL can hold as it is."""
    with redis.Redis.from_url(redis_url) as client:
        client.acl_setuser(
            "app", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], channels=["*"], categories=["+@all"]
        )
        yield
        client.acl_deluser("app")


def ours(url: str, ca_file: str | None) -> None:
    """The client of producers and commands. Raises RedisUnavailable."""
    with connect(with_authorities(url, ca_file)) as client, translated(url):
        client.ping()


def ours_async(url: str, ca_file: str | None) -> None:
    """The client of workers and the API. Raises RedisUnavailable."""

    async def ping() -> None:
        client = connect_async(with_authorities(url, ca_file))
        try:
            with translated(url):
                await client.ping()
        finally:
            await client.aclose()

    asyncio.run(ping())


def celerys(url: str, ca_file: str | None) -> None:
    """Celery's connection, as config/celeryconfig.py has it. Raises RedisUnavailable."""
    celery_url, tls, options = broker.of(url, ca_file)
    app = Celery(broker=celery_url, broker_use_ssl=tls, broker_transport_options=options)
    with app, app.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0)
        except Exception as error:
            shown = url if celery_url.startswith("sentinel:") else celery_url
            raise RedisUnavailable(broker.problem(error, with_authorities(shown, ca_file))) from None
        connection.default_channel.client.connection_pool.disconnect()


CLIENTS = pytest.mark.parametrize("ping", [ours, ours_async, celerys])


@CLIENTS
def test_right_certificate(
    redis_server: RedisServer,
    password: None,
    certificates: Certificates,
    authority: str,
    ping: Callable[[str, str | None], None],
) -> None:
    """A server with the private authority's certificate is trusted by either way to name it, and gets the password."""
    with Proxy(redis_server.socket, certificates.server("127.0.0.1")) as proxy:
        url = proxy.url.replace("//", f"//{LOGIN}")
        ping(url, authority)
        ping(f"{url}?ssl_ca_certs={authority}", None)
        assert PASSWORD.encode() in proxy.received


@CLIENTS
@pytest.mark.parametrize(
    ("host", "options", "trusted", "why"),
    [
        ("other.test", {}, True, "not valid for '127.0.0.1'"),
        ("127.0.0.1", {"days": -1}, True, "certificate has expired"),
        ("127.0.0.1", {"self_signed": True}, True, "self-signed certificate"),
        ("127.0.0.1", {}, False, "unable to get local issuer certificate"),
    ],
    ids=["another name", "expired", "self-signed", "another authority"],
)
def test_impostor(
    redis_server: RedisServer,
    password: None,
    certificates: Certificates,
    authority: str,
    ping: Callable[[str, str | None], None],
    host: str,
    options: dict[str, Any],
    trusted: bool,
    why: str,
) -> None:
    """A certificate that does not hold is refused in one line that says why; not one byte is said to its owner."""
    with Proxy(redis_server.socket, certificates.server(host, **options)) as proxy:
        with pytest.raises(RedisUnavailable, match=r"certificate of rediss://127\.0\.0\.1:") as caught:
            ping(proxy.url.replace("//", f"//{LOGIN}"), authority if trusted else None)
        assert b"" == proxy.received
    assert why in str(caught.value)
    assert ("hush" in str(caught.value), len(str(caught.value).splitlines())) == (False, 1)


class SpeaksPlainly(socketserver.BaseRequestHandler):
    """Answers whatever comes without TLS."""

    def handle(self) -> None:
        """Keeps the first bytes, and answers as Redis would."""
        self.server.received += self.request.recv(65536)  # type: ignore[attr-defined]
        self.request.sendall(b"-ERR unknown command\r\n")


@CLIENTS
def test_no_tls_there(ping: Callable[[str, str | None], None]) -> None:
    """A server that speaks no TLS is told nothing but a client's hello."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), SpeaksPlainly) as server:
        server.received = b""  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(
            RedisUnavailable, match=r"no TLS with rediss://127\.0\.0\.1:\d+/0 \(wrong version"
        ):
            ping(f"rediss://{LOGIN}127.0.0.1:{server.server_address[1]}/0", None)
        server.shutdown()
    assert b"\x16\x03" == server.received[:2]  # type: ignore[attr-defined]  # a record of a handshake
    assert not [word for word in (b"hush", b"AUTH", b"HELLO") if word in server.received]  # type: ignore[attr-defined]


@CLIENTS
def test_tls_at_one_end_only(
    redis_server: RedisServer, certificates: Certificates, ping: Callable[[str, str | None], None]
) -> None:
    """Where the URL says TLS and the port has none, or the other way round, the error names the other scheme."""
    with (
        Proxy(redis_server.socket) as plain,
        Proxy(redis_server.socket, certificates.server("127.0.0.1")) as tls,
    ):
        with pytest.raises(
            RedisUnavailable, match=r"speaks no TLS at this port, the URL starts with redis://$"
        ):
            ping(f"{plain.url.replace('redis:', 'rediss:')}?socket_timeout=1&socket_connect_timeout=1", None)
        with pytest.raises(
            RedisUnavailable, match=r"speaks TLS at this port, the URL starts with rediss://$"
        ):
            ping(tls.url.replace("rediss:", "redis:"), None)


@CLIENTS
@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_cert_reqs=CERT_NONE"])
def test_unverified_where_the_url_says_so(
    redis_server: RedisServer,
    password: None,
    certificates: Certificates,
    ping: Callable[[str, str | None], None],
    option: str,
) -> None:
    """Who asks for it in the URL gets a connection that is not verified, from each client."""
    with Proxy(redis_server.socket, certificates.server("other.test")) as proxy:
        ping(f"{proxy.url.replace('//', f'//{LOGIN}')}?{option}", None)


@CLIENTS
def test_client_certificate(
    redis_server: RedisServer,
    password: None,
    certificates: Certificates,
    authority: str,
    ping: Callable[[str, str | None], None],
) -> None:
    """A server that wants a certificate of ours gets the one that the URL names; without one it refuses."""
    certificates.server("client.test")
    ours_is = Path(authority).with_name("client.test-30-False.pem")
    wants = certificates.server("127.0.0.1")
    wants.verify_mode = ssl.CERT_REQUIRED
    wants.load_verify_locations(authority)
    with Proxy(redis_server.socket, wants) as proxy:
        url = proxy.url.replace("//", f"//{LOGIN}")
        ping(f"{url}?ssl_certfile={ours_is}&ssl_keyfile={ours_is}", authority)
        with pytest.raises(RedisUnavailable):
            ping(url, authority)


@CLIENTS
def test_unix_socket(redis_url: str, password: None, ping: Callable[[str, str | None], None]) -> None:
    """A unix socket with a user, a password and a database works with each client, whatever authorities are set."""
    ping(f"{redis_url.replace('//', f'//{LOGIN}')}?db=3", "/not/read")


def test_worker(
    redis_server: RedisServer, password: None, certificates: Certificates, authority: str, tmp_path: Path
) -> None:
    """A worker whose engine and Celery both use TLS takes hints and leads intake, and writes its password nowhere."""
    with Proxy(redis_server.socket, certificates.server("127.0.0.1")) as proxy:
        settings = {"REDIS_URL": proxy.url.replace("//", f"//{LOGIN}"), "REDIS_CA_FILE": authority}
        env = os.environ | {f"DISPATCHER_{name}": value for name, value in settings.items()}
        with (
            (tmp_path / "log").open("wb") as log,
            subprocess.Popen([*CLI, "worker"], env=env, stdout=log, stderr=log) as worker,
        ):
            live = subprocess.run(
                [*CLI, "check", "--live"], env=env, capture_output=True, timeout=60, check=False
            )
            worker.terminate()
            assert 0 == worker.wait(30)
    written = (tmp_path / "log").read_text()
    assert (0, True, False) == (live.returncode, "intake.leading" in written, "hush" in written), written


def checked(**settings: str) -> "subprocess.CompletedProcess[str]":
    """`dispatcher check --json` with settings."""
    env = os.environ | {f"DISPATCHER_{name}": value for name, value in settings.items()}
    command = [*CLI, "check", "--json"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_check_tells_what_each_does(
    redis_url: str, redis_server: RedisServer, password: None, certificates: Certificates, authority: str
) -> None:
    """`check` says of our connection and of Celery's whether they verify, and that an impostor was refused."""
    with (
        Proxy(redis_server.socket, certificates.server("127.0.0.1")) as good,
        Proxy(redis_server.socket, certificates.server("other.test")) as bad,
    ):
        good_url, bad_url = (proxy.url.replace("//", f"//{LOGIN}") for proxy in (good, bad))
        done = checked(REDIS_URL=good_url, BROKER_URL=bad_url, REDIS_CA_FILE=authority)
        assert b"" == bad.received
        unverified = checked(REDIS_URL=redis_url, BROKER_URL=f"{bad_url}?ssl_cert_reqs=none")
        refused = checked(REDIS_URL=bad_url, REDIS_CA_FILE=authority)
    found = {one["subject"]: one for one in json.loads(done.stdout)}
    verified = "TLS, certificate and name verified"
    assert [verified] * 2 == [found[name]["detail"] for name in ("encryption", "celery encryption")]
    assert Verdict.BAD == found["celery"]["verdict"]
    assert "is refused" in found["celery"]["detail"]
    found = {one["subject"]: one for one in json.loads(unverified.stdout)}
    assert "not verified (ssl_cert_reqs=none)" in found["celery encryption"]["detail"]
    assert (Verdict.OK, Verdict.WARNING) == (
        found["celery"]["verdict"],
        found["celery encryption"]["verdict"],
    )
    assert (3, 1) == (refused.returncode, len(refused.stderr.splitlines()))
    assert "is refused" in refused.stderr
    assert "hush" not in done.stdout + done.stderr + unverified.stdout + unverified.stderr + refused.stderr


@pytest.mark.parametrize(
    ("url", "verdict", "says"),
    [
        ("redis://127.0.0.1/0", "ok", "on this machine"),
        ("redis://redis.example/0", "warning", "not encrypted"),
        ("unix:///tmp/redis.sock", "ok", "unix socket"),
        ("rediss://redis.example/0", "ok", "certificate and name verified"),
        ("rediss://redis.example/0?ssl_check_hostname=false", "warning", "not its name"),
        ("rediss://redis.example/0?ssl_cert_reqs=none", "warning", "not verified"),
        ("redis+sentinel://redis.example/main", "warning", "not encrypted"),
        ("redis+sentinel://127.0.0.1,localhost/main", "ok", "on this machine"),
        ("redis+sentinel://127.0.0.1,redis.example/main", "warning", "not encrypted"),
        ("amqp://127.0.0.1//;amqp://mq.example//", "warning", "not encrypted"),
        ("amqp://127.0.0.1//", "ok", "on this machine"),
        ("rediss+sentinel://redis.example/main", "ok", "certificate and name verified"),
        ("rediss+sentinel://redis.example/main?ssl_cert_reqs=none", "warning", "not verified"),
        ("amqp://mq.example//", "warning", "not encrypted"),
        ("amqps://mq.example//", "ok", "certificate and name verified"),
        ("amqps://mq.example//;amqps://mq2.example//", "warning", "not their names"),
        ("amqps://mq.example//;amqp://mq.example//", "warning", "not their names"),
        ("memory://", "unknown", "own rules"),
    ],
)
def test_what_celery_does(url: str, verdict: str, says: str) -> None:
    """What `check` says of Celery's connection is what kombu was given."""
    celery_url, tls, options = broker.of(url, None)
    with Celery(broker=celery_url, broker_use_ssl=tls, broker_transport_options=options) as app:
        found = celery_encryption(app.connection_for_write())
    assert (verdict, True) == (found.verdict, says in found.detail)
    assert url.startswith("amqp") or "amqps" not in found.advice
    assert "use amqps://" in found.advice or not (url.startswith("amqp:") and found.advice)
