"""An egress proxy makes the connections, where settings name one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvloop

from dispatcher.addresses import AddressPolicy
from dispatcher.transport import CallbackTransport, TransportFailure


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
async def proxied(status: int) -> AsyncIterator[tuple[Proxy, CallbackTransport]]:
    """A proxy on loopback, and a transport that may connect to no private address by itself."""
    proxy = Proxy(status)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    transport = CallbackTransport(AddressPolicy(), 5.0, proxy_url=url)
    try:
        yield proxy, transport
    finally:
        await transport.aclose()
        server.close()
        await server.wait_closed()


def request(url: str) -> httpx.Request:
    """A POST."""
    return httpx.Request("POST", url, content=b"{}")


def test_goes_through_the_proxy() -> None:
    """A callback goes to the proxy by its name, unresolved; the proxy's own address may be private."""

    async def scene() -> None:
        async with proxied(200) as (proxy, transport):
            answer = await transport.handle_async_request(request("http://receiver.test/a?b"))
            assert 200 == answer.status_code
            assert ["POST http://receiver.test/a?b HTTP/1.1"] == proxy.asked

    uvloop.run(scene())


@pytest.mark.parametrize("status", [403, 407, 502])
def test_refused_by_the_proxy(status: int) -> None:
    """Where the proxy refuses to connect, the attempt says `proxy`."""

    async def scene() -> None:
        async with proxied(status) as (proxy, transport):
            with pytest.raises(TransportFailure) as caught:
                await transport.handle_async_request(request("https://receiver.test/"))
            assert "proxy" == caught.value.word
            assert ["CONNECT receiver.test:443 HTTP/1.1"] == proxy.asked

    uvloop.run(scene())


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "127.1", "2130706433"])
def test_private_literals_do_not_reach_the_proxy(host: str) -> None:
    """An address in place of a name is checked here, before the proxy is asked."""

    async def scene() -> None:
        async with proxied(200) as (proxy, transport):
            with pytest.raises(TransportFailure) as caught:
                await transport.handle_async_request(request(f"http://{host}/"))
            assert ("blocked_address", []) == (caught.value.word, proxy.asked)

    uvloop.run(scene())


def test_proxy_away() -> None:
    """A proxy that is not there is `proxy`, not the receiver's fault."""

    async def scene() -> None:
        transport = CallbackTransport(AddressPolicy(), 5.0, proxy_url="http://127.0.0.1:1")
        with pytest.raises(TransportFailure) as caught:
            await transport.handle_async_request(request("http://receiver.test/"))
        await transport.aclose()
        assert "proxy" == caught.value.word

    uvloop.run(scene())
