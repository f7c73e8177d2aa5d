"""An egress proxy makes the connections, where settings name one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import AddressPolicy
from dispatcher.sending.answer import Answer
from dispatcher.sending.failures import Failure
from dispatcher.sending.transport import CallbackTransport
from tests.http.raw_server import answer, answers, serving
from tests.http.test_transport import Certificates

NOTHING_PRIVATE = AddressPolicy()


class Proxy:
    """Remembers what it was asked, and answers with `status`; with 200 it is the receiver, too."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.splitlines()[0])
        writer.write(f"HTTP/1.1 {self.status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def proxied(
    status: int, policy: AddressPolicy = NOTHING_PRIVATE
) -> AsyncIterator[tuple[Proxy, CallbackTransport]]:
    """A proxy on loopback, and a transport that may connect to no private address by itself."""
    proxy = Proxy(status)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    transport = CallbackTransport(policy, 5.0, proxy_url=url)
    try:
        yield proxy, transport
    finally:
        await transport.aclose()
        server.close()
        await server.wait_closed()


async def post(transport: CallbackTransport, url: str) -> Answer | Failure:
    """What a POST brings."""
    return await transport.post(url, {}, b"{}")


def test_goes_through_the_proxy() -> None:
    """A callback goes to the proxy by its name, unresolved; the proxy's own address may be private."""

    async def scene() -> None:
        async with proxied(200) as (proxy, transport):
            assert 200 == (await post(transport, "http://receiver.test/a?b")).status
            assert ["POST http://receiver.test/a?b HTTP/1.1"] == proxy.asked

    uvloop.run(scene())


@pytest.mark.parametrize("status", [403, 407, 502])
def test_refused_by_the_proxy(status: int) -> None:
    """Where the proxy refuses to connect, the attempt says `proxy`."""

    async def scene() -> None:
        async with proxied(status) as (proxy, transport):
            assert "proxy" == (await post(transport, "https://receiver.test/")).word
            assert ["CONNECT receiver.test:443 HTTP/1.1"] == proxy.asked

    uvloop.run(scene())


def test_a_proxy_that_does_not_know_us() -> None:
    """Without a tunnel a proxy's 407 is its own word, too: no receiver may say it, and ours has said nothing."""

    async def scene() -> None:
        async with proxied(407) as (_, transport):
            assert "proxy" == (await post(transport, "http://receiver.test/")).word

    uvloop.run(scene())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "content",
    [b"HTTP/1.1 200 OK\r\n\r\nand more", b"RTSP/1.0 200 OK\r\n\r\n", b"SSH-2.0\r\n"],
    ids=["something behind", "another protocol", "no status"],
)
def test_what_opens_no_tunnel_is_the_proxys_fault(
    loop: Callable[[], asyncio.AbstractEventLoop], content: bytes
) -> None:
    """An answer to CONNECT that is none, or behind which something comes before TLS, is `proxy`."""

    async def scene() -> None:
        async with serving(answers(content)) as proxy:
            transport = CallbackTransport(AddressPolicy(), 20.0, proxy_url=proxy.url.removesuffix("/hook"))
            assert "proxy" == (await post(transport, "https://receiver.test/")).word
            await transport.aclose()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scene())


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "169.254.169.254", "127.1", "2130706433", "168.63.129.16"]
)
def test_private_literals_do_not_reach_the_proxy(host: str) -> None:
    """An address in place of a name is checked here, before the proxy is asked."""

    async def scene() -> None:
        async with proxied(200) as (proxy, transport):
            assert "blocked_address" == (await post(transport, f"http://{host}/")).word
            assert [] == proxy.asked

    uvloop.run(scene())


@pytest.mark.parametrize(
    "host",
    [
        "203.0.112.7",
        "[::ffff:203.0.112.7]",
        "[64:ff9b::203.0.112.7]",
        "[2002:cb00:7007::1]",
        "[2606:4700::1]",
    ],
)
def test_denied_literals_do_not_reach_the_proxy(host: str) -> None:
    """What the operator has denied is refused here, too, where a proxy connects and all is allowed."""

    async def scene() -> None:
        policy = AddressPolicy.of(["0.0.0.0/0", "::/0"], (), ["203.0.112.0/24", "2606:4700::/32"])
        async with proxied(200, policy) as (proxy, transport):
            refused = await post(transport, f"http://{host}/")
            assert ("blocked_address", []) == (refused.word, proxy.asked)
            assert "DISPATCHER_DENIED_NETWORKS" in refused.text
            assert 200 == (await post(transport, "http://203.0.113.7/")).status
            assert 1 == len(proxy.asked)

    uvloop.run(scene())


def test_the_proxy_is_asked_for_the_name_without_its_dot() -> None:
    """With https the proxy connects to the name that the certificate is checked against."""

    async def scene() -> None:
        async with proxied(502) as (proxy, transport):
            assert "proxy" == (await post(transport, "https://receiver.test.:8443/a")).word
            assert ["CONNECT receiver.test:8443 HTTP/1.1"] == proxy.asked

    uvloop.run(scene())


@pytest.mark.parametrize(
    "url", ["http://1.1.1.1[v1.x]:8080", "http://127.1:8080", "http://u:p@[::1%25lo]:80"]
)
def test_a_proxy_whose_host_is_none(url: str) -> None:
    """The proxy's own host is read as strictly as a callback's."""

    async def scene() -> None:
        with pytest.raises(InvalidInput):
            CallbackTransport(AddressPolicy(), 5.0, proxy_url=url)

    uvloop.run(scene())


def test_proxy_away() -> None:
    """A proxy that is not there is `proxy`, not the receiver's fault."""

    async def scene() -> None:
        transport = CallbackTransport(AddressPolicy(), 5.0, proxy_url="http://127.0.0.1:1")
        assert "proxy" == (await post(transport, "http://receiver.test/")).word
        await transport.aclose()

    uvloop.run(scene())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_encrypted_through_the_proxy(
    loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path, scheme: str
) -> None:
    """With https the proxy only carries bytes: certificate and name are the receiver's, and connections are kept.

    The same holds if the connection to the proxy is itself encrypted, with the proxy's own certificate.
    """
    certificates = Certificates(tmp_path)
    asked: list[str] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def scene() -> None:
        async with serving(
            answers(answer(201), answer(202)), tls=certificates.server("receiver.test")
        ) as server:

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
                there, back = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(carry(reader, back), carry(there, writer))

            tls = certificates.server("127.0.0.1") if scheme == "https" else None
            proxy = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
            url = f"{scheme}://user:pass%20word@127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
            transport = CallbackTransport(AddressPolicy(), 5.0, proxy_url=url, tls=certificates.client())
            statuses = [(await post(transport, server.url_at("receiver.test"))).status for _ in range(2)]
            other = await post(transport, server.url_at("other.test"))
            await transport.aclose()
            proxy.close()
            await proxy.wait_closed()
            assert ([201, 202], "tls_name") == (statuses, other.word)
            assert [f"CONNECT {host}.test:{server.port} HTTP/1.1" for host in ("receiver", "other")] == [
                head.splitlines()[0] for head in asked
            ]
            assert "Proxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ=" in asked[0]

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scene())
