"""Connections that come from an address of the operator's choice, on real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import AddressPolicy
from dispatcher.rules.source_addresses import source_addresses
from dispatcher.sending.answer import Answer
from dispatcher.sending.failures import Failure, InternalError, NoAnswer
from dispatcher.sending.source import Source
from dispatcher.sending.transport import CallbackTransport

LOCAL = AddressPolicy.of(["127.0.0.0/8", "::1/128"])
SOURCE = "127.0.0.2"
NOT_OURS = "192.0.2.7"
"""TEST-NET-1: no machine has it."""

needs_ipv6 = pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")


class Server:
    """Answers 204, and keeps where connections came from."""

    def __init__(self) -> None:
        self.peers: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.peers.append(writer.get_extra_info("peername")[0])
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(*hosts: str) -> AsyncIterator[Server]:
    """A server at one port of these addresses."""
    found = Server()
    first = await asyncio.start_server(found.serve, hosts[0])
    found.port = first.sockets[0].getsockname()[1]
    servers = [first, *[await asyncio.start_server(found.serve, host, found.port) for host in hosts[1:]]]
    try:
        yield found
    finally:
        for one in servers:
            one.close()


class Names:
    """A resolver with one name."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(self, _host: str, _port: int) -> Sequence[str]:
        """Its addresses."""
        return self._addresses

    async def close(self) -> None:
        """Holds nothing."""


async def post(server: Server, host: str, source: Source | None, *addresses: str) -> Answer | Failure:
    """What one POST brings."""
    transport = CallbackTransport(LOCAL, 5.0, resolver=Names(*addresses), source=source)
    try:
        return await transport.post(f"http://{host}:{server.port}/", {}, b"{}")
    finally:
        await transport.aclose()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("host", "addresses"),
    [("127.0.0.1", []), ("a.test", ["127.0.0.1"]), ("a.test", ["127.0.0.9", "127.0.0.1"])],
    ids=["an address", "a name", "a name whose first address refuses"],
)
def test_bound(loop: object, host: str, addresses: list[str]) -> None:
    """The receiver sees that address; without the setting it sees the one that the system chooses."""

    async def scene() -> None:
        async with serving("127.0.0.1") as server:
            for source in (None, Source({4: SOURCE})):
                answered = await post(server, host, source, *addresses)
                assert isinstance(answered, Answer)
                assert answered.status == 204
            assert server.peers == ["127.0.0.1", SOURCE]

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
        runner.run(scene())


@needs_ipv6
def test_a_family_without_an_address_is_not_used() -> None:
    """Not even if the receiver has nothing else, or prefers it: its firewall would not know the sender."""

    async def scene() -> None:
        async with serving("127.0.0.1", "::1") as server:
            four, six, both = Source({4: SOURCE}), Source({6: "::1"}), Source({4: SOURCE, 6: "::1"})
            for source in (four, six, both):
                assert isinstance(await post(server, "a.test", source, "::1", "127.0.0.1"), Answer)
            assert server.peers == [SOURCE, "::1", "::1"]
            for source, host, version in ((four, "[::1]", 6), (six, "127.0.0.1", 4)):
                shown = host.strip("[]")
                assert await post(server, host, source) == NoAnswer(
                    "connect",
                    f"{shown} has addresses of IPv{version} alone, and DISPATCHER_SOURCE_ADDRESS has none of those",
                )
            assert len(server.peers) == 3

    uvloop.run(scene())


def test_an_address_that_this_machine_does_not_have() -> None:
    """It is refused at the start, with one line."""
    says = f"^this machine cannot send from DISPATCHER_SOURCE_ADDRESS {NOT_OURS}: Cannot assign requested address$"
    with pytest.raises(InvalidInput, match=says):
        Source({4: NOT_OURS})


def test_an_address_that_goes_away_is_no_fault_of_the_receivers() -> None:
    """While the worker runs it is an error of ours, which counts as no attempt; no descriptor is lost."""

    class Gone(Source):
        def bind(self, sock: socket.socket) -> None:
            """As if the address was taken from the machine after the start."""
            if self.is_gone:
                self._addresses[socket.AF_INET] = NOT_OURS
            super().bind(sock)

        is_gone = False

    async def scene() -> None:
        async with serving("127.0.0.1") as server:
            source = Gone({4: SOURCE})
            source.is_gone = True
            for addresses in ([], ["127.0.0.1", "127.0.0.9"]):
                host = "a.test" if addresses else "127.0.0.1"
                found = await post(server, host, source, *addresses)
                assert isinstance(found, InternalError)
                assert NOT_OURS in found.text
            assert server.peers == []

    uvloop.run(scene())


def test_many_connections_share_ports() -> None:
    """The port is chosen when it is connected, so there are as many for each receiver, not for all together."""
    with socket.socket() as sock:
        Source({4: SOURCE}).bind(sock)
        assert sock.getsockname() == (SOURCE, 0)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["1.2.3.4", "5.6.7.8"], "two addresses of IPv4"),
        (["::1", "::2"], "two addresses of IPv6"),
        (["0.0.0.0"], "is no address to send from"),
        (["::"], "is no address to send from"),
        (["224.0.0.1"], "is no address to send from"),
        (["eth0"], "'eth0' is no address to send from; write one of IPv4, of IPv6, or both: 192"),
        (["fe80::1%eth0"], "is no address to send from"),
        (["1.2.3.0/24"], "is no address to send from"),
    ],
)
def test_no_source_address(texts: list[str], says: str) -> None:
    """One address of each family, which a socket can have."""
    with pytest.raises(ValueError, match=says):
        source_addresses(texts)


def test_source_addresses() -> None:
    """By IP version, in canonical text."""
    assert source_addresses(["2001:DB8:0::7", "192.0.2.7"]) == {6: "2001:db8::7", 4: "192.0.2.7"}
    assert source_addresses([]) == {}
