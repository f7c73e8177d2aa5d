"""Look-ups: each name once at a time, kept for a while, never a failure."""

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest
import uvloop

from bench.names import answer_to
from dispatcher.rules.addresses import AddressPolicy
from dispatcher.sending.answer import Answer
from dispatcher.sending.failures import NoAnswer, plain
from dispatcher.sending.resolver import MAX_CHECKED, DnsResolver, Names
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


A, CNAME, AAAA = 1, 5, 28
FOUR, SIX, OTHER = b"\x7f\0\0\x01", b"\0" * 15 + b"\x01", b"\x05other\x04test\0"


class NameServer(asyncio.DatagramProtocol):
    """A name server over UDP; `records` are by type, `code` is its answer's code. It keeps which names it was asked for."""

    def __init__(self, records: dict[int, bytes], code: int = 0, cut: bool = False) -> None:
        self._records, self._code, self._cut = records, code, cut
        self.asked: set[str] = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, query: bytes, sender: tuple[str, int]) -> None:
        self._transport.sendto(self.answer_to(query, cut=self._cut), sender)

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One query over TCP, whose answer is never cut."""
        try:
            query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            answer = self.answer_to(query)
            writer.write(len(answer).to_bytes(2) + answer)
            await reader.read()
        finally:  # also where the test is over before
            writer.close()

    def answer_to(self, query: bytes, *, cut: bool = False) -> bytes:
        """What is known of the type that is asked for (RFC 1035 §4)."""
        end = query.index(b"\0", 12) + 5
        kind = int.from_bytes(query[end - 4 : end - 2])
        self.asked.add(_name(query[12 : end - 5]))
        found = [one for one in (kind, CNAME) if one in self._records and not cut]
        records = b"".join(
            struct.pack(">HHHIH", 0xC00C, one, 1, 1, len(self._records[one])) + self._records[one]
            for one in found
        )
        flags = 0x8180 | self._code | (0x200 if cut else 0)
        return query[:2] + struct.pack(">HHHHH", flags, 1, len(found), 0, 0) + query[12:end] + records


def _name(labels: bytes) -> str:
    words = []
    while labels:
        words.append(labels[1 : labels[0] + 1].decode())
        labels = labels[labels[0] + 1 :]
    return ".".join(words)


async def resolved(server: NameServer, host: str) -> list[str] | str:
    """The addresses of a name by that name server, or what is said where it has none."""
    loop = asyncio.get_running_loop()
    tcp = await asyncio.start_server(server.serve_tcp, "127.0.0.1", 0)
    port = tcp.sockets[0].getsockname()[1]
    udp, _ = await loop.create_datagram_endpoint(lambda: server, ("127.0.0.1", port))
    resolver = DnsResolver([f"127.0.0.1:{port}"])
    try:
        return sorted(await resolver.resolve(host, 443))
    except OSError as error:
        return plain(error)
    finally:
        await resolver.close()
        udp.close()
        tcp.close()


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (NameServer({A: FOUR, AAAA: SIX}), ["127.0.0.1", "::1"]),
        (NameServer({A: FOUR}), ["127.0.0.1"]),
        (NameServer({AAAA: SIX}), ["::1"]),
        (NameServer({A: FOUR}, cut=True), ["127.0.0.1"]),
        (NameServer({}), "DNS server returned answer with no data"),
        (NameServer({CNAME: OTHER}), "DNS server returned answer with no data"),
        (NameServer({}, 3), "Domain name not found"),
        (NameServer({}, 2), "DNS server returned general failure"),
        (NameServer({}, 5), "DNS server refused query"),
    ],
    ids=[
        "both families",
        "IPv4",
        "IPv6",
        "cut",
        "nothing",
        "an alias of nothing",
        "no name",
        "fails",
        "refuses",
    ],
)
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_what_a_name_server_says(
    loop: Callable[[], asyncio.AbstractEventLoop], server: NameServer, expected: list[str] | str
) -> None:
    """Addresses of both families come back, over TCP where an answer is cut; else why there are none, in words."""
    with asyncio.Runner(loop_factory=loop) as runner:
        assert expected == runner.run(resolved(server, "a.example.test"))


def test_a_search_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without a dot is looked up in the search domain, too."""
    monkeypatch.setenv("LOCALDOMAIN", "one.test")
    server = NameServer({}, 3)
    assert "Domain name not found" == uvloop.run(resolved(server, "short"))
    assert {"short", "short.one.test"} == server.asked


def test_the_hosts_file_comes_first() -> None:
    """A name in /etc/hosts has its addresses from there; no name server is asked."""
    server = NameServer({A: b"\x08\x08\x08\x08"})
    assert "127.0.0.1" in uvloop.run(resolved(server, "localhost"))
    assert set() == server.asked


def test_a_closed_resolver_leaves_no_look_up() -> None:
    """What waits for a name server that says nothing ends when the resolver is closed."""

    async def scene() -> None:
        udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, ("127.0.0.1", 0)
        )
        resolver = DnsResolver([f"127.0.0.1:{udp.get_extra_info('sockname')[1]}"])
        waits = asyncio.create_task(resolver.resolve("silent.test", 443))
        await asyncio.sleep(0)
        await resolver.close()
        with pytest.raises(OSError, match="cancelled"):
            await waits
        udp.close()

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


def test_a_name_with_thousands_of_addresses_costs_no_more_than_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check of an address takes 20 us of the loop, and a customer's name server says how many there are."""
    checked: list[str] = []
    refusal = AddressPolicy.refusal

    def counted(policy: AddressPolicy, host: str, port: int) -> str | None:
        checked.append(host)
        return refusal(policy, host, port)

    monkeypatch.setattr(AddressPolicy, "refusal", counted)
    many = [f"127.0.{number // 256}.{number % 256}" for number in range(1, 3000)]

    async def scene() -> None:
        names = Names(Scripted([*many, *(f"2001:db8::{number:x}" for number in range(1, 3000))]), POLICY)
        found = await names.addresses("a.test", 80)
        assert isinstance(found, list)
        assert ["127.0.0.1", "127.0.0.2"] == [one[4][0] for one in found]
        assert 2 * MAX_CHECKED == len(checked)
        await names.close()

    uvloop.run(scene())
