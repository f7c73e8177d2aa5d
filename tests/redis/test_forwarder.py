"""Entries that are forwarded to another partition's queue: each is there once, and leaves its own."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from dispatcher.errors import NotLeader
from dispatcher.store.queue import QueueEntry
from dispatcher.worker import forwarder
from dispatcher.worker.batch import Batch
from dispatcher.worker.forwarder import Forwarder
from dispatcher.worker.metrics import Metrics
from tests.partitioned import Installation, Partition, line
from tests.world import World


def test_what_has_left_is_forgotten(two_urls: list[str]) -> None:
    """What the source has taken off its queue is forgotten with the next call; a batch that is repeated is not added again."""

    async def work() -> None:
        async with Installation(two_urls, starts=False) as its:
            zero, one = its.partitions
            await zero.ledger.lead("me", 60_000)
            forwarding = Forwarder(zero.ledger, "me", zero.ledgers.__getitem__, Metrics())
            [theirs] = its.named(1)
            first, second = [await batch_of(zero, theirs, numbers) for numbers in (range(5), range(5, 8))]
            for batch in (first, first, first):
                await forwarding.forward(batch)
                assert (5, 5) == (await one.queued(), await one.remembered())
            await forwarding.forward(second)
            assert (8, 3) == (await one.queued(), await one.remembered())
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
        batch.forward(1, workspace, workspace, QueueEntry(entry_id.decode(), pairs))
    return batch


def test_what_nobody_calls_gone(world: World) -> None:
    """What a source forwarded and died before it could name as gone is forgotten after the retention."""
    world.run(world.ledger.forward(3, [("1-0 a", b"a"), ("1-1 b", b"b")]))
    world.now += world.ledger.options.retention_ms
    world.run(world.ledger.forward(4, [("1-0 a", b"a")]))
    assert [b"4 1-0 a"] == world.call("zrange", world.keys.forwarded, 0, -1)


def test_another_leader(two_urls: list[str]) -> None:
    """Without the lease nothing leaves the queue; what the lease may be too short for is put off, for another may have done it."""

    async def work() -> None:
        async with Installation(two_urls, starts=False) as its:
            zero, one = its.partitions
            await zero.ledger.lead("me", 60_000)
            stale = Forwarder(zero.ledger, "stale", zero.ledgers.__getitem__, Metrics())
            batch = await batch_of(zero, its.named(1)[0], range(3))
            with pytest.raises(NotLeader):
                await stale.forward(batch)
            assert (3, 3) == (await zero.queued(), await one.queued())
            forwarding = Forwarder(zero.ledger, "me", zero.ledgers.__getitem__, Metrics())
            await zero.ledger.lead("me", 500)
            short = await batch_of(zero, its.named(1)[0], range(3, 6))
            await forwarding.forward(short)
            assert (3, [3]) == (await one.queued(), [len(left.ids) for left in short.later.values()])
            assert None is await zero.ledger.lead("another", 60_000)
            assert 0 == zero.ledger.leads_until

    asyncio.run(work())


def test_same_id_after_a_fail_over(two_urls: list[str]) -> None:
    """An entry that has the id of one that was forwarded before is another one, if its content is."""

    async def work() -> None:
        async with Installation(two_urls, starts=False) as its:
            zero, one = its.partitions
            await zero.ledger.lead("me", 60_000)
            forwarding = Forwarder(zero.ledger, "me", zero.ledgers.__getitem__, Metrics())
            for content in (b"a", b"b", b"a"):
                batch = Batch()
                batch.forward(1, "w", "w", QueueEntry("5-1", [b"event", content]))
                await forwarding.forward(batch)
            assert [b"a", b"b"] == [f[b"event"] for _, f in await one.client.xrange(one.keys.events)][:2]

    asyncio.run(work())


def test_calls_are_bounded(two_urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many entries and bytes a batch has, no call has more than 3,900 arguments or some megabytes; the order stays."""

    async def work() -> None:
        async with Installation(two_urls, starts=False) as its:
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


def test_a_batch_names_where_it_forwards_to() -> None:
    """So that intake prepares a batch again if one of them was put off after the batch was prepared."""
    batch = Batch()
    batch.forward(1, "w", "w 1", QueueEntry("5-1", [b"event", b"a"]))
    assert {"w 1"} == batch.routes
    assert {} == batch.revisions
