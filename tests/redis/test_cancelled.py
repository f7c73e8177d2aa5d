"""Cancelling an AsyncDispatcher's call, and its event loop, against a real server."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise

import anyio
import pytest

from dispatcher import AsyncDispatcher, Dispatcher, DispatcherError, RedisUnavailable
from dispatcher.producer import SLICE, SLICE_BYTES
from tests.redis.test_producer import change, queued

TURNS = 60
"""More turns of the loop than a call takes, as a rule."""

CALLS: dict[str, Callable[[AsyncDispatcher], Awaitable[object]]] = {
    "enqueue": lambda dispatcher: dispatcher.enqueue(change(0)),
    "enqueue_many": lambda dispatcher: dispatcher.enqueue_many(change(number) for number in range(5)),
    "check": lambda dispatcher: dispatcher.unknown_workspaces(["acme"]),
    "queued": lambda dispatcher: dispatcher.queued(),
}


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled_after(count: int, call: Awaitable[object]) -> bool:
    """Cancels a call after some turns of the loop; whether there was one to cancel. The cancellation must arrive."""
    task = asyncio.ensure_future(call)
    await turns(count)
    if not task.cancel():
        return False
    with pytest.raises(asyncio.CancelledError):
        await task
    return True


async def out_of_time_after(count: int, call: Awaitable[object]) -> bool:
    """The same of asyncio.timeout, which cancels once."""
    is_over = False

    async def work() -> None:
        nonlocal is_over
        async with asyncio.timeout(None) as limit:
            loop.call_later(0, after, count, limit)
            await call
            is_over = True

    def after(left: int, limit: asyncio.Timeout) -> None:
        if left:
            loop.call_soon(after, left - 1, limit)
        elif not is_over:
            limit.reschedule(loop.time())

    loop = asyncio.get_running_loop()
    try:
        await work()
    except TimeoutError:
        return True
    return not is_over


async def out_of_scope_after(count: int, call: Awaitable[object]) -> bool:
    """The same of anyio, which FastAPI cancels with."""
    is_over = False

    async def cancel(scope: anyio.CancelScope) -> None:
        await turns(count)
        if not is_over:
            scope.cancel()

    with anyio.CancelScope() as scope:
        canceller = asyncio.ensure_future(cancel(scope))
        await call
        is_over = True
    await canceller
    return scope.cancelled_caught


@pytest.mark.parametrize("cancel", [cancelled_after, out_of_time_after, out_of_scope_after])
@pytest.mark.parametrize("name", CALLS)
def test_no_cancellation_is_lost(
    redis_url: str, name: str, cancel: Callable[[int, Awaitable[object]], Awaitable[bool]]
) -> None:
    """Whenever a call is cancelled, whoever cancels it learns that it was; the connections stay usable."""

    async def work() -> list[bool]:
        async with AsyncDispatcher.from_url(redis_url) as dispatcher:
            await dispatcher.queued()  # connects
            cancelled = [await cancel(count, CALLS[name](dispatcher)) for count in range(TURNS)]
            assert await dispatcher.queued() >= 0
        return cancelled

    assert any(asyncio.run(work()))


def test_cancelled_while_validating(redis_url: str) -> None:
    """Many changes are validated some at a time: other tasks run in between, and one that cancels is heeded before anything is sent."""

    async def work() -> int:
        made = 0

        def changes() -> Iterator[dict[str, object]]:
            nonlocal made
            for made in range(SLICE * 20):
                yield change(made)

        async with AsyncDispatcher.from_url(redis_url) as dispatcher:
            task = asyncio.ensure_future(dispatcher.enqueue_many(changes()))
            seen = []
            while len(seen) < 5:
                await asyncio.sleep(0)
                seen.append(made)
            assert all(later - sooner <= SLICE for sooner, later in pairwise(seen))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return made

    assert asyncio.run(work()) < SLICE * 6
    assert [] == queued(redis_url)


def test_cleaning_up_may_enqueue(redis_url: str) -> None:
    """A task that was cancelled may still enqueue while it cleans up."""

    async def work(dispatcher: AsyncDispatcher) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await dispatcher.enqueue(change(0))

    async def run() -> None:
        async with AsyncDispatcher.from_url(redis_url) as dispatcher:
            await cancelled_after(1, work(dispatcher))

    asyncio.run(run())
    assert 1 == len(queued(redis_url))


def test_cancelled_without_redis() -> None:
    """The cancellation of a call that finds no Redis is not lost either: what tries again for ever ends."""

    async def work(dispatcher: AsyncDispatcher) -> None:
        while True:
            try:
                await dispatcher.enqueue(change(0))
            except RedisUnavailable:
                await asyncio.sleep(0)

    async def run() -> None:
        dispatcher = AsyncDispatcher.from_url("redis://127.0.0.1:1/0")
        for count in range(50):
            assert await cancelled_after(count, work(dispatcher))

    asyncio.run(run())


def test_large_ones_are_validated_fewer_at_a_time(redis_url: str) -> None:
    """Other tasks run after 64 KB of status changes too."""
    text = "x" * (SLICE_BYTES // 2)

    async def work() -> None:
        made = 0

        def changes() -> Iterator[dict[str, object]]:
            nonlocal made
            for made in range(20):
                one = change(made)
                yield one | {"message": {**one["message"], "reference": {"text": text}}}  # type: ignore[dict-item]

        async with AsyncDispatcher.from_url(redis_url) as dispatcher:
            task = asyncio.ensure_future(dispatcher.enqueue_many(changes()))
            seen = []
            while len(seen) < 5:
                await asyncio.sleep(0)
                seen.append(made)
            await task
        assert [2, 4, 6, 8, 10] == seen

    asyncio.run(work())


def test_one_belongs_to_one_loop(redis_url: str) -> None:
    """In another event loop an AsyncDispatcher says what is wrong, unless it was closed before."""
    with asyncio.Runner() as first, asyncio.Runner() as second:
        dispatcher = AsyncDispatcher.from_url(redis_url)
        first.run(dispatcher.enqueue(change(0)))  # type: ignore[arg-type]  # a coroutine
        for call in (dispatcher.enqueue(change(1)), dispatcher.queued(), dispatcher.close()):
            with pytest.raises(DispatcherError, match=r"belong: make one in each .*, or close it"):
                second.run(call)
        first.run(dispatcher.close())

    async def work() -> None:
        async with closed:
            await closed.enqueue(change(1))

    closed = AsyncDispatcher.from_url(redis_url)
    asyncio.run(work())
    asyncio.run(work())
    with Dispatcher.from_url(redis_url) as blocking:
        assert 3 == blocking.queued()


def test_another_loop_after_many_calls_at_once(redis_url: str) -> None:
    """One that was closed works in another event loop, also if calls waited for a connection in each."""
    dispatcher = AsyncDispatcher.from_url(f"{redis_url}?max_connections=2")

    async def work() -> None:
        async with dispatcher:
            await asyncio.gather(*(dispatcher.enqueue(change(number)) for number in range(10)))

    for _ in range(3):
        asyncio.run(work())
    with Dispatcher.from_url(redis_url) as blocking:
        assert 30 == blocking.queued()
