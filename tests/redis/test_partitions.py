"""Several partitions on one server: who leads them, how queues are read, what is refused."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError, OutOfMemoryError
from structlog.testing import capture_logs

from config.settings import Settings
from dispatcher.errors import OtherFormat, RedisUnavailable
from dispatcher.health import Health
from dispatcher.rules.ownership import Member
from dispatcher.rules.partitions import Partitioning
from dispatcher.store.arrivals import Arrivals, ToldQueue
from dispatcher.store.installation import Installation
from dispatcher.store.keys import keys_of, partitions_key
from dispatcher.store.ledger import Ledger
from dispatcher.store.members import Owners, mask_of, partitions_of, registries
from dispatcher.store.partition_count import require_partitions
from dispatcher.store.queue import Queue
from dispatcher.store.servers import PlainServers
from dispatcher.store.wire import Argument
from dispatcher.worker.engine import Engine
from dispatcher.worker.intake import Intake
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.partition_owner import MembersRead
from dispatcher.worker.redis_watch import RedisWatch
from tasks import engine_wiring

COUNT = 16
PREFIX = "dispatcher"


async def until(condition: Callable[[], Awaitable[Any]], what: str, seconds: float = 20) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)
    return found


@asynccontextmanager
async def servers_of(url: str, count: int = COUNT) -> AsyncIterator[PlainServers]:
    """The servers of an installation; all of them are one."""
    servers = PlainServers([url], keys_of(PREFIX, count))
    try:
        yield servers
    finally:
        await servers.aclose()


def play(story: Coroutine[Any, Any, None]) -> None:
    """Runs a story."""

    async def run() -> None:
        async with asyncio.timeout(50):
            await story

    asyncio.run(run())


class Workers:
    """Engines in this process, by name."""

    def __init__(self, url: str, servers: PlainServers) -> None:
        self._settings = Settings(redis_url=url, partitions=COUNT, metrics_port=0)
        self._servers = servers
        self._running: dict[str, tuple[Engine, asyncio.Task[None], AsyncExitStack]] = {}

    async def start(self, name: str) -> None:
        """Starts an engine."""
        stack = AsyncExitStack()
        engine_of = engine_wiring.engine(
            self._settings, name, 100, 100, Metrics(), Health(), lambda hints: None
        )
        engine = await stack.enter_async_context(engine_of)
        self._running[name] = engine, asyncio.create_task(engine.run()), stack

    async def stop(self, name: str) -> None:
        """Ends it as TERM does."""
        engine, task, stack = self._running.pop(name)
        engine.stop()
        await task
        await stack.aclose()

    async def stop_all(self) -> None:
        """Ends all."""
        for name in list(self._running):
            await self.stop(name)

    async def leases(self) -> list[str]:
        """The tokens of the leases of all partitions; empty where there is none."""
        client = self._servers.client(0)
        return [(one or b"").decode() for one in await client.mget([k.intake for k in self._servers.keys])]

    async def all_owned(self) -> bool:
        """Whether every partition has an owner."""
        return all(await self.leases())

    async def shares(self) -> dict[str, int]:
        """How many partitions each live worker says that it leads."""
        wire = self._servers.wire(0)
        found = await Ledger(wire.call, self._servers.keys[0]).members()
        owners = Owners.read({name: json.loads(text) for name, _, text in found}, COUNT)
        return {name: len(of) for name, of in owners.of.items()} if not owners.without else {}


def test_shares_follow_the_workers(redis_url: str) -> None:
    """One worker leads all; a second one gets half of them, and the first leads all again when that has ended."""

    async def story() -> None:
        async with servers_of(redis_url) as servers:
            workers = Workers(redis_url, servers)

            async def shared(expected: dict[str, int]) -> bool:
                return expected == await workers.shares()

            await workers.start("a")
            await until(lambda: shared({"a": COUNT}), "one owner of all")
            before = await workers.leases()
            await workers.start("b")
            await until(lambda: shared({"a": COUNT // 2, "b": COUNT // 2}), "two owners of half")
            moved = sum(one != other for one, other in zip(before, await workers.leases(), strict=True))
            assert COUNT // 2 == moved
            await workers.stop("b")
            await until(lambda: shared({"a": COUNT}), "one owner of all again")
            await workers.stop_all()
            assert not any(await workers.leases())

    play(story())


def test_two_engines_one_partition_each_once(redis_url: str) -> None:
    """What is XADDed to the queues of all partitions is taken off each, while owners change."""

    async def story() -> None:
        async with servers_of(redis_url) as servers:
            workers = Workers(redis_url, servers)
            client = servers.client(0)
            await workers.start("a")
            await until(workers.all_owned, "owners")
            await workers.start("b")
            for number in range(200):
                await client.xadd(servers.keys[number % COUNT].events, {"event": f"no JSON {number}"})
                if number == 100:
                    await workers.stop("a")

            async def rejected() -> bool:
                return 200 == sum([await client.xlen(keys.rejected) for keys in servers.keys])

            await until(rejected, "all are rejected, once each")
            assert not any([await client.xlen(keys.events) for keys in servers.keys])
            await workers.stop_all()

    play(story())


def test_an_entry_is_read_when_it_comes(redis_url: str) -> None:
    """A queue that is waited on is read as soon as an entry has come, after the connection broke as well."""

    async def story() -> None:
        async with servers_of(redis_url) as servers:
            arrivals = Arrivals(servers)
            keys = servers.keys[5]
            await Ledger(servers.wire(5).call, keys).lead("me", 60_000)
            queue = ToldQueue(servers.wire(5).call, keys, arrivals)
            assert [] == await queue.read(10, 50)
            for kill in (False, True):
                reading = asyncio.create_task(queue.read(10, 30_000))
                await asyncio.sleep(0.05)
                if kill:
                    await servers.client(0).execute_command(
                        "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"
                    )
                    assert [] == await reading  # it looks, and finds nothing
                    reading = asyncio.create_task(queue.read(10, 30_000))
                    await asyncio.sleep(0.05)
                await servers.client(0).xadd(keys.events, {"event": "x"})
                assert 1 == len(await reading)
            assert arrivals.are_told(5)
            await arrivals.aclose()

    play(story())


def test_a_server_that_tells_nothing(redis_url: str) -> None:
    """A user that may not have itself told of changes reads the queue again and again."""

    async def story() -> None:
        async with servers_of(redis_url) as admin:
            await admin.client(0).execute_command(
                "ACL", "SETUSER", "dumb", "on", ">pass", "~*", "&*", "+@all", "-client"
            )
            url = redis_url.replace("unix://", "unix://dumb:pass@")
            async with servers_of(url) as servers:
                arrivals, keys = Arrivals(servers), servers.keys[5]
                await Ledger(servers.wire(5).call, keys).lead("me", 60_000)
                queue = ToldQueue(servers.wire(5).call, keys, arrivals)
                with capture_logs() as logged:
                    assert [] == await queue.read(10, 50)
                assert ["redis.polled"] == [line["event"] for line in logged]
                await servers.client(0).xadd(keys.events, {"event": "x"})
                assert 1 == len(await until(lambda: queue.read(10, 1000), "the entry"))
                for _ in range(4):
                    assert [] == await queue.read(10, 200)
                clients = await admin.client(0).execute_command("CLIENT", "LIST")
                assert 2 == bytes(clients).count(b"user=dumb")  # none is made for each look
                await arrivals.aclose()
            await admin.client(0).execute_command("ACL", "DELUSER", "dumb")

    play(story())


@asynccontextmanager
async def user(url: str, *rights: str) -> AsyncIterator[tuple[str, Any]]:
    """The URL of a user with all rights but some, and a client of the administrator."""
    async with servers_of(url) as admin:
        client = admin.client(0)
        await client.execute_command(
            "ACL", "SETUSER", "some", "on", ">pass", "~*", "&*", "+@all", *rights, "-acl"
        )
        try:
            yield url.replace("unix://", "unix://some:pass@"), client
        finally:
            await client.execute_command("ACL", "DELUSER", "some")


async def looks(client: Any) -> int:
    """How often a queue was looked at or read, so far."""
    stats = await client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("xlen", "xreadgroup"))


def test_one_server_tells_nothing(two_urls: list[str]) -> None:
    """A server that refuses to tell has its own queues polled, and no other's; asked anew, it may tell."""

    async def story() -> None:
        async with (
            user(two_urls[0], "-client") as (dumb, admin),
            user(two_urls[1]) as (other, other_admin),
        ):
            servers = PlainServers([dumb, other], keys_of(PREFIX, COUNT))
            arrivals = Arrivals(servers)
            polled, told = (ToldQueue(servers.wire(n).call, servers.keys[n], arrivals) for n in (4, 5))
            for number in (4, 5):
                await Ledger(servers.wire(number).call, servers.keys[number]).lead("me", 60_000)

            async def again(*right: str) -> list[str]:
                """What is logged by looks at both after the connections broke, for a user with this right."""
                await admin.execute_command("ACL", "SETUSER", "some", *right)
                await admin.execute_command("CLIENT", "KILL", "USER", "some")
                with capture_logs() as logged:
                    await until(lambda: is_read(arrivals, 4), "it answers again")
                    assert [[], []] == [await polled.read(10, 200), await told.read(10, 200)]
                return [f"{line['event']} {line['server']}" for line in logged]

            said = f"redis.polled {servers.node(4).name}"
            assert [said] == await again()
            before = await looks(other_admin)
            for _ in range(3):
                assert [[], []] == [await polled.read(10, 200), await told.read(10, 200)]
            assert 0 == await looks(other_admin) - before
            assert [] == await again(), "once"
            assert [] == await again("+client")
            assert arrivals.are_told(4)
            assert [said] == await again("-client"), "it told meanwhile"
            await admin.xadd(servers.keys[4].events, {"event": "x"})
            assert 1 == len(await until(lambda: polled.read(10, 1000), "the entry"))
            await arrivals.aclose()
            await servers.aclose()

    play(story())


async def is_read(arrivals: Arrivals, partition: int) -> bool:
    """Whether a look at the partition succeeds."""
    try:
        await arrivals.look(partition)
    except RedisUnavailable:
        return False
    return True


class Odd(PlainServers):
    """Servers whose connections meet a bug while `is_odd`."""

    is_odd = True

    def break_connections(self) -> None:
        """Makes connections that cannot connect."""
        pool: Any = self.node(0).client.connection_pool
        make = pool.make_connection

        def odd() -> Any:
            connection = make()
            connect = connection.connect

            async def connects() -> None:
                if self.is_odd:
                    raise KeyError("bug")
                await connect()

            connection.connect = connects
            return connection

        pool.make_connection = odd


def test_a_connection_that_meets_a_bug(redis_url: str) -> None:
    """An unexpected error ends a connection that tells of changes, as any other does: the next look makes another."""

    async def story() -> None:
        servers = Odd([redis_url], keys_of(PREFIX, COUNT))
        servers.break_connections()
        arrivals = Arrivals(servers)
        for _ in range(2):
            with pytest.raises(KeyError):
                await arrivals.look(5)
        servers.is_odd = False
        assert 0 == await arrivals.look(5)
        await arrivals.aclose()
        await servers.aclose()

    play(story())


def test_another_number_is_refused(redis_url: str) -> None:
    """A process with another number of partitions refuses, and says which number the installation has."""

    async def story() -> None:
        for count in (COUNT, 8, 1):
            async with servers_of(redis_url, count) as servers:
                if count == COUNT:
                    await require_partitions(servers, PREFIX, keep=True)
                    await require_partitions(servers, PREFIX)
                    continue
                if count == 1:
                    with pytest.raises(OtherFormat, match=f"with {COUNT} partitions"):
                        await Installation(servers.client(0), servers.keys[0]).format()
                    continue
                with pytest.raises(
                    OtherFormat, match=f"with {COUNT} partitions.*DISPATCHER_PARTITIONS is {count}"
                ):
                    await require_partitions(servers, PREFIX, keep=True)
        async with servers_of(redis_url) as servers:
            assert str(COUNT).encode() == await servers.client(0).get(partitions_key(PREFIX))

    play(story())


class OvertakenServers(PlainServers):
    """Servers on which another process stores its number of partitions just before ours does."""

    def __init__(self, url: str, others: PlainServers) -> None:
        super().__init__([url], keys_of(PREFIX, COUNT))
        self._others = others

    async def call_for(self, key: str, *command: Argument) -> Any:
        """As PlainServers."""
        if command[0] == "SET":
            await require_partitions(self._others, PREFIX, keep=True)
        return await super().call_for(key, *command)


def test_two_numbers_at_the_same_time(redis_url: str) -> None:
    """Of two processes with different numbers that start on an empty Redis at once, the second is refused, and stores nothing."""

    async def scene() -> None:
        first = PlainServers([redis_url], keys_of(PREFIX, 8))
        second = OvertakenServers(redis_url, first)
        try:
            with pytest.raises(OtherFormat, match="with 8 partitions, and DISPATCHER_PARTITIONS is 16"):
                await require_partitions(second, PREFIX, keep=True)
            for one in registries(COUNT):
                assert await second.client(one).get(second.keys[one].count) in (None, b"8")
            await require_partitions(first, PREFIX, keep=True)
        finally:
            await first.aclose()
            await second.aclose()

    asyncio.run(scene())


def test_an_installation_with_one_is_not_divided(redis_url: str) -> None:
    """Data of one partition is not overlooked: several are refused where it is."""

    async def story() -> None:
        async with servers_of(redis_url, 1) as one:
            await one.client(0).set(one.keys[0].format, 2)
        async with servers_of(redis_url) as servers:
            with pytest.raises(OtherFormat, match="with 1 partition, and"):
                await require_partitions(servers, PREFIX, keep=True)

    play(story())


class Away(PlainServers):
    """Servers of which partitions do not answer, or take no writes."""

    def __init__(self, url: str, count: int = COUNT) -> None:
        super().__init__([url], keys_of(PREFIX, count))
        self.silent: set[int] = set()
        self.full: set[int] = set()
        self.is_common_away = self.is_common_silent = False
        self.asked: set[int] = set()

    def wire(self, partition: int) -> Any:
        """The wire of a partition."""
        real = super().wire(partition)

        async def call(*command: Any) -> Any:
            self.asked.add(partition)
            if partition in self.silent:
                raise ConnectionError("away")
            if partition in self.full and command[0] == "SET":
                raise OutOfMemoryError("OOM command not allowed")
            return await real.call(*command)

        return SimpleNamespace(call=call)

    async def call_for(self, _key: str, *command: Any) -> Any:
        """A command on the common key."""
        if self.is_common_away:
            raise ConnectionError("away")
        if self.is_common_silent:
            await asyncio.Event().wait()
        return await super().node(0).wire.call(*command)


def test_registries_come_before_a_server_that_is_silent(redis_url: str) -> None:
    """Another number in a registry is noticed though the common key's server does not answer; a registry that is away is not asked."""

    async def story() -> None:
        servers = Away(redis_url)
        first, second, _ = registries(COUNT)
        await require_partitions(servers, PREFIX, keep=True)
        await servers.client(0).set(servers.keys[first].count, 2 * COUNT)
        servers.is_common_silent = True
        servers.asked.clear()
        with pytest.raises(OtherFormat, match=f"with {2 * COUNT} partitions"):
            await asyncio.wait_for(require_partitions(servers, PREFIX, away=[second]), 5)
        assert second not in servers.asked
        await servers.aclose()

    play(story())


def test_a_worker_starts_beside_a_server_that_is_away(redis_url: str) -> None:
    """Registries that are away or full keep no worker from starting, once the number of partitions is kept somewhere."""

    async def story() -> None:
        servers = Away(redis_url)
        _, second, third = registries(COUNT)
        servers.silent, servers.full = {second}, {third}
        await require_partitions(servers, PREFIX, keep=True)
        assert str(COUNT).encode() == await servers.client(0).get(partitions_key(PREFIX))
        assert await servers.client(0).get(servers.keys[0].count)
        assert not await servers.client(0).get(servers.keys[third].count)
        servers.full = set()
        await require_partitions(servers, PREFIX, keep=True)
        assert await servers.client(0).get(servers.keys[third].count)
        servers.is_common_away = True
        await require_partitions(servers, PREFIX)
        await servers.client(0).set(servers.keys[0].count, 2 * COUNT)
        with pytest.raises(OtherFormat, match=f"with {2 * COUNT} partitions"):
            await require_partitions(servers, PREFIX)
        await servers.aclose()

    play(story())


def test_a_hand_over_while_behind(redis_url: str) -> None:
    """An intake that ends while it is behind no longer has the turns of other partitions rationed."""

    async def story() -> None:
        async with servers_of(redis_url) as servers:
            told: list[tuple[bool, int]] = []
            turns: Any = SimpleNamespace(set_intake_behind=lambda *said: told.append(said))
            ledger = Ledger(servers.wire(5).call, servers.keys[5])
            cache: Any = None
            intake = Intake(Queue(servers.wire(5).call, servers.keys[5]), ledger, cache, RedisWatch(), turns)
            intake._set_behind(True)
            intake.stop()
            await intake.run()
            assert [(True, 5), (False, 5)] == told

    play(story())


def test_a_lease_that_cannot_be_given_up(redis_url: str) -> None:
    """A partition is handed over whatever giving up its lease meets: the lease runs out by itself."""

    async def breaks(*_: Any) -> Any:
        raise KeyError("bug")

    async def story() -> None:
        async with servers_of(redis_url) as servers:
            turns: Any = SimpleNamespace(set_intake_behind=lambda *_: None)
            cache: Any = None
            ledger = Ledger(breaks, servers.keys[5])
            intake = Intake(Queue(servers.wire(5).call, servers.keys[5]), ledger, cache, RedisWatch(), turns)
            intake.leading = True
            intake.stop()
            with capture_logs() as logged:
                await intake.run()
            assert (["intake.internal_error"], False) == ([line["event"] for line in logged], intake.leading)

    play(story())


def test_each_partition_says_for_itself_what_is_not_recorded(redis_url: str) -> None:
    """That a partition records nothing is said once, also while the others of its worker go on."""

    async def story() -> None:
        settings = Settings(redis_url=redis_url, partitions=COUNT, metrics_port=0)
        async with engine_wiring.engine(
            settings, "w1", 100, 100, Metrics(), Health(), lambda hints: None
        ) as engine:
            owner: Any = engine._owner
            first, second = (owner._new_tenure(n).intake._acceptor._recorder for n in range(2))
            with capture_logs() as logged:
                for _ in range(2):
                    first.count(["failed"], "a key of the wrong type")
                    second.count(["recorded"], "")
            assert ["status.unrecorded"] == [line["event"] for line in logged]

    play(story())


def test_masks() -> None:
    """A set of partitions is written as a number, and anything else is read as none."""
    assert ("0", "5", "8" + "0" * 255) == (mask_of(set()), mask_of({0, 2}), mask_of({1023}))
    for some in ({0, 2}, {3, 4}, {1023}, set(range(0, 1024, 7)), set(range(1024))):
        assert some == partitions_of(mask_of(some))
    assert {frozenset()} == {partitions_of(one) for one in ("0", "", None, "x", "-5", "0x5", 7.5)}


def test_what_says_the_same_is_not_parsed_again() -> None:
    """A worker's partitions are parsed when they change; who says nothing of partitions is left out."""
    read = MembersRead()
    said = {"a": {"owns": "3", "turns": 1}, "b": {"owns": "c", "cannot": "1"}, "older": {"turns": 0}}
    a, b = read.of(said)
    assert (Member("a", frozenset({0, 1})), Member("b", frozenset({2, 3}), frozenset({0}))) == (a, b)
    again, other = read.of({"a": {"owns": "3", "turns": 2}, "b": {"owns": "c"}})
    assert again is a
    assert Member("b", frozenset({2, 3})) == other


def test_every_partition_has_workspaces() -> None:
    """Workspaces are spread over all partitions, each always in the same one."""
    partitioning = Partitioning(COUNT)
    homes = [partitioning.home(f"w{number}") for number in range(400)]
    assert set(range(COUNT)) == set(homes)
    assert homes == [Partitioning(COUNT).home(f"w{number}") for number in range(400)]
