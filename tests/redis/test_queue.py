"""The queue on a real server: what was read is there until it is accepted, and Redis counts how often it was read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import redis.asyncio

from dispatcher.errors import NotLeader
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys
from dispatcher.store.queue import CONSUMER, START, Pending, Queue, QueueEntry, place
from dispatcher.store.wire import Wire

KEYS = Keys()


@asynccontextmanager
async def queue_of(url: str, count: int) -> AsyncIterator[tuple[Queue, "redis.asyncio.Redis", list[str]]]:
    """A queue with so many entries, as a leader finds it; a client; the entries' ids."""
    client = connect_async(url)
    wire = Wire(client)
    await client.xgroup_create(KEYS.events, "workers", "0", mkstream=True)
    ids = [(await client.xadd(KEYS.events, {"event": str(n)})).decode() for n in range(count)]
    try:
        yield Queue(wire.call, KEYS, url), client, ids
    finally:
        await wire.close()
        await client.aclose()


def test_read_and_read_again(redis_url: str) -> None:
    """New entries are read once, in their order; those that were read can be read again behind any place."""

    async def work() -> None:
        async with queue_of(redis_url, 3) as (queue, _, ids):
            entries = [QueueEntry(one, [b"event", b"%d" % n]) for n, one in enumerate(ids)]
            assert entries[:2] == await queue.read(2)
            assert entries[2:] == await queue.read(2)
            assert [] == await queue.read(2)
            assert entries == await queue.read_again(START, 5)
            assert entries[1:2] == await queue.read_again(place(ids[0]), 1)

    asyncio.run(work())


def test_a_read_waits(redis_url: str) -> None:
    """A read that may wait returns as soon as an entry comes."""

    async def work() -> None:
        async with queue_of(redis_url, 0) as (queue, client, _):
            reading = asyncio.create_task(queue.read(2, 20_000))
            while not (await client.info("clients"))["blocked_clients"]:
                await asyncio.sleep(0.01)
            added = await client.xadd(KEYS.events, {"event": "x"})
            assert [QueueEntry(added.decode(), [b"event", b"x"])] == await asyncio.wait_for(reading, 10)

    asyncio.run(work())


def test_pending(redis_url: str) -> None:
    """Reads are counted for each entry, under the name that read it; a claim makes it ours, with none."""

    async def work() -> None:
        async with queue_of(redis_url, 3) as (queue, client, ids):
            await queue.read(2)
            await queue.read_again(START, 1)
            await client.xreadgroup("workers", "by-hand", {KEYS.events: ">"})
            assert [
                Pending(ids[0], CONSUMER, 2),
                Pending(ids[1], CONSUMER, 1),
                Pending(ids[2], "by-hand", 1),
            ] == await queue.pending(START, 5)
            await queue.claim(ids[1:])
            assert [Pending(one, CONSUMER, 0) for one in ids[1:]] == await queue.pending(place(ids[0]), 5)

    asyncio.run(work())


def test_deleted_entry(redis_url: str) -> None:
    """An entry that was deleted by hand after it had been read is read again without fields."""

    async def work() -> None:
        async with queue_of(redis_url, 1) as (queue, client, ids):
            await queue.read(1)
            await client.xdel(KEYS.events, ids[0])
            assert [QueueEntry(ids[0], [])] == await queue.read_again(START, 1)

    asyncio.run(work())


@pytest.mark.parametrize(
    "use",
    [
        lambda queue: queue.read(1),
        lambda queue: queue.read_again(START, 1),
        lambda queue: queue.pending(START, 1),
        lambda queue: queue.claim(["1-1"]),
    ],
    ids=["read", "read_again", "pending", "claim"],
)
def test_deleted_stream(redis_url: str, use: Callable[[Queue], Awaitable[object]]) -> None:
    """Where the stream was deleted its reader has to lead anew, which makes it again."""

    async def work() -> None:
        async with queue_of(redis_url, 1) as (queue, client, _):
            await client.delete(KEYS.events)
            with pytest.raises(NotLeader):
                await use(queue)

    asyncio.run(work())
