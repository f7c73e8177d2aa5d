"""The parts of `make bench-tls`: what it measures with must be right, or its figures say nothing."""

import asyncio
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from bench.authority import LEAVES, Chain, make_chain
from bench.load import Customer, Load
from bench.named_receivers import DOMAIN, NamedReceivers, together
from bench.names import NameServer, answer_to, loopback
from bench.receiver import Group, Terms
from bench.senders import GROUP, Place, bare, bare_burst
from bench.tls import ROWS, check_descriptors, section
from dispatcher.rules.addresses import AddressPolicy
from dispatcher.sending.answer import Answer
from dispatcher.sending.tls import tls_context
from dispatcher.sending.transport import CallbackTransport

LOCAL = AddressPolicy.of(["127.0.0.0/8"])
DEADLINE = 20.0
ID = {"webhook-id": f"{GROUP}-1-1"}


@pytest.fixture(scope="module")
def names() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


@pytest.fixture(scope="module", params=LEAVES)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return make_chain(tmp_path_factory.mktemp("chain"), request.param, f"*.{DOMAIN}")


async def posted(urls: Sequence[str], names: NameServer, authority: Path | None) -> list[Answer | Any]:
    """What a worker's transport has for an answer to a POST to each URL, one after another."""
    tls = tls_context(str(authority) if authority else None)
    transport = CallbackTransport(LOCAL, DEADLINE, dns_servers=[names.address], tls=tls)
    try:
        return [await transport.post(url, ID, b"{}") for url in urls]
    finally:
        await transport.aclose()


def test_endpoints_by_name_over_tls(names: NameServer, chain: Chain) -> None:
    """Endpoints have names and addresses of their own, and the receiver counts each one's connection."""
    with NamedReceivers("https", Terms(chain.server), processes=2) as receivers:
        first, second, third = receivers.urls(3)
        answers = asyncio.run(posted([first, second, third, third], names, chain.authority))
        assert [200] * 4 == [answer.status for answer in answers]
        assert 3 == receivers.opened()
        assert 4 == receivers.take(GROUP).posts


def test_the_bare_loop_posts_what_waits_and_what_it_is_given(names: NameServer, chain: Chain) -> None:
    """Both ways of the bare loop deliver all of it over TLS."""
    with NamedReceivers("https", Terms(chain.server)) as receivers:
        place = Place(receivers, names, chain.authority, bare_keeps_seconds=60)
        bare_burst(place, 2, 40, concurrency=2)
        assert 40 == receivers.take(GROUP).distinct
        with bare(place, 3) as sender:
            sent = sender.load.steady(1_000, 0.006, {GROUP: sender.customers}, in_turn=True)
            sender.finish(sent[GROUP])
            assert 6 == receivers.take(GROUP).distinct


def test_who_does_not_trust_the_authority_posts_nothing(names: NameServer, chain: Chain) -> None:
    """The chain is good by its own root alone, and for names of the benchmark alone."""
    with NamedReceivers("https", Terms(chain.server)) as receivers:
        (url,) = receivers.urls(1)
        (untrusted,) = asyncio.run(posted([url], names, None))
        other = url.replace(DOMAIN, "other.test")
        (misnamed,) = asyncio.run(posted([other], names, chain.authority))
        assert ("tls_untrusted", "tls_name") == (untrusted.word, misnamed.word)
        assert 0 == receivers.take(GROUP).posts


def test_a_server_sends_leaf_and_intermediate(chain: Chain) -> None:
    """A server's file has two certificates, and the authority's has the one that is not sent."""
    assert 2 == chain.server.read_text().count("BEGIN CERTIFICATE")
    assert 1 == chain.authority.read_text().count("BEGIN CERTIFICATE")


@pytest.mark.parametrize("says_so", [False, True])
def test_idle_connections_are_closed(says_so: bool) -> None:
    """A receiver closes a connection that is idle for that long, and says so before if it is to."""

    async def scene(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nwebhook-id: b-1-1\r\ncontent-length: 0\r\n\r\n")
        async with asyncio.timeout(DEADLINE):
            heard = await reader.read()  # until it is closed
        writer.close()
        return heard

    with NamedReceivers("http", Terms(None, 1, says_so)) as receivers:
        port = int(receivers.urls(1)[0].rpartition(":")[2].partition("/")[0])
        heard = asyncio.run(scene(port))
    assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
    assert says_so == (b"\r\nKeep-Alive: timeout=1\r\n" in heard)
    assert heard.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("e1", "127.0.0.1"), ("e10000", "127.0.39.16"), ("east", "127.9.9.9"), ("slow7", "127.9.9.9")],
)
def test_a_numbered_name_has_its_own_address(name: str, expected: str) -> None:
    """`e` and a number is that endpoint's address; all other names have the one that was given."""
    question = bytes([len(name)]) + name.encode() + b"\4test\0\0\1\0\1"
    label, answer = answer_to(b"\0\1\1\0\0\1\0\0\0\0\0\0" + question, "127.9.9.9")
    assert name.encode() == label
    assert bytes(int(part) for part in expected.split(".")) == answer[-4:]


def test_endpoints_share_no_address() -> None:
    """Ten thousand endpoints have as many addresses."""
    assert 10_000 == len({loopback(number) for number in range(1, 10_001)})


class Written:
    """Takes what a load enqueues."""

    def __init__(self) -> None:
        self.changes: list[bytes] = []

    def pipeline(self, transaction: bool) -> Self:
        return self

    def xadd(self, stream: str, fields: dict[str, bytes]) -> None:
        self.changes.append(fields["event"])

    def execute(self) -> None:
        """Nothing waits."""


def test_a_load_in_turn_reaches_each_endpoint_once() -> None:
    """A cold row posts to each endpoint exactly once."""
    written = Written()
    customers = [Customer(f"w{number}", f"http://e{number}.test/") for number in range(50)]
    assert {"b": 50} == Load(written).steady(5_000, 0.01, {"b": customers}, in_turn=True)
    assert all(f'"w{number}"'.encode() in change for number, change in enumerate(written.changes))


def test_groups_of_several_receivers_are_one() -> None:
    """What arrived at several processes counts together; one that saw nothing does not move its beginning."""
    one, two = Group(3, 2, first_at=7.0, last_at=9.0), Group(1, 1, first_at=6.0, last_at=8.0)
    found = together([one, Group(), two])
    assert (4, 3, 6.0, 9.0) == (found.posts, found.distinct, found.first_at, found.last_at)


def test_tables_fit_into_80_columns() -> None:
    """The widest figures of three rounds leave no line wider than a terminal."""
    wide = {"cpu": [3.44, 3.21, 3.65], "connections": [0.91, 0.9, 0.93], "receiver": [99.0, 98.0, 100.0]}
    wide |= {"resumed": [0.5, 0.4, 0.6], "posts": [1.01, 1.0, 1.02], "retries": [812.0, 0.0, 1_112.0]}
    late = wide | {"p50": [9_980.0, 8_001.0, 12_100.2], "p95": [69_310.4, 68_000.1, 70_100.9]}
    overload = {f"{who} {scheme}": late for who in ("worker", "bare") for scheme in ("http", "https")}
    fast = wide | {"rate": [12_000.0, 11_077.2, 13_056.0]}
    slow = wide | {"rate": [3_942.0, 3_800.1, 4_010.0]}
    waiting = {"worker http": fast, "worker https": slow, "bare http": fast, "bare https": slow}
    text = section(ROWS["2000"], "cold", overload) + "\n" + section(ROWS["waiting"], "waiting", waiting)
    assert "69.3 s (68.0-70.1)" in text
    assert [] == [line for line in text.splitlines() if len(line) > 80]


def test_latencies_of_an_overload_are_in_seconds() -> None:
    """A figure with another unit than its line says so, with one round as with three."""
    one = {"p50": [42_345.0]}
    text = section(ROWS["100"], "warm", {"worker http": {"p50": [9_999.0]}, "worker https": one})
    assert "| p50 ms     | 9,999 | 42.3 s |         4.23 |" in text


def test_figures_that_are_as_always_are_left_out() -> None:
    """A table shows retries, repeated POSTs and resumed sessions only where there are some."""
    usual = {"cpu": [1.0], "resumed": [0.0], "posts": [1.0], "retries": [0]}
    quiet = section(ROWS["100"], "warm", {"worker http": usual, "worker https": usual})
    loud = section(ROWS["100"], "warm", {"worker http": usual, "worker https": usual | {"retries": [3]}})
    assert "retries" not in quiet
    assert "retries" in loud


def test_too_few_descriptors_are_one_line() -> None:
    """A limit that is too low for the endpoints is said before anything starts."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(SystemExit) as caught:
        check_descriptors(limit)
    assert "\n" not in str(caught.value)
    assert "ulimit -Hn" in str(caught.value)
    check_descriptors(0)
