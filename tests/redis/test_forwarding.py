"""What is put on any partition's queue comes to the right one: in order, nothing lost, nothing doubled."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dispatcher.errors import NotLeader, RedisUnavailable
from dispatcher.store.queue import QueueEntry
from dispatcher.store.rejected import Rejected
from dispatcher.worker import forwarder, intake, put_off, router
from dispatcher.worker.forwarder import Forwarder
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.prepare import Batch
from tasks.redis_server import RedisServer
from tests.partitioned import Installation, Partition, line, until


@pytest.fixture
def second(server_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    """Another server, which may be killed."""
    with RedisServer(tmp_path, "--appendonly", "yes", executable=server_program) as server:
        yield server


@pytest.fixture
def urls(redis_url: str, second: RedisServer) -> list[str]:
    """Two servers: even partitions are on the first, odd ones on the second."""
    return [redis_url, second.url]


async def empty(*partitions: Partition) -> bool:
    """Whether nothing is on their queues."""
    return not sum([await one.queued() for one in partitions])


async def remembered(partition: Partition) -> int:
    """How many entries of others it remembers."""
    return int(await partition.client.zcard(partition.keys.forwarded))


async def sources(partition: Partition) -> list[bytes]:
    """What is on its queue: whence it came."""
    return [fields.get(b"from", b"") for _, fields in await partition.client.xrange(partition.keys.events)]


async def _is(value: object) -> object:
    return value


def test_order(urls: list[str]) -> None:
    """What came to a stranger's queue is accepted at home in its order; no key there stays for ever, and none is doubled."""

    async def work() -> None:
        async with Installation(urls) as its:
            zero, one = its.partitions
            [mine], [theirs] = its.named(0), its.named(1)
            await zero.add(mine)
            await one.add(theirs)
            await zero.enqueue(line(n, workspace, "m") for n in range(700) for workspace in (mine, theirs))
            await until(lambda: empty(zero, one))
            expected = [f"e{n}" for n in range(700)]
            assert expected == await zero.accepted(mine, "m")
            assert expected == await one.accepted(theirs, "m")
            assert [] == await zero.accepted(theirs, "m")
            assert (700, 0) == (zero.metrics.forwarded, one.metrics.forwarded)
            assert 0 < await one.client.pttl(one.keys.forwarded)
            await until(lambda: _took_all(one, 700))
            assert {"accepted": 700} == +one.metrics.taken
            assert zero.cache.reads.count(theirs) <= 2, "two batches that are prepared at once"

    asyncio.run(work())


async def _took_all(partition: Partition, count: int) -> bool:
    """Whether its worker has counted so many, which it does after they have left the queue."""
    return partition.metrics.taken.total() >= count


def test_bad_entries_stay(urls: list[str]) -> None:
    """What cannot be parsed is rejected where it is; an unknown workspace is rejected at its home."""

    async def work() -> None:
        async with Installation(urls) as its:
            zero, one = its.partitions
            [theirs] = its.named(1)
            await zero.enqueue([b"{", line(1, theirs), b"[]"])
            await until(lambda: empty(zero, one))
            await until(lambda: Rejected(one.client, one.keys).newest())
            reasons = [[r.reason for r in await Rejected(p.client, p.keys).newest()] for p in (zero, one)]
            assert [["invalid", "invalid"], ["unknown_workspace"]] == reasons
            assert 0 == await one.queued()

    asyncio.run(work())


def test_death_between_the_two_steps(urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A forwarder that dies after the first step has its entries forwarded again by the next one: each is there once."""

    async def work() -> None:
        async with Installation(urls) as its:
            zero, one = its.partitions
            [theirs] = its.named(1)
            await one.add(theirs)
            reached = asyncio.Event()

            async def never(*_: object) -> None:
                reached.set()
                await asyncio.Event().wait()

            monkeypatch.setattr(zero.ledger, "forwarded", never)
            await zero.enqueue(line(n, theirs, "m") for n in range(50))
            await asyncio.wait_for(reached.wait(), 20)
            await until(lambda: _has(one, theirs, 1))
            await its.replace(0)
            await zero_enqueues_more(its, theirs)
            zero = its.partitions[0]
            await until(lambda: empty(zero, one))
            assert [f"e{n}" for n in range(60)] == await one.accepted(theirs, "m")
            assert 0 == one.metrics.taken["duplicate"]
            assert 10 <= zero.metrics.forwarded < 60, "what was there was not added again"

    asyncio.run(work())


async def _has(partition: Partition, workspace: str, count: int) -> bool:
    return len(await partition.accepted(workspace, "m")) >= count


async def zero_enqueues_more(its: Installation, workspace: str) -> None:
    """Ten more."""
    await its.partitions[0].enqueue(line(n, workspace, "m") for n in range(50, 60))


def test_what_has_left_is_forgotten(urls: list[str]) -> None:
    """What the source has taken off its queue is forgotten with the next call; a batch that is repeated is not added again."""

    async def work() -> None:
        async with Installation(urls, starts=False) as its:
            zero, one = its.partitions
            await zero.ledger.lead("me", 60_000)
            forwarding = Forwarder(zero.ledger, "me", zero.ledgers.__getitem__, Metrics())
            [theirs] = its.named(1)
            first, second = [await batch_of(zero, theirs, numbers) for numbers in (range(5), range(5, 8))]
            for batch in (first, first, first):
                await forwarding.forward(batch)
                assert (5, 5) == (await one.queued(), await remembered(one))
            await forwarding.forward(second)
            assert (8, 3) == (await one.queued(), await remembered(one))
            assert 0 == await zero.queued()
            pending = await zero.client.xpending(zero.keys.events, "workers")
            assert 0 == pending["pending"]

    asyncio.run(work())


async def batch_of(zero: Partition, workspace: str, numbers: Sequence[int], **fields: Any) -> Batch:
    """Entries of partition 0 that were read, to be forwarded to partition 1."""
    await zero.enqueue(line(n, workspace, "m", **fields) for n in numbers)
    found = await zero.client.xreadgroup("workers", "intake", {zero.keys.events: ">"}, count=len(numbers))
    batch = Batch()
    for entry_id, of_entry in found[0][1]:
        pairs = [value for pair in of_entry.items() for value in pair]
        batch.forward(1, workspace, QueueEntry(entry_id.decode(), pairs))
    return batch


def test_another_leader(urls: list[str]) -> None:
    """Without the lease nothing leaves the queue; when it may have run out nothing is forwarded, for another may have done it."""

    async def work() -> None:
        async with Installation(urls, starts=False) as its:
            zero, one = its.partitions
            await zero.ledger.lead("me", 60_000)
            stale = Forwarder(zero.ledger, "stale", zero.ledgers.__getitem__, Metrics())
            batch = await batch_of(zero, its.named(1)[0], range(3))
            with pytest.raises(NotLeader):
                await stale.forward(batch)
            assert (3, 3) == (await zero.queued(), await one.queued())
            forwarding = Forwarder(zero.ledger, "me", zero.ledgers.__getitem__, Metrics())
            await zero.ledger.lead("me", 500)
            with pytest.raises(NotLeader):
                await forwarding.forward(await batch_of(zero, its.named(1)[0], range(3, 6)))
            assert 3 == await one.queued()
            assert None is await zero.ledger.lead("another", 60_000)
            assert 0 == zero.ledger.leads_until

    asyncio.run(work())


def test_same_id_after_a_fail_over(urls: list[str]) -> None:
    """An entry that has the id of one that was forwarded before is another one, if its content is."""

    async def work() -> None:
        async with Installation(urls, starts=False) as its:
            zero, one = its.partitions
            await zero.ledger.lead("me", 60_000)
            forwarding = Forwarder(zero.ledger, "me", zero.ledgers.__getitem__, Metrics())
            for content in (b"a", b"b", b"a"):
                batch = Batch()
                batch.forward(1, "w", QueueEntry("5-1", [b"event", content]))
                await forwarding.forward(batch)
            assert [b"a", b"b"] == [f[b"event"] for _, f in await one.client.xrange(one.keys.events)][:2]

    asyncio.run(work())


def test_calls_are_bounded(urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many entries and bytes a batch has, no call has more than 3,900 arguments or some megabytes; the order stays."""

    async def work() -> None:
        async with Installation(urls, starts=False) as its:
            zero, one = its.partitions
            await zero.ledger.lead("me", 60_000)
            sizes: list[tuple[int, int]] = []
            for ledger in (zero.ledger, zero.ledgers[1]):
                _measure(ledger, sizes)
            forwarding = Forwarder(zero.ledger, "me", zero.ledgers.__getitem__, Metrics())
            monkeypatch.setattr(forwarder, "TARGET_SECONDS", 20.0)
            [theirs] = its.named(1)
            await forwarding.forward(await batch_of(zero, theirs, range(4000)))
            big = {"x": "y" * 60_000}
            await forwarding.forward(await batch_of(zero, theirs, range(4000, 4150), reference=big))
            assert max(count for count, _ in sizes) <= 3900
            assert max(size for _, size in sizes) <= 4_200_000
            assert 0 == await zero.queued()
            events = [f[b"event"] for _, f in await one.client.xrange(one.keys.events)]
            assert [b'"e%d"' % n in event for n, event in enumerate(events)] == [True] * 4150

    asyncio.run(work())


def _measure(ledger: Any, sizes: list[tuple[int, int]]) -> None:
    real = ledger._scripts._call

    async def call(*command: Any) -> Any:
        if command[0] != "EVAL":  # what it is when Redis does not know the script yet
            sizes.append((len(command), sum(len(str(one)) for one in command)))
        return await real(*command)

    ledger._scripts._call = call


@pytest.mark.parametrize("how", ["killed", "stalled"])
def test_target_away_and_back(urls: list[str], second: RedisServer, how: str) -> None:
    """While a target is away its entries wait in their order and others go on; it is said once; when it is back they arrive."""

    async def work() -> None:
        async with Installation(urls) as its:
            zero, one = its.partitions
            [mine], theirs = its.named(0), its.named(1, 5)
            await zero.add(mine)
            await one.add(*theirs)
            await until(lambda: _is(one.intake.leading))
            if how == "killed":
                second.kill()
            else:
                os.kill(second._process.pid, signal.SIGSTOP)  # type: ignore[union-attr]
            try:
                for first in range(0, 200, 20):
                    await zero.enqueue(
                        line(n, workspace, "m")
                        for n in range(first, first + 20)
                        for workspace in (*theirs, mine)
                    )
                    await until(lambda first=first: _has(zero, mine, first + 20))  # type: ignore[misc]
                assert 1000 == await zero.queued()
            finally:
                second.start() if how == "killed" else os.kill(second._process.pid, signal.SIGCONT)  # type: ignore[union-attr]
            await until(lambda: empty(zero, one), 60)
            for workspace in theirs:
                assert [f"e{n}" for n in range(200)] == await one.accepted(workspace, "m")
            assert 0 == one.metrics.taken["duplicate"]

    with capture_logs() as said:
        asyncio.run(work())
    events = [entry["event"] for entry in said]
    assert 1 <= events.count("intake.not_forwarded") <= 2, "refused, or silent: not once for each try"
    assert 1 == events.count("intake.forwarding")


def test_target_full(urls: list[str], second: RedisServer) -> None:
    """A full target gets nothing; its entries wait, others go on, and the source is not said to be full."""

    async def work() -> None:
        async with Installation(urls) as its:
            zero, one = its.partitions
            [mine], [theirs] = its.named(0), its.named(1)
            await zero.add(mine)
            await one.add(theirs)
            await one.client.config_set("maxmemory", 1)
            await zero.enqueue(line(n, workspace, "m") for n in range(100) for workspace in (theirs, mine))
            await until(lambda: _has(zero, mine, 100))
            await until(lambda: _is(len(zero.intake._put_off)))
            assert (100, 0, 0) == (
                await zero.queued(),
                await one.queued(),
                await zero.client.exists(zero.keys.full),
            )
            await one.client.config_set("maxmemory", 0)
            await until(lambda: empty(zero, one), 60)
            assert [f"e{n}" for n in range(100)] == await one.accepted(theirs, "m")

    asyncio.run(work())


def test_source_full(urls: list[str]) -> None:
    """What belongs elsewhere leaves a full partition, though that accepts nothing: it makes room."""

    async def work() -> None:
        async with Installation(urls, starts=False) as its:
            zero, one = its.partitions
            [mine], [theirs] = its.named(0), its.named(1)
            await zero.add(mine)
            await one.add(theirs)
            await zero.enqueue(line(n, workspace, "m") for n in range(20) for workspace in (mine, theirs))
            await zero.client.config_set("maxmemory", 1)
            try:
                zero.start()
                one.start()
                await until(lambda: _has(one, theirs, 20))
                await until(lambda: _queued(zero, 20))
            finally:
                await zero.client.config_set("maxmemory", 0)
            await until(lambda: empty(zero, one))
            assert [f"e{n}" for n in range(20)] == await zero.accepted(mine, "m")
            assert [f"e{n}" for n in range(20)] == await one.accepted(theirs, "m")

    asyncio.run(work())


async def _queued(partition: Partition, count: int) -> bool:
    return await partition.queued() == count


def by_partition(its: Installation, workspace: str, width: int) -> dict[int, str]:
    """A message of each of a workspace's partitions."""
    found: dict[int, str] = {}
    for message in map("m{}".format, range(1000)):
        found.setdefault(its.code.of(workspace, message, width), message)
    return found


def test_width(urls: list[str]) -> None:
    """A wide workspace's entries come to the partition of their message from wherever they are, in at most two steps."""

    async def work() -> None:
        widths = {f"w{n}": 3 for n in range(1000)}
        async with Installation(urls, 4, widths) as its:
            [wide] = its.named(0)
            for part in its.partitions[:3]:
                await part.add(wide)
            messages = by_partition(its, wide, 3)
            assert {0, 1, 2} == set(messages)
            expected: dict[int, list[str]] = {}
            for number, start in enumerate(range(4)):
                for place, message in messages.items():
                    event = number * 10 + place
                    await its.partitions[start].enqueue([line(event, wide, message)])
                    expected.setdefault(place, []).append(f"e{event}")
                    await until(
                        lambda place=place, message=message, event=event: _took(
                            its, place, wide, message, event
                        )
                    )  # type: ignore[misc]
            for place, message in messages.items():
                assert expected[place] == await its.partitions[place].accepted(wide, message)
            await until(lambda: empty(*its.partitions))
            # from home two of three, from each part two home and one of these on, from a stranger three and two
            assert [6, 2, 2, 3] == [
                2 + 1 + 1 + 2,
                *(its.partitions[n].metrics.forwarded for n in (1, 2, 3)),
            ]
            assert 2 + 1 + 1 + 2 == its.partitions[0].metrics.forwarded

    asyncio.run(work())


async def _took(its: Installation, place: int, workspace: str, message: str, event: int) -> bool:
    return f"e{event}" in await its.partitions[place].accepted(workspace, message)


def test_a_copy_that_comes_late(urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What home sent to a part that has no record of the workspace yet waits for it; after a minute it is rejected there."""

    async def work() -> None:
        async with Installation(urls, 2, {f"w{n}": 2 for n in range(100)}) as its:
            zero, one = its.partitions
            [wide] = its.named(0)
            await zero.add(wide)
            message = by_partition(its, wide, 2)[1]
            await zero.enqueue(line(n, wide, message) for n in range(20))
            await until(lambda: _is(len(one.intake._put_off)))
            assert (0, 20) == (await zero.queued(), await one.queued())
            await one.add(wide)
            await until(lambda: empty(one))
            assert [f"e{n}" for n in range(20)] == await one.accepted(wide, message)
            monkeypatch.setattr(router, "COPY_LATE_MS", 0)
            await one.client.delete(one.keys.workspace(wide), one.keys.workspaces)
            one.cache.forget(wide)
            await zero.enqueue([line(99, wide, message)])
            await until(lambda: Rejected(one.client, one.keys).newest())
            assert ["unknown_workspace"] == [r.reason for r in await Rejected(one.client, one.keys).newest()]

    asyncio.run(work())


def test_replies_that_are_lost(urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of both steps that fail, before they ran or after it, lose nothing, double nothing and mix up nothing."""
    rng = random.Random(5)
    monkeypatch.setattr(forwarder, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(intake, "FOLLOW_SECONDS", 0.01)
    for name in ("FIRST_SECONDS", "MOST_SECONDS"):
        monkeypatch.setattr(put_off, name, 0.05)

    def unreliable(real: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def call(*args: object) -> object:
            chance = rng.random()
            if chance < 0.2:
                raise RedisUnavailable("not sent")
            found = await real(*args)
            if chance < 0.4:
                raise RedisUnavailable("its reply was lost")
            return found

        return call

    async def work() -> None:
        async with Installation(urls) as its:
            zero, one = its.partitions
            theirs = its.named(1, 5)
            await one.add(*theirs)
            monkeypatch.setattr(zero.ledger, "forwarded", unreliable(zero.ledger.forwarded))
            monkeypatch.setattr(zero.ledgers[1], "forward", unreliable(zero.ledgers[1].forward))
            for first in range(0, 300, 10):
                lines = [line(n, workspace, "m") for n in range(first, first + 10) for workspace in theirs]
                await zero.enqueue(lines)
                await asyncio.sleep(0.02)
            await until(lambda: empty(zero, one), 60)
            for workspace in theirs:
                assert [f"e{n}" for n in range(300)] == await one.accepted(workspace, "m")
            await until(lambda: _took_all(one, 1500))
            assert {"accepted": 1500} == +one.metrics.taken

    asyncio.run(work())


def test_a_batch_names_the_workspaces_that_it_forwards() -> None:
    """So that intake prepares a batch again if one of them was put off after the batch was prepared."""
    batch = Batch()
    batch.forward(1, "w", QueueEntry("5-1", [b"event", b"a"]))
    assert ["w"] == list(batch.workspaces)
    assert {} == batch.revisions


def test_everything_at_once(urls: list[str]) -> None:
    """2,000 entries of narrow and wide workspaces, on any queue of four, with workers that die: each accepted once, in order."""
    rng = random.Random(11)
    narrow, wide = [f"n{n}" for n in range(12)], {f"x{n}": n % 3 + 2 for n in range(4)}
    wanted: dict[tuple[str, str], list[str]] = {}
    queue_of: dict[tuple[str, str], int] = {}

    def some_lines() -> dict[int, list[bytes]]:
        made: dict[int, list[bytes]] = {}
        for _ in range(100):
            number = sum(map(len, wanted.values()))
            key = rng.choice([*narrow, *wide]), f"m{rng.randrange(8)}"
            queue = queue_of.setdefault(key, rng.randrange(4))  # a message's changes come from one backend
            wanted.setdefault(key, []).append(f"e{number}")
            made.setdefault(queue, []).append(line(number, *key))
        return made

    async def work() -> None:
        async with Installation(urls, 4, wide) as its:
            for name in narrow:
                await its.home(name).add(name)
            for name, width in wide.items():
                for number in its.code.all_of(name, width):
                    await its.partitions[number].add(name)
            for step in range(20):
                for queue, lines in some_lines().items():
                    await its.partitions[queue].enqueue(lines)
                if step % 3 == 2:
                    await its.replace(rng.randrange(4))
                await asyncio.sleep(0.02)
            await until(lambda: empty(*its.partitions), 60)
            for (name, message), expected in wanted.items():
                right = its.code.of(name, message, wide.get(name, 1))
                for one in its.partitions:
                    assert (expected if one.number == right else []) == await one.accepted(name, message)
            for one in its.partitions:
                assert 0 == one.metrics.taken["duplicate"]
                assert not await one.client.exists(one.keys.rejected)

    asyncio.run(work())
