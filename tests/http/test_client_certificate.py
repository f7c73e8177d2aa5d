"""Client certificates on real servers that ask for them: who is shown which, and on which connection."""

import asyncio
import dataclasses
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from msgspec.structs import replace

from dispatcher.rules.addresses import AddressPolicy
from dispatcher.rules.certificate_check import client_certificate
from dispatcher.rules.client_certificate import ClientCertificate
from dispatcher.rules.outcomes import Attempt
from dispatcher.rules.subscription import Secret, Subscription
from dispatcher.sending.answer import Answer
from dispatcher.sending.client_tls import ClientContexts, with_certificate
from dispatcher.sending.failures import InternalError, NoAnswer
from dispatcher.sending.sender import Sender
from dispatcher.sending.transport import CallbackTransport, http_client
from tests.client_certificates import ClientAuthority
from tests.http.raw_server import Connection, RawServer, answer, serving
from tests.http.test_sender import NEW, callback, workspace
from tests.http.test_transport import Certificates, names

HOST = "receiver.test"


def now_ms() -> int:
    """Certificates are made when a test runs, so this is no constant."""
    return round(time.time() * 1000)


REFUSALS = ("tls_handshake", "maybe_received")
"""The words for a server that refuses us in the handshake: with TLS 1.3 only after our side of it is over, by an alert
or, as asyncio's servers do, by a reset (RFC 8446 §4.4.2.4)."""


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Runs a coroutine to its end on a loop of its own."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


class Scene:
    """An authority for servers and one for clients, and whom a server saw on which connection."""

    def __init__(self, folder: Path) -> None:
        self.servers, self.clients = Certificates(folder), ClientAuthority(folder)
        self.seen: list[list[str]] = []
        """For each connection the clients' names, one a request."""

    def issue(self, name: str, **options: Any) -> ClientCertificate:
        """A checked certificate."""
        pair = self.clients.issue(name, **options)
        return client_certificate(pair.certificate, pair.key, now_ms())

    async def _behaviour(self, connection: Connection) -> None:
        tls: ssl.SSLObject = connection._writer.get_extra_info("ssl_object")
        shown: Any = tls.getpeercert() or {"subject": ((("commonName", ""),),)}
        self.seen.append(on_this := [])
        while await connection.request():
            on_this.append(shown["subject"][0][0][1])
            await connection.send(answer())

    @asynccontextmanager
    async def receiver(
        self, *, asks: bool = True, tls13: bool = True
    ) -> AsyncIterator[tuple[RawServer, CallbackTransport]]:
        """A server that asks for certificates, and the transport to it."""
        at_server = self.servers.server(HOST)
        if asks:
            self.clients.asking(at_server, tls13=tls13)
        async with serving(self._behaviour, tls=at_server) as server:
            transport = CallbackTransport(
                AddressPolicy.of(["127.0.0.0/8"]),
                10.0,
                resolver=names("127.0.0.1"),
                new_tls=self.servers.client,
            )
            try:
                yield server, transport
            finally:
                await transport.aclose()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """The scene."""
    return Scene(tmp_path)


@pytest.mark.parametrize("tls13", [True, False], ids=["TLS 1.3", "TLS 1.2"])
def test_each_connection_shows_its_own(run: Any, scene: Scene, tls13: bool) -> None:
    """Requests share a connection with those that show the same certificate, and with no others.

    Those with another one or with none, to the same server, have connections of their own; whoever comes first.
    """
    crm, billing = scene.issue("crm"), scene.issue("billing", rsa_bits=2048)

    async def work() -> None:
        async with scene.receiver(tls13=tls13) as (server, transport):

            async def post(certificate: ClientCertificate | None) -> Any:
                return await transport.post(server.url_at(HOST), {}, b"{}", certificate=certificate)

            for certificate in (crm, billing, crm, billing, crm):
                assert (await post(certificate)).status == 200
            assert sorted(scene.seen) == [["billing"] * 2, ["crm"] * 3]
            refused = await post(None)
            assert isinstance(refused, NoAnswer)
            assert refused.word in REFUSALS
            assert (await post(crm)).status == 200
            together = await asyncio.gather(*(post(one) for one in (crm, billing) * 10))
            assert {one.status for one in together} == {200}
        assert all(len(set(one)) <= 1 for one in scene.seen)
        assert sum(one.count("crm") for one in scene.seen) == 14
        assert sum(one.count("billing") for one in scene.seen) == 12

    run(work())


def test_a_server_that_does_not_ask_sees_none(run: Any, scene: Scene) -> None:
    """Then nothing is shown; connections are not shared all the same."""
    crm = scene.issue("crm")

    async def work() -> None:
        async with scene.receiver(asks=False) as (server, transport):
            for certificate in (crm, None, crm, None):
                found = await transport.post(server.url_at(HOST), {}, b"{}", certificate=certificate)
                assert isinstance(found, Answer)
        assert scene.seen == [["", ""], ["", ""]]

    run(work())


def test_by_httpx(run: Any, scene: Scene) -> None:
    """`ping` sends through httpx: the certificate is an extension of its request."""
    crm = scene.issue("crm")

    async def work() -> None:
        async with scene.receiver() as (server, transport):
            client = http_client(transport)
            for _ in range(2):
                found = await client.post(server.url_at(HOST), content=b"{}", extensions={"certificate": crm})
                assert found.status_code == 200
        assert scene.seen == [["crm", "crm"]]

    run(work())


def test_a_certificate_of_another_authority(run: Any, scene: Scene, tmp_path: Path) -> None:
    """The server refuses it, which is its word and not our fault."""
    (tmp_path / "other").mkdir()
    pair = ClientAuthority(tmp_path / "other").issue("crm")
    crm = client_certificate(pair.certificate, pair.key, now_ms())

    async def work() -> None:
        async with scene.receiver() as (server, transport):
            refused = await transport.post(server.url_at(HOST), {}, b"{}", certificate=crm)
            assert isinstance(refused, NoAnswer)
            assert refused.word in REFUSALS

    run(work())


def test_one_that_openssl_does_not_load_is_our_fault(run: Any, scene: Scene) -> None:
    """It stays an internal error, by which no attempt is counted; another one works."""
    crm = scene.issue("crm")
    broken = replace(
        crm, key="-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", fingerprint="b"
    )

    async def work() -> None:
        async with scene.receiver() as (server, transport):
            for _ in range(3):
                found = await transport.post(server.url_at(HOST), {}, b"{}", certificate=broken)
                assert isinstance(found, InternalError)
                assert "client certificate cannot be loaded" in found.text
                assert "AAAA" not in found.text
            assert isinstance(await transport.post(server.url_at(HOST), {}, b"{}", certificate=crm), Answer)

    run(work())


def test_one_that_cannot_be_made_is_not_tried_all_the_time(
    run: Any, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But again after FAILED_SECONDS."""
    monkeypatch.setattr("dispatcher.sending.client_tls.FAILED_SECONDS", 0.05)
    broken, made = replace(scene.issue("crm"), key="no key"), 0

    def new() -> ssl.SSLContext:
        nonlocal made
        made += 1
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async def work() -> None:
        contexts = ClientContexts(new)
        for _ in range(5):
            with pytest.raises(OSError, match="PEM"):
                await contexts.of(broken)
        assert made == 1
        await asyncio.sleep(0.2)
        with pytest.raises(OSError, match="PEM"):
            await contexts.of(broken)
        assert made == 2

    run(work())


def test_contexts_are_made_once_and_bounded(run: Any, scene: Scene) -> None:
    """One for each certificate, also if many ask at once; of too many the ones used last stay."""
    certificates = [scene.issue(f"c{number}") for number in range(4)]
    made = 0

    def new() -> ssl.SSLContext:
        nonlocal made
        made += 1
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async def work() -> None:
        contexts = ClientContexts(new, most=3)
        first = await asyncio.gather(*(contexts.of(certificates[0]) for _ in range(5)))
        assert made == len(set(map(id, first))) == 1
        for one in (1, 2, 0, 3):
            await contexts.of(certificates[one])
        assert made == 4
        assert await contexts.of(certificates[0]) is first[0]
        await contexts.of(certificates[1])
        assert made == 5

    run(work())


def test_no_file_is_left(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files cannot be in memory, the one with the key is this user's alone, and gone afterwards."""
    monkeypatch.delattr("os.memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "files"))
    (tmp_path / "files").mkdir()
    modes: list[int] = []

    class Context:
        def load_cert_chain(self, path: str) -> None:
            modes.append(Path(path).stat().st_mode & 0o777)

    with_certificate(scene.issue("crm"), Context)  # type: ignore[arg-type]
    assert modes == [0o600]
    assert list((tmp_path / "files").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "path", "shown"),
    [("crm", "/hooks", "crm"), ("crm", "/other", "crm"), ("", "/hooks", "acme"), ("", "/other", "")],
    ids=["its URL", "its server", "the default's URL", "a callbackUrl at its server"],
)
def test_it_is_shown_to_the_receiver_alone(scene: Scene, name: str, path: str, shown: str) -> None:
    """As Authorization is: what a status change brought as its URL is not shown the workspace's certificate."""

    async def work() -> Attempt:
        async with scene.receiver(asks=bool(shown)) as (server, transport):
            url = server.url_at(HOST).removesuffix("/") + "/hooks"
            crm = Subscription(
                "crm", "zeckta", url, (Secret(NEW, 1),), 0, client_certificate=scene.issue("crm")
            )
            acme = dataclasses.replace(
                workspace(),
                callback_url=url,
                subscriptions={"crm": crm},
                client_certificate=scene.issue("acme"),
            )
            one = replace(
                callback(url.replace("/hooks", path)),
                event_id=f"e-1.{name}" if name else "e-1",
                accepted_ms=1,
            )
            return await Sender(transport, "test").send(one, acme, now_ms())

    assert asyncio.run(work()).http_status == 200
    assert scene.seen == [[shown]]


def test_a_registered_url_that_cannot_be_read(scene: Scene) -> None:
    """What waits is our fault, in one line: nothing is sent, and no attempt is counted."""
    ours = Subscription(
        "crm", "zeckta", "https://", (Secret(NEW, 1),), 0, client_certificate=scene.issue("crm")
    )
    acme = dataclasses.replace(workspace(), subscriptions={"crm": ours})

    async def work() -> Attempt:
        async with scene.receiver() as (server, transport):
            one = replace(callback(server.url_at(HOST)), event_id="e-1.crm", accepted_ms=1)
            return await Sender(transport, "test").send(one, acme, now_ms())

    attempt = asyncio.run(work())
    assert "subscription 'crm': callback URL" in (attempt.internal_error or "")


def test_one_that_has_ended_is_not_shown(scene: Scene) -> None:
    """The attempt fails as `auth` with the reason, and the receiver hears nothing of it."""

    async def work() -> Attempt:
        async with scene.receiver() as (server, transport):
            url = server.url_at(HOST)
            ended = scene.issue("acme", days=1)
            acme = dataclasses.replace(workspace(), callback_url=url, client_certificate=ended)
            return await Sender(transport, "test").send(callback(url), acme, ended.ends_ms)

    attempt = asyncio.run(work())
    assert (attempt.error, attempt.internal_error, scene.seen) == ("auth", None, [])
    assert attempt.detail.startswith("our client certificate ended at 20")
    assert attempt.answer.decode() == attempt.detail
