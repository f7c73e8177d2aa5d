"""A cancellation that a call swallows, as redis-py's may."""

import asyncio

import anyio
import pytest

from dispatcher.store.cancellable import cancellable


async def deaf(error: Exception | None = None) -> str:
    """A call that drops the cancellation which ends it."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if error:
            raise error from None
    return "done"


@pytest.mark.parametrize("error", [None, OSError("away")])
def test_swallowed(error: Exception | None) -> None:
    """The task is cancelled all the same, whatever its call returned or raised."""

    async def work() -> None:
        task = asyncio.ensure_future(cancellable(deaf(error)))
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())


def test_swallowed_at_a_limit_of_time() -> None:
    """asyncio.timeout raises TimeoutError."""

    async def work() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await cancellable(deaf())

    asyncio.run(work())


def test_swallowed_in_a_scope() -> None:
    """anyio, which FastAPI cancels with, takes it for the cancellation that it is."""

    async def work() -> bool:
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_soon(scope.cancel)
            await cancellable(deaf())
        return scope.cancelled_caught

    assert asyncio.run(work())
