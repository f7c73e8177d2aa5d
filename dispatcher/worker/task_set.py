"""Background tasks. asyncio keeps only weak references to tasks, so one that nothing else holds may be collected."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class TaskSet:
    """Holds tasks until they have ended."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine as a task; call it on the loop."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ended(self) -> None:
        """Waits until all have ended, including those that are started meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)
