"""Look-ups: each name once at a time, kept for a while, never a failure."""

import asyncio
import socket

import pytest
import uvloop

from bench.names import answer_to
from dispatcher.rules.addresses import AddressPolicy
from dispatcher.sending.answer import Answer
from dispatcher.sending.failures import NoAnswer
from dispatcher.sending.resolver import Names
from dispatcher.sending.transport import CallbackTransport
from tests.http.raw_server import answer, answers, serving

POLICY = AddressPolicy.of(["127.0.0.0/8"])


class Scripted:
    """Gives out answers in turn; an error is raised."""

    def __init__(self, *answers: list[str] | OSError) -> None:
        self._answers = iter(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked += 1
        await asyncio.sleep(0)
        found = next(self._answers)
        if isinstance(found, OSError):
            raise found
        return found

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
        assert NoAnswer("dns", "nothing there") == await names.addresses("a.test", 80)
        assert "blocked_address" == (await names.addresses("a.test", 80)).word
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
            assert 204 == (await transport.post(server.url_at("only-there.test"), {}, b"{}")).status
            await transport.aclose()
        stub.close()

    uvloop.run(scene())


@pytest.mark.parametrize(
    ("answered", "connected"),
    [
        ("2606:4700:0:0::1111", ("2606:4700::1111", 443, 0, 0)),
        ("::FFFF:8.8.8.8", ("::ffff:808:808", 443, 0, 0)),
        ("64:ff9b::8.8.8.8", ("64:ff9b::808:808", 443, 0, 0)),
        ("8.8.8.8", ("8.8.8.8", 443)),
    ],
)
def test_an_answer_is_connected_to_by_its_number(answered: str, connected: tuple[str | int, ...]) -> None:
    """What goes to the loop is written by us from the address's number: no resolver reads it again."""

    async def scene() -> None:
        names = Names(Scripted([answered]), AddressPolicy())
        [found] = await names.addresses("a.test", 443)
        assert (socket.AF_INET6 if ":" in answered else socket.AF_INET, connected) == (found[0], found[4])
        await names.close()

    uvloop.run(scene())


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "name.test", "127.0.0.1[v1.x]", "127.1"])
def test_the_system_looks_nothing_up(host: str) -> None:
    """Between the check and the socket nobody resolves anything: no name, no address, and no text that is neither."""

    async def scene() -> None:
        asked: list[object] = []
        asyncio.get_running_loop().getaddrinfo = lambda *given, **_: asked.append(given)
        transport = CallbackTransport(POLICY, 20.0, resolver=Scripted(["127.0.0.1"]))
        async with serving(answers(answer(204))) as server:
            found = await transport.post(server.url_at(host), {}, b"{}")
            allowed = host not in ("127.0.0.1[v1.x]", "127.1")
            assert (allowed, allowed) == (isinstance(found, Answer), server.accepted)
        await transport.aclose()
        assert [] == asked

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(scene())


@pytest.mark.parametrize("answered", ["localhost", "127.1", "1.1.1.1%5Bv1.x%5D", "1.1.1.1%lo", ""])
@pytest.mark.parametrize("policy", [POLICY, None], ids=["callbacks", "proxy"])
def test_an_answer_that_is_no_address_is_no_answer(policy: AddressPolicy | None, answered: str) -> None:
    """A text from a resolver that is no address fails the attempt, and is not looked up once more."""

    async def scene() -> None:
        names = Names(Scripted([answered]), policy)
        found = await names.addresses("a.test", 443)
        assert ("blocked_address" if policy else "dns") == found.word
        assert "is no address" in found.text
        await names.close()

    uvloop.run(scene())


def test_names_behind_nat64() -> None:
    """Of the answers of a DNS64 those that stand for public IPv4 addresses are used, first of all."""

    async def scene() -> None:
        answers = ["8.8.8.8", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::8.8.8.8"]
        names = Names(Scripted(answers), AddressPolicy())
        assert ["64:ff9b::808:808", "8.8.8.8"] == [one[4][0] for one in await names.addresses("a.test", 443)]
        only_inside = Names(Scripted(answers[1:3]), AddressPolicy())
        found = await only_inside.addresses("a.test", 443)
        assert "blocked_address" == found.word
        assert "10.0.0.1 is not a public address" in found.text
        await names.close()
        await only_inside.close()

    uvloop.run(scene())


class Slow(Scripted):
    """Never answers."""

    async def resolve(self, *_asked: object) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize(
    ("url", "resolver", "problem"),
    [
        ("https://a.test/", Scripted(["10.0.0.1", "8.8.8.8"]), None),
        ("https://a.test/", Scripted(["10.0.0.1", "::1"]), ("blocked_address", "10.0.0.1 is not a public")),
        ("https://a.test:444/", Scripted(), ("blocked_address", "port 444 is not in")),
        ("https://a.test/", Scripted(["203.0.113.7"]), ("blocked_address", "DISPATCHER_DENIED_NETWORKS")),
        ("https://127.0.0.1/", Scripted(), None),
        ("https://10.0.0.1/", Scripted(), ("blocked_address", "10.0.0.1 is not a public")),
        ("https://a.test/", Scripted(OSError("no such name")), ("dns", "no such name")),
        ("https://a.test/", Scripted([]), ("dns", "a.test has no address")),
        ("https://a.test/", Slow(), ("dns", "no answer within 0.01 s")),
    ],
)
def test_looked_up_before_it_is_used(url: str, resolver: Scripted, problem: tuple[str, str] | None) -> None:
    """What a delivery would be stopped by is found without one, by the same rules and the same look-up, in bounded time."""

    async def scene() -> None:
        policy = AddressPolicy.of(["127.0.0.0/8", "203.0.113.0/24"], [443], ["203.0.113.0/28"])
        transport = CallbackTransport(policy, 5.0, resolver=resolver)
        found = await transport.look_up(url, 0.01 if isinstance(resolver, Slow) else 5.0)
        assert (problem and problem[0]) == (found and found.word)
        assert problem is None or problem[1] in found.text
        await transport.aclose()

    uvloop.run(scene())


def test_a_proxy_looks_names_up_itself() -> None:
    """Behind a proxy only what the URL itself says is looked at."""

    async def scene() -> None:
        resolver = Scripted()
        transport = CallbackTransport(
            AddressPolicy(), 5.0, resolver=resolver, proxy_url="http://proxy.test:3128"
        )
        assert None is await transport.look_up("https://a.test/", 5.0)
        assert "not a public address" in (await transport.look_up("https://10.0.0.1/", 5.0)).text
        assert 0 == resolver.asked
        await transport.aclose()

    uvloop.run(scene())
