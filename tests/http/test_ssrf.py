"""No byte to an address that is not public: spellings, look-ups, rebinding and redirects, against a canary.

The canary listens on every address of this machine. After each scene the test itself knocks: connections
are accepted in order, so a canary that has heard nobody else by then was left alone.
"""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import AddressPolicy, parse_callback_url
from dispatcher.rules.outcomes import Attempt
from dispatcher.sending.resolver import Resolver
from dispatcher.sending.sender import Sender
from dispatcher.sending.transport import CallbackTransport
from tests.http.raw_server import RawServer, answer, answers, serving
from tests.http.test_sender import AGENT, NOW_MS, TLS, callback, workspace
from tests.http.test_transport import Certificates, Names, names

NOTHING_ALLOWED = AddressPolicy()
HERE = AddressPolicy.of(["127.0.0.1"])
"""Loopback stands in for the public internet where an attempt has to arrive somewhere."""

EVERYTHING = AddressPolicy.of(["0.0.0.0/0", "::/0"])
DUAL_STACK = socket.has_dualstack_ipv6()
KNOCK = "GET /knock HTTP/1.1"

ADDRESSES = {
    "loopback": "127.0.0.1 127.0.0.2 127.127.127.127 127.255.255.255 ::1 0:0:0:0:0:0:0:1",
    "this network": "0.0.0.0 0.1.2.3 ::",
    "IPv4-mapped": "::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:0.0.0.0 ::ffff:10.0.0.1 ::ffff:a9fe:a9fe",
    "IPv4-compatible": "::127.0.0.1 ::7f00:1 ::169.254.169.254",
    "IPv4-translated": "::ffff:0:127.0.0.1 ::ffff:0:a9fe:a9fe",
    "NAT64": "64:ff9b::a83f:8110 64:ff9b::7f00:1 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 64:ff9b:1::7f00:1",
    "6to4": "2002:7f00:1::1 2002:7f00:1:: 2002:a9fe:a9fe::1 2002:a00:1::1 192.88.99.1",
    "Teredo and its neighbours": "2001::1 2001:0:7f00:1::1 2001:0:53aa:64c::80ff:fffe 2001:10::1 2001:20::1",
    "ISATAP": "2606:4700::5efe:7f00:1 2606:4700::200:5efe:a9fe:a9fe fe80::5efe:7f00:1",
    "public by number, internal by use": "168.63.129.16 34.118.224.1 199.36.153.4 199.36.153.8 161.26.0.10 166.9.0.1",
    "link-local": "fe80::1 febf::1 fe80::a9fe:a9fe 169.254.0.1 169.254.255.255",
    "link-local with a zone": "fe80::1%lo fe80::1%1 fe80::1%eth0",
    "site-local and unique local": "fec0::1 fc00::1 fd00::1 fdff:ffff::1",
    "metadata": "169.254.169.254 169.254.170.2 fd00:ec2::254 fd20:ce::254 100.100.100.200 192.0.0.192",
    "private": "10.0.0.0 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 192.168.255.255",
    "shared by carriers": "100.64.0.1 100.127.255.255",
    "protocol assignments": "192.0.0.1 192.0.0.8 192.0.0.9 192.0.0.170",
    "documentation": "192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 3fff::1",
    "benchmarks": "198.18.0.1 198.19.255.255 2001:2::1",
    "multicast": "224.0.0.1 239.255.255.255 ff02::1 ff05::1:3 ff0e::1",
    "reserved": "240.0.0.1 255.255.255.255 100::1 4000::1 5f00::1 ffff::1",
}
"""Addresses that are not public, as a look-up may answer with them."""

SPELLINGS = {
    "short": "127.1 127.0.1 0 127 10.1 169.254.43518",
    "one number": "2130706433 2852039166 3232235521 4294967296 9999999999 02130706433",
    "hexadecimal": "0x7f000001 0X7F000001 0x7f.1 0x7f.0x0.0x0.0x1 0xa9fea9fe 0xa9.0xfe.0xa9.0xfe 0x 0x0",
    "octal": "0177.0.0.1 0177.1 017700000001 0177.0.0.01 0251.0376.0251.0376 00000177.0.0.1",
    "with noughts": "127.0.0.01 127.000.000.001 127.0.0.001 169.254.169.0254",
    "too many or too large": "127.0.0.1.0 127.0.0.256 1.127.0.0.1 127.0.0.1.1.1 383.0.0.1",
    "trailing dot": "127.0.0.1. 127.1. 2130706433. 0x7f000001. 0. 0.0.0.0. 127.0.0.1.. localhost.",
    "wide digits": "１２７.0.0.1 １２７．０．０．１ 127。0。0。1 ①②⑦.0.0.1 ２１３０７０６４３３ ０x7f.1 𝟏𝟐𝟕.0.0.1 ¹²⁷.0.0.1",
    "other digits": "١٢٧.0.0.1 १२७.0.0.1",
    "hidden characters": "127.0.0.1\u200b 127.0.\u00ad0.1 127.0\u2024.0.1",
    "in brackets": "[127.0.0.1] [127.1] [localhost] [v1.127.0.0.1] [::1]. [::1]x [::1%25lo] [fe80::1%25lo] [::ffff:127.1]",
    "names": "localhost LOCALHOST localhost.localdomain ip6-localhost metadata metadata.google.internal ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "names that hold an address": "127.0.0.1.public.test 127-0-0-1.public.test 7f000001.public.test",
    "two hosts in one": "1.1.1.1[v1.x] 1.1.1.1[::1] [::1]1.1.1.1 public.test[v1.x] [v1.x]127.0.0.1 1.1.1.1%5bv1.x%5d 127.0.0.1%5d",
    "percent": "127.0.0.1%00 127.0.0.1%00.public.test 127.0.0.1%2f %31%32%37.0.0.1 127.0.0.1%0d%0a 127.0.0.1%lo",
}
"""What stands for an address that is not public, or for a name of this machine, between // and the port."""

URLS = [
    "http://public@127.0.0.1:{port}/",
    "http://public.test:80@127.0.0.1:{port}/",
    "http://@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}@public.test/",
    "http://public.test@public.test@127.0.0.1:{port}/",
    "http://public%40public.test%40127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@public.test/",
    "http://public.test#@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}?@public.test/",
    "http://127.0.0.1:{port}/@public.test/",
    "http://127.0.0.1:{port}\\@public.test/",
    "http://public.test\\@127.0.0.1:{port}/",
    "http:\\\\127.0.0.1:{port}\\",
    "http://127.0.0.1:{port};public.test/",
    "http://127.0.0.1:{port},public.test/",
    "http://127.0.0.1 public.test:{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1\r\nHost: public.test:{port}/",
    "ht\ntp://127.0.0.1:{port}/",
    " http://127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/",
    "https://[::1]:{port}/",
    "ws://127.0.0.1:{port}/",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_FLUSHALL",
    "file://127.0.0.1/etc/passwd",
    "unix:///run/redis.sock",
    "http+unix://%2Frun%2Fredis.sock/",
    "http://127.0.0.1:6379/",
    "http://127.0.0.1:6379/%0d%0aFLUSHALL%0d%0a",
    "http://[::1]:6379/",
    "http://localhost:6379/",
    "http://127.0.0.1/",
    "http://127.0.0.1:/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:00{port}/",
    "http://127.0.0.1:+{port}/",
    "http://127.0.0.1:{port}:80/",
    "http://[::1]@public.test:{port}/",
    "http://[public.test]@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/..//public.test/",
    "http://127.0.0.1[v1.x]:{port}/",
    "http://[v1.x]@127.0.0.1:{port}/",
    "http://127.0.0.1[v1.x/:{port}/",
    "httpſ://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}１/",
    "http://127.0.0.1:1_0:{port}/",
]
"""Whole URLs that lead here, or that one parser reads otherwise than another."""


def each(table: dict[str, str]) -> list[str]:
    return [word for words in table.values() for word in words.split()]


def in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


VECTORS = [
    *(f"http://{host}:{{port}}/" for host in [*map(in_url, each(ADDRESSES)), *each(SPELLINGS)]),
    *URLS,
]

REACH_HERE = [
    "http://127.0.0.1:{port}/",
    "http://0.0.0.0:{port}/",
    "http://１２７.0.0.1:{port}/",
    "http://127。0。0。1:{port}/",
    "http://localhost:{port}/",
    "http://127.0.0.1.public.test:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "http://127.0.0.1:00{port}/",
    "http://127.0.0.1:{port}/@public.test/",
    *(
        f"http://[{host}]:{{port}}/"
        for host in ("::1", "::", "::ffff:127.0.0.1", "::ffff:7f00:1")
        if DUAL_STACK
    ),
]
"""Some of the vectors, which the canary hears as soon as they are allowed."""

LIES_HERE = ["127.0.0.1", "0.0.0.0", *(["::1", "::", "::ffff:127.0.0.1"] if DUAL_STACK else [])]


@asynccontextmanager
async def canary() -> AsyncIterator[RawServer]:
    """A server on every address of this machine; it answers whoever comes with 200."""
    server = RawServer(answers(answer()), "http")
    family, host = (socket.AF_INET6, "::") if DUAL_STACK else (socket.AF_INET, "0.0.0.0")
    bound = socket.create_server((host, 0), family=family, dualstack_ipv6=DUAL_STACK)
    listener = await asyncio.start_server(server.serve, sock=bound)
    server.port = bound.getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.stop()
        await listener.wait_closed()


async def heard(server: RawServer) -> list[list[str]]:
    """The request lines of each connection that others have made before this knock."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"{KNOCK}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    lines = [[request.line for request in connection.received] for connection in server.connections]
    return [of_one for of_one in lines if of_one != [KNOCK]]


@asynccontextmanager
async def sending(policy: AddressPolicy, resolver: Resolver) -> AsyncIterator[Sender]:
    """A sender until the block ends; its deadline is for what should not happen."""
    transport = CallbackTransport(policy, 20.0, resolver=resolver, tls=TLS)
    try:
        yield Sender(transport, AGENT)
    finally:
        await transport.aclose()


async def attempt(sender: Sender, url: str) -> Attempt:
    """One attempt at a URL, as intake and sender make it. Raises InvalidInput where intake refuses the URL."""
    accepted = parse_callback_url(url, allow_http=True).url
    return await sender.send(callback(accepted), workspace(), NOW_MS)


async def end_of(sender: Sender, url: str) -> str | int | None:
    """`refused`, or the attempt's error, or its status."""
    try:
        made = await attempt(sender, url)
    except InvalidInput:
        return "refused"
    return made.internal_error or made.error or made.http_status


def answering(*look_ups: Sequence[str]) -> Names:
    """Every name has the addresses of the n-th look-up, at the n-th look-up."""
    waiting = iter(look_ups)

    async def look_up(_: str) -> list[str]:
        return list(next(waiting))

    return Names(look_up)


def test_there_are_enough_vectors() -> None:
    """The table holds what it says, each once."""
    assert len(VECTORS) == len(set(VECTORS))
    assert len(VECTORS) >= 150


@pytest.mark.parametrize("vector", VECTORS)
def test_no_spelling_leads_here(vector: str) -> None:
    """With nothing allowed a URL is refused or `blocked_address`, even if every name is this machine's."""

    async def scene() -> None:
        async with canary() as server, sending(NOTHING_ALLOWED, names("127.0.0.1", "::1")) as sender:
            assert await end_of(sender, vector.replace("{port}", str(server.port))) in {
                "refused",
                "blocked_address",
            }
            assert [] == await heard(server)

    uvloop.run(scene())


@pytest.mark.parametrize("vector", REACH_HERE)
def test_the_canary_hears_what_is_allowed(vector: str) -> None:
    """The same attempts arrive where the policy lets them, so that the canary could have heard them."""

    async def scene() -> None:
        async with canary() as server, sending(EVERYTHING, names("127.0.0.1")) as sender:
            assert 200 == await end_of(sender, vector.replace("{port}", str(server.port)))
            assert 1 == len(await heard(server))

    uvloop.run(scene())


@pytest.mark.parametrize(
    "url",
    [
        "http://1.1.1.1[v1.x]:{port}/",
        "http://public.test[v1.x]:{port}/",
        "http://127.1:{port}/",
        "http://127.0.0.1.:{port}/",
        "http://user@public.test:{port}/",
        "http://public.test:{port}/#top",
        "http://pub%6cic.test:{port}/",
        "http://public..test:{port}/",
        "ftp://public.test:{port}/",
        "http://public.test:+{port}/",
        "not a URL",
        "",
    ],
)
def test_what_the_ledger_holds_and_we_refuse_now(url: str) -> None:
    """A stored callback whose URL is refused ends as `blocked_address`: its host is looked up nowhere."""

    async def scene() -> None:
        resolver = names("127.0.0.1")
        async with canary() as server, sending(EVERYTHING, resolver) as sender:
            stored = callback(url.replace("{port}", str(server.port)))
            made = await sender.send(stored, workspace(), NOW_MS)
            assert ("blocked_address", None) == (made.error, made.internal_error)
            assert made.answer.startswith(b"callback URL")
            assert [] == resolver.asked
            assert [] == await heard(server)

    uvloop.run(scene())


DENIED_HERE = AddressPolicy.of(["0.0.0.0/0", "::/0"], (), ["127.0.0.0/8", "0.0.0.0/8", "::/127"])


@pytest.mark.parametrize("vector", REACH_HERE)
def test_what_is_denied_is_not_reached(vector: str) -> None:
    """What the operator has denied hears nothing, though all networks are allowed."""

    async def scene() -> None:
        async with canary() as server, sending(DENIED_HERE, names("127.0.0.1")) as sender:
            assert "blocked_address" == await end_of(sender, vector.replace("{port}", str(server.port)))
            assert [] == await heard(server)

    uvloop.run(scene())


@pytest.mark.parametrize("address", LIES_HERE)
def test_a_name_that_leads_to_what_is_denied_is_blocked(address: str) -> None:
    """A name whose address is denied is `blocked_address`, though all networks are allowed."""

    async def scene() -> None:
        async with canary() as server, sending(DENIED_HERE, names(address)) as sender:
            assert "blocked_address" == await end_of(sender, f"http://harmless.test:{server.port}/")
            assert [] == await heard(server)

    uvloop.run(scene())


@pytest.mark.parametrize("address", each(ADDRESSES))
def test_no_look_up_leads_here(address: str) -> None:
    """A harmless name whose only address is not public is `blocked_address`."""

    async def scene() -> None:
        resolver = names(address)
        async with canary() as server, sending(NOTHING_ALLOWED, resolver) as sender:
            assert "blocked_address" == await end_of(sender, f"http://harmless.test:{server.port}/")
            assert ["harmless.test"] == resolver.asked
            assert [] == await heard(server)

    uvloop.run(scene())


@pytest.mark.parametrize("address", LIES_HERE)
def test_the_canary_hears_a_name_that_is_allowed(address: str) -> None:
    """A name with such an address arrives where the policy lets it."""

    async def scene() -> None:
        async with canary() as server, sending(EVERYTHING, names(address)) as sender:
            assert 200 == await end_of(sender, f"http://harmless.test:{server.port}/")
            assert [["POST / HTTP/1.1"]] == await heard(server)

    uvloop.run(scene())


BLOCKED = [address for address in each(ADDRESSES) if HERE.refusal(address, 80)]
"""What is not allowed even where 127.0.0.1 is."""


@pytest.mark.parametrize("address", BLOCKED)
def test_a_name_that_is_rebound_is_blocked(address: str) -> None:
    """A name that was good at the first look-up and is private at the next is `blocked_address` then."""

    async def scene() -> None:
        resolver = answering(["127.0.0.1"], [address])
        async with (
            serving(answers(answer(204))) as first,
            canary() as server,
            sending(HERE, resolver) as sender,
        ):
            assert 204 == await end_of(sender, first.url_at("rebound.test"))
            assert "blocked_address" == await end_of(sender, f"http://rebound.test:{server.port}/")
            assert ["rebound.test"] * 2 == resolver.asked
            assert [] == await heard(server)

    uvloop.run(scene())


@pytest.mark.parametrize("private", ["::1", "127.0.0.2", "169.254.169.254"])
def test_an_attempt_looks_its_name_up_once(private: str) -> None:
    """What is checked is what is connected to: an attempt asks once, whatever a second answer would be."""

    async def scene() -> None:
        good_first, bad_first = answering(["127.0.0.1"], [private]), answering([private], ["127.0.0.1"])
        async with canary() as server:
            async with sending(HERE, good_first) as sender:
                assert 200 == await end_of(sender, f"http://flips.test:{server.port}/")
            async with sending(HERE, bad_first) as sender:
                assert "blocked_address" == await end_of(sender, f"http://flips.test:{server.port}/")
            assert [["flips.test"]] * 2 == [good_first.asked, bad_first.asked]
            assert [["POST / HTTP/1.1"]] == await heard(server)

    uvloop.run(scene())


class Shifty(list[str]):
    """The answer of a look-up: one address, which is another one each time it is read."""

    def __iter__(self) -> Iterator[str]:
        yield self.pop(0)


class ShiftyResolver:
    """Deceives the check of a look-up's answers, so that only the socket's own check is left."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int) -> list[str]:
        return Shifty(self._addresses)

    async def close(self) -> None:
        """Holds nothing."""


@pytest.mark.parametrize(
    ("policy", "expected", "arrived"), [(HERE, "blocked_address", 0), (EVERYTHING, 200, 1)]
)
def test_the_address_of_the_socket_is_what_counts(
    policy: AddressPolicy, expected: str | int, arrived: int
) -> None:
    """An address that slips through the look-up's check is `blocked_address` when its socket is opened."""

    async def scene() -> None:
        resolver = ShiftyResolver("127.0.0.1", *["127.0.0.2"] * 9)
        async with canary() as server, sending(policy, resolver) as sender:
            assert expected == await end_of(sender, f"http://shifty.test:{server.port}/")
            assert arrived == len(await heard(server))

    uvloop.run(scene())


@pytest.mark.parametrize("last", [True, False], ids=["last", "first"])
def test_of_mixed_answers_only_the_allowed_one_is_used(last: bool) -> None:
    """Among all the private ones a name's one allowed address is the one that is connected to."""

    async def scene() -> None:
        mixed = [*BLOCKED, "127.0.0.1"] if last else ["127.0.0.1", *BLOCKED]
        async with (
            serving(answers(answer(204))) as server,
            sending(HERE, names(*mixed)) as sender,
        ):
            assert 204 == await end_of(sender, server.url_at("mixed.test"))
            assert 1 == server.accepted

    uvloop.run(scene())


def test_mixed_answers_do_not_fall_back_to_a_blocked_one() -> None:
    """Where the allowed address cannot be connected to (a broadcast) the others stay blocked."""

    async def scene() -> None:
        async with (
            canary() as server,
            sending(AddressPolicy.of(["255.255.255.255"]), names("255.255.255.255", *LIES_HERE)) as sender,
        ):
            assert "connect" == await end_of(sender, f"http://mixed.test:{server.port}/")
            assert [] == await heard(server)

    uvloop.run(scene())


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize("header", ["Location", "Refresh: 0; url", "Content-Location", "Link", "Alt-Svc"])
def test_no_answer_leads_here(status: int, header: str) -> None:
    """A redirect, even to an address that is allowed, is a failed attempt, and nobody goes there."""

    async def scene() -> None:
        async with canary() as server:
            field = f"{header}={server.url}" if ";" in header else f"{header}: {server.url}"
            async with (
                serving(answers(answer(status, b"", field))) as redirects,
                sending(HERE, names("127.0.0.1")) as sender,
            ):
                assert f"http_{status}" == await end_of(sender, redirects.url)
                assert 1 == redirects.accepted
            assert [] == await heard(server)

    uvloop.run(scene())


@pytest.mark.parametrize("host", ["127.0.0.1", "named.test", "public.test"])
def test_listed_ports_hold_on_allowed_networks_too(host: str) -> None:
    """Where ports are listed another port is `blocked_address`, and the listed one is reached."""

    async def scene() -> None:
        async with canary() as server:
            url = f"http://{host}:{server.port}/"
            async with sending(AddressPolicy.of(["127.0.0.0/8"], [443]), names("127.0.0.1")) as sender:
                assert "blocked_address" == await end_of(sender, url)
                assert [] == await heard(server)
            async with sending(
                AddressPolicy.of(["127.0.0.0/8"], [server.port]), names("127.0.0.1")
            ) as sender:
                assert 200 == await end_of(sender, url)
                assert [["POST / HTTP/1.1"]] == await heard(server)

    uvloop.run(scene())


@pytest.mark.parametrize("host", ["dotted.test.", "DOTTED.test.", "dotted.test。", "dotted.test"])
def test_a_dot_at_the_end_changes_nothing(host: str, tmp_path: Path) -> None:
    """Certificate, name in the handshake (SNI), Host and look-up are the name's without the dot, and so is its endpoint."""
    certificates, asked = Certificates(tmp_path), []
    tls = certificates.server("dotted.test")
    tls.sni_callback = lambda _, name, __: asked.append(name)

    async def scene() -> None:
        resolver = names("127.0.0.1")
        transport = CallbackTransport(HERE, 20.0, resolver=resolver, tls=certificates.client())
        async with serving(answers(answer(204)), tls=tls) as server:
            read = parse_callback_url(server.url_at(host))
            made = await Sender(transport, AGENT).send(callback(read.url), workspace(), NOW_MS)
            assert (204, None) == (made.http_status, made.error)
            assert f"https://dotted.test:{server.port}" == read.origin
            assert [f"dotted.test:{server.port}"] == server.received[0].values("host")
        await transport.aclose()
        assert (["dotted.test"], ["dotted.test"]) == (asked, resolver.asked)

    uvloop.run(scene())


@pytest.mark.parametrize("address", [a for a in each(ADDRESSES) if "%" not in a])
def test_the_table_holds_addresses(address: str) -> None:
    """Every entry can be an answer of a look-up."""
    assert ipaddress.ip_address(address)
