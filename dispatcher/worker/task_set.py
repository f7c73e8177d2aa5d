"""Background tasks. asyncio keeps only weak references to tasks, so one that nothing else holds may be collected."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger()


class TaskSet:
    """Holds tasks until they have ended; logs an error that ends one."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine as a task; call it on the loop."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error(
                "task.internal_error", task=getattr(task.get_coro(), "__qualname__", None), exc_info=error
            )

    async def cancel(self) -> None:
        """Cancels all, and waits until they have ended."""
        for task in self._tasks:
            task.cancel()
        await self.ended()

    async def ended(self) -> None:
        """Waits until all have ended, including those that are started meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)
