"""What is sent by an httpx client on our transport: the same bytes, the same checks, and httpx's own exceptions."""

import asyncio
import gzip
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
import uvloop

from dispatcher.rules.addresses import AddressPolicy
from dispatcher.rules.attempt_errors import ERRORS
from dispatcher.sending.exceptions import Failed, exception_of
from dispatcher.sending.failures import InternalError, NoAnswer
from dispatcher.sending.sender import Sender
from dispatcher.sending.transport import CallbackTransport, http_client
from tasks.actions.ping import ByHttpx
from tests.http.raw_server import Behaviour, Received, answer, answers, closes, hangs, serving
from tests.http.test_sender import AGENT, NOW_MS, TLS, callback, workspace

LOCAL = AddressPolicy.of(["127.0.0.0/8"])


def transport(seconds: float = 20.0, proxy_url: str | None = None) -> CallbackTransport:
    return CallbackTransport(LOCAL, seconds, tls=TLS, proxy_url=proxy_url)


def received(work: Callable[[httpx.AsyncClient, str], Awaitable[object]], *contents: bytes) -> list[Received]:
    """What a server got while a client did its work."""

    async def scene() -> list[Received]:
        async with serving(answers(*contents or (answer(),))) as server, http_client(transport()) as client:
            await work(client, server.url)
            return server.received

    return uvloop.run(scene())


def test_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request has the headers that it was given, in their own spelling, and those that HTTP needs; no proxy is asked."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    headers = [("X-Trace", "1"), ("content-TYPE", "text/plain"), ("X-Trace", "2")]
    [got] = received(lambda client, url: client.post(url, headers=headers, content=b"ab"))
    assert ["Host", "Content-Length", "X-Trace", "content-TYPE"] == [name for name, _ in got.headers]
    assert ("2", "1, 2") == (got.headers[1][1], got.headers[2][1])


def test_cookies_are_not_kept() -> None:
    """What an answer sets is in no later request of the client."""

    async def twice(client: httpx.AsyncClient, url: str) -> None:
        for _ in range(2):
            await client.post(url)

    odd = (
        "Set-Cookie: id=1; expires=1 Jan " + "1" * 60_000
    )  # the standard library would warn, with a traceback
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = received(twice, answer(200, b"", "Set-Cookie: id=1; Path=/", odd), answer())
    assert [[], []] == [one.values("cookie") for one in got]


def test_a_redirect_is_an_answer() -> None:
    """The client goes nowhere else."""

    async def work(client: httpx.AsyncClient, url: str) -> None:
        assert 307 == (await client.post(url)).status_code

    assert 1 == len(received(work, answer(307, b"", "Location: /other")))


def test_a_body_in_pieces_goes_out_in_one() -> None:
    """A body that a client streams has its length, and no Transfer-Encoding beside it."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"c"

    [got] = received(lambda client, url: client.post(url, content=pieces()))
    assert (b"abc", ["3"], []) == (got.body, got.values("content-length"), got.values("transfer-encoding"))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods(method: str) -> None:
    """A client may send any method."""
    [got] = received(lambda client, url: client.request(method, url))
    assert f"{method} /hook HTTP/1.1" == got.line


def test_no_body_is_awaited_after_head() -> None:
    """An answer to HEAD has a length and no body; the connection is used again."""

    async def work(client: httpx.AsyncClient, url: str) -> None:
        assert b"" == (await client.head(url)).content
        assert 201 == (await client.post(url)).status_code

    got = received(work, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", answer(201))
    assert ["HEAD", "POST"] == [one.line.split()[0] for one in got]


def test_a_client_does_not_decompress() -> None:
    """A body is the bytes that came, at most as many as are read of an answer."""
    packed = gzip.compress(bytes(8_000_000))

    async def work(client: httpx.AsyncClient, url: str) -> None:
        response = await client.post(url)
        assert packed == response.content
        assert "content-encoding" not in response.headers

    received(work, answer(200, packed, "Content-Encoding: gzip"))


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        *((word, httpx.ConnectError) for word in ("dns", "connect", "blocked_address", "tls_handshake")),
        *((word, httpx.ConnectError) for word in ("tls_expired", "tls_name", "tls_untrusted")),
        ("proxy", httpx.ProxyError),
        ("timeout", httpx.TimeoutException),
        ("maybe_received", httpx.ReadError),
        ("protocol", httpx.RemoteProtocolError),
    ],
)
def test_each_word_is_one_of_httpxs_exceptions(word: str, kind: type[httpx.TransportError]) -> None:
    """The exception is httpx's, says the same text, and has the failure with it."""
    assert word in ERRORS
    failure = NoAnswer(word, "why")
    raised = exception_of(failure)
    assert isinstance(raised, kind)
    assert isinstance(raised, Failed)
    assert ("why", failure) == (str(raised), raised.failure)


def test_our_own_fault_is_none_of_the_others() -> None:
    """Where this machine is to blame it is a TransportError, and neither a timeout nor of the network."""
    raised = exception_of(InternalError("no descriptors"))
    assert isinstance(raised, httpx.TransportError)
    assert not isinstance(raised, httpx.NetworkError | httpx.TimeoutException | httpx.ProtocolError)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (hangs, httpx.TimeoutException),
        (closes, httpx.ReadError),
        (answers(b"SSH-2.0-x\r\n"), httpx.RemoteProtocolError),
    ],
    ids=["hangs", "closes", "no HTTP"],
)
def test_what_a_client_raises(behaviour: Behaviour, kind: type[Exception]) -> None:
    """A server's misbehaviour reaches those who send by httpx as they know it."""

    async def scene() -> None:
        async with serving(behaviour) as server, http_client(transport(0.3)) as client:
            with pytest.raises(kind):
                await client.post(server.url, content=b"{}")

    uvloop.run(scene())


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://127.1/", "https://[::1]/"])
def test_addresses_are_checked(url: str) -> None:
    """A client reaches no address that a callback does not."""

    async def scene() -> None:
        async with http_client(transport()) as client:
            with pytest.raises(httpx.ConnectError) as caught:
                await client.post(url)
            assert "blocked_address" == caught.value.failure.word

    uvloop.run(scene())


GZIP = answer(500, b"\x1f\x8bno gzip", "Content-Encoding: gzip")


@pytest.mark.parametrize(
    "behaviour",
    [
        *(answers(one) for one in (answer(204), answer(410, b"gone"), GZIP, b"RTSP/1.0 200 OK\r\n\r\n")),
        hangs,
        closes,
    ],
)
def test_ping_sees_what_a_delivery_would(behaviour: Behaviour) -> None:
    """By an httpx client the same request goes out as by the short way, and the attempt is the same."""

    async def scene() -> None:
        short = transport(0.3)
        async with serving(behaviour) as server, http_client(transport(0.3)) as client:
            for one in (short, ByHttpx(client)):
                made = await Sender(one, AGENT).send(callback(server.url), workspace(), NOW_MS)
                attempts.append((made.http_status, made.error, made.answer, made.detail, made.internal_error))
            requests.extend((one.line, one.headers, one.body) for one in server.received)
        await short.aclose()

    attempts: list[object] = []
    requests: list[object] = []
    asyncio.run(scene())
    assert attempts[0] == attempts[1]
    assert len(requests) in (0, 2)
    assert requests[:1] == requests[1:]
