"""Cancelling a call of redis-py's."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def cancellable(call: Awaitable[T]) -> T:
    """Awaits a call of redis-py's. Raises CancelledError if the task was cancelled meanwhile, whatever the call did.

    redis-py sends within `asyncio.wait_for`, which before Python 3.12 drops a cancellation if a result arrives at
    the same moment; `asyncio.timeout`, for example, cancels only once.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0  # above 0 in a task that cleans up after its cancellation
    try:
        result = await call
    except Exception:
        await _raise_if_cancelled(task, before)
        raise
    await _raise_if_cancelled(task, before)
    return result


async def _raise_if_cancelled(task: "asyncio.Task[object] | None", before: int) -> None:
    if task and task.cancelling() > before:
        await asyncio.sleep(0)  # anyio cancels again by itself, and knows its own CancelledError only
        raise asyncio.CancelledError
