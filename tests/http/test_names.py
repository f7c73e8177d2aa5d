"""Look-ups: each name once at a time, kept for a while, never a failure."""

import asyncio
import socket

import httpx
import pytest
import uvloop
from aiohttp.abc import AbstractResolver, ResolveResult

from bench.names import answer_to
from dispatcher.addresses import AddressPolicy
from dispatcher.names import BlockedAddress, Names
from dispatcher.transport import CallbackTransport
from tests.http.raw_server import answer, answers, serving

POLICY = AddressPolicy.of(["127.0.0.0/8"])


class Scripted(AbstractResolver):
    """Gives out answers in turn; an error is raised."""

    def __init__(self, *answers: list[str] | OSError) -> None:
        self._answers = iter(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        await asyncio.sleep(0)
        found = next(self._answers)
        if isinstance(found, OSError):
            raise found
        return [
            ResolveResult(hostname=host, host=one, port=port, family=socket.AF_INET, proto=0, flags=0)
            for one in found
        ]

    async def close(self) -> None:
        """Holds nothing."""


def test_asked_once_by_many() -> None:
    """A hundred that want one name at once share one look-up, and who comes later has its answer."""

    async def scene() -> None:
        resolver = Scripted(["127.0.0.1"])
        names = Names(resolver, POLICY)
        found = await asyncio.gather(*(names.addresses("a.test", 80) for _ in range(100)))
        found.append(await names.addresses("a.test", 80))
        assert {("127.0.0.1", 80)} == {one[4] for some in found for one in some}
        assert 1 == resolver.asked
        await names.close()

    uvloop.run(scene())


def test_one_who_leaves_ends_no_look_up() -> None:
    """A look-up goes on for the others when one that waits for it is cancelled."""

    async def scene() -> None:
        names = Names(Scripted(["127.0.0.1"]), POLICY)
        leaves = asyncio.create_task(names.addresses("a.test", 80))
        stays = asyncio.create_task(names.addresses("a.test", 80))
        await asyncio.sleep(0)
        leaves.cancel()
        assert 1 == len(await stays)
        await names.close()

    uvloop.run(scene())


def test_failures_are_not_kept() -> None:
    """After a failed or a blocked look-up the name is looked up again."""

    async def scene() -> None:
        resolver = Scripted(OSError("nothing there"), ["10.0.0.1"], ["127.0.0.1"])
        names = Names(resolver, POLICY)
        with pytest.raises(OSError, match="nothing there"):
            await names.addresses("a.test", 80)
        with pytest.raises(BlockedAddress):
            await names.addresses("a.test", 80)
        assert 1 == len(await names.addresses("a.test", 80))
        assert 3 == resolver.asked
        await names.close()

    uvloop.run(scene())


def test_an_address_is_not_looked_up() -> None:
    """An address in place of a name needs no resolver."""

    async def scene() -> None:
        resolver = Scripted()
        names = Names(resolver, POLICY)
        assert [("127.0.0.1", 80)] == [one[4] for one in await names.addresses("127.0.0.1", 80)]
        assert [("::1", 80, 0, 0)] == [one[4] for one in await names.addresses("::1", 80)]
        assert 0 == resolver.asked
        await names.close()

    uvloop.run(scene())


def test_name_servers_of_the_settings() -> None:
    """A transport that is told name servers asks those."""

    class Stub(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
            self.transport = transport

        def datagram_received(self, query: bytes, sender: tuple[str, int]) -> None:
            self.transport.sendto(answer_to(query, "127.0.0.1")[1], sender)

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        stub, _ = await loop.create_datagram_endpoint(Stub, ("127.0.0.1", 0))
        port = stub.get_extra_info("sockname")[1]
        async with serving(answers(answer(204))) as server:
            transport = CallbackTransport(POLICY, 5.0, dns_servers=[f"127.0.0.1:{port}"])
            request = httpx.Request("POST", server.url_at("only-there.test"), content=b"{}")
            assert 204 == (await transport.handle_async_request(request)).status_code
            await transport.aclose()
        stub.close()

    uvloop.run(scene())
