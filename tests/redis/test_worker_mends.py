"""A worker of several partitions: what it reads, counts, tells and passes on where a server, a lease or a tenure fails."""

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from config.settings import Settings
from dispatcher.errors import OtherFormat
from dispatcher.health import Health
from dispatcher.store.arrivals import Arrivals, ToldQueue
from dispatcher.store.attempt_channel import AttemptChannel
from dispatcher.store.keys import keys_of
from dispatcher.store.ledger import Ledger
from dispatcher.store.members import Members, Registry, registries
from dispatcher.store.queue import QueueEntry
from dispatcher.store.replies import Hint
from dispatcher.store.servers import PlainServers
from dispatcher.worker.batch import Batch
from dispatcher.worker.forwarder import Forwarder
from dispatcher.worker.heartbeat import Heartbeat
from dispatcher.worker.load import Load
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.outages import Outages
from dispatcher.worker.partition_owner import PartitionOwner
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.slots import Slots
from dispatcher.worker.tail import Tail
from dispatcher.worker.turn import Turn
from tasks import engine_wiring
from tasks.commands import tail as command
from tasks.redis_server import RedisServer
from tests.attempts import attempted
from tests.partitioned import Installation

COUNT = 4


def test_what_the_lease_saw_is_read(two_urls: list[str]) -> None:
    """Entries that the lease's server counted are read, though the server that tells of changes has none: it was another one."""

    async def work() -> None:
        keys = keys_of("dispatcher", COUNT)
        here, others = (PlainServers([url], keys) for url in two_urls)
        ledger, arrivals = Ledger(here.wire(1).call, keys[1]), Arrivals(others)
        queue = ToldQueue(here.wire(1).call, keys[1], arrivals)
        await ledger.lead("me", 60_000)
        assert [] == await queue.read(10)
        await here.client(1).xadd(keys[1].events, {"event": "x"})
        lead = await ledger.lead("me", 60_000)
        assert lead
        queue.note_unread(lead.queued - lead.pending)
        assert 1 == len(await queue.read(10))
        await arrivals.aclose()
        await here.aclose()
        await others.aclose()

    asyncio.run(work())


def test_forwarded_to_two_at_once_are_all_counted(two_urls: list[str]) -> None:
    """Entries that go to two partitions at the same time are counted for both."""

    async def work() -> None:
        async with Installation(two_urls, 3, starts=False) as its:
            zero, metrics, batch = its.partitions[0], Metrics(), Batch()
            await zero.ledger.lead("me", 60_000)
            for number in range(6):
                batch.forward(1 + number % 2, "w", "w", QueueEntry(f"5-{number}", [b"event", b"x"]))
            await Forwarder(zero.ledger, "me", zero.ledgers.__getitem__, metrics).forward(batch)
            assert [3, 3] == [await one.queued() for one in its.partitions[1:]]
            assert 6 == metrics.forwarded

    asyncio.run(work())


class Watched(Registry):
    """Lets a tenure fail while the heartbeats are read."""

    def __init__(self, ledgers: list[Ledger]) -> None:
        super().__init__(ledgers, "w")
        self.fails = asyncio.Event()
        self.reads = 0

    async def read(self) -> Members:
        """As Registry's."""
        found = await super().read()
        self.reads += 1
        if self.reads > 1:  # the tenure was begun by the first look
            self.fails.set()
            await asyncio.sleep(0.01)
        return found


def test_a_tenure_that_meets_another_format(redis_url: str) -> None:
    """It ends the worker, whenever that is noticed, and nothing else is logged: it is begun no second time."""

    async def work() -> None:
        keys = keys_of("dispatcher", COUNT)
        servers = PlainServers([redis_url], keys)
        registry = Watched([Ledger(servers.wire(n).call, keys[n]) for n in registries(COUNT)])
        begun: list[int] = []

        def new_tenure(number: int) -> Any:
            async def run(_stopping: asyncio.Event) -> None:
                await registry.fails.wait()
                if number == 0 and begun.count(0) == 1:
                    raise OtherFormat("another one")
                await asyncio.Event().wait()

            begun.append(number)
            intake = SimpleNamespace(failing_since=None)
            return SimpleNamespace(run=run, owned=frozenset, intake=intake)

        async def answers(_number: int) -> bool:
            return True

        turns: Any = type("NoTurns", (), {"__len__": lambda _: 0})()
        heartbeat = Heartbeat("w", turns, Slots(10), Load())
        tail = Tail(AttemptChannel(servers.wire(0).call, keys[0]))
        owner = PartitionOwner(
            COUNT,
            registry,
            heartbeat,
            new_tenure,
            answers,
            turns,
            tail,
            RedisWatch(Metrics(), Health()),
            Outages(str),
        )
        with pytest.raises(OtherFormat, match="another one"):
            await asyncio.wait_for(owner.run(asyncio.Event()), 20)
        await servers.aclose()

    with capture_logs() as logged:
        asyncio.run(work())
    assert [] == logged, "it has led nothing"


def test_what_is_led_is_logged(redis_url: str) -> None:
    """How many partitions a worker leads is logged when it has their leases, not when it begins to try for them."""
    settings = Settings(
        _env_file=None, redis_url=redis_url, broker_url=redis_url, partitions=COUNT, metrics_port=0
    )

    async def work() -> None:
        wired = engine_wiring.engine(settings, "w", 10, 10, Metrics(), Health(), lambda hints: None)
        async with wired as engine:
            running = asyncio.create_task(engine.run())
            while "partitions.leading" not in [line["event"] for line in logged]:
                await asyncio.sleep(0.05)
            engine.stop()
            await running

    with capture_logs() as logged:
        asyncio.run(asyncio.wait_for(work(), 20))
    [line] = [line for line in logged if line["event"] == "partitions.leading"]
    assert (COUNT, COUNT) == (line["count"], line["of"])


class SlowChannel:
    """Where attempts are published: a server that does not answer."""

    def __init__(self) -> None:
        self.asked = 0

    async def publish(self, _attempts: object) -> None:
        """It is asked, and never answers."""
        self.asked += 1
        await asyncio.Event().wait()


def test_a_slow_server_of_tail(redis_url: str) -> None:
    """While the server of those who watch does not answer, the worker goes on to read heartbeats and to lead, and it ends."""

    async def work() -> int:
        keys = keys_of("dispatcher", COUNT)
        servers = PlainServers([redis_url], keys)
        registry = Watched([Ledger(servers.wire(n).call, keys[n]) for n in registries(COUNT)])
        await servers.client(0).set(keys[0].tail, "1")

        def new_tenure(_number: int) -> Any:
            return SimpleNamespace(
                run=lambda stopping: stopping.wait(),
                owned=frozenset,
                intake=SimpleNamespace(failing_since=None),
            )

        async def answers(_number: int) -> bool:
            return True

        turns: Any = type("NoTurns", (), {"__len__": lambda _: 0})()
        heartbeat = Heartbeat("w", turns, Slots(10), Load())
        channel: Any = SlowChannel()
        tail, stopping = Tail(channel), asyncio.Event()
        owner = PartitionOwner(
            COUNT, registry, heartbeat, new_tenure, answers, turns, tail, RedisWatch(), Outages(str)
        )
        running = asyncio.create_task(owner.run(stopping))
        while registry.reads < 4:
            if tail.watched and not tail._kept:
                tail._kept.append({"attempt": 1})
            await asyncio.sleep(0.05)
        stopping.set()
        await running
        await servers.aclose()
        return int(channel.asked)

    assert 1 == asyncio.run(asyncio.wait_for(work(), 20))


def test_a_claim_at_a_server_that_is_away(two_urls: list[str], second_server: RedisServer) -> None:
    """Its workspace comes after others from then on; with one partition, where all wait for the same Redis, nothing changes."""

    async def suspects(url: list[str], partitions: int, number: int) -> bool:
        settings = Settings(
            _env_file=None,
            redis_url=" ".join(url),
            broker_url=two_urls[0],
            partitions=partitions,
            metrics_port=0,
        )
        wired = engine_wiring.engine(settings, "w", 10, 10, Metrics(), Health(), lambda hints: None)
        async with wired as engine:
            parts = engine._parts[number]
            turn = Turn(Hint("a" * 12, "acme", number), parts)
            await turn.begin()
            return parts.slots.is_suspect("acme")

    async def both() -> list[bool]:
        return [await suspects(two_urls, COUNT, 1), await suspects(two_urls[1:], 1, 0)]

    second_server.kill()
    assert [True, False] == asyncio.run(both())


def test_tail(two_urls: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`tail` watches where workers look and publish: at the first partition, under its key. What is no attempt is said once."""
    settings = Settings(
        _env_file=None, redis_url=" ".join(reversed(two_urls)), broker_url=two_urls[0], partitions=COUNT
    )
    keys = keys_of("dispatcher", COUNT)[0]

    async def watch() -> None:
        async with contextlib.aclosing(
            PlainServers(list(reversed(two_urls)), keys_of("dispatcher", COUNT))
        ) as servers:
            watching = asyncio.create_task(command._tail(settings, {}, failed=False, as_json=True))
            ledger = Ledger(servers.wire(0).call, keys)
            while not (await ledger.beat("w", "")).watched:
                assert not watching.done()
                await asyncio.sleep(0.05)
            for _ in range(3):
                await servers.client(0).publish(keys.tail, b"no attempts")
            await AttemptChannel(servers.wire(0).call, keys).publish([attempted(outcome="delivered")])
            out = err = ""
            while '"delivered"' not in out:
                assert not watching.done()
                await asyncio.sleep(0.05)
                out, err = (
                    before + read for before, read in zip((out, err), capsys.readouterr(), strict=True)
                )
            assert 1 == err.count("something else than attempts was published")
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def in_time() -> None:
        await asyncio.wait_for(watch(), 60)

    asyncio.run(in_time())
