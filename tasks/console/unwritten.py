"""Entries of the log of actions that Redis did not take: kept in memory, and written when it takes them."""

import asyncio
from collections.abc import Awaitable, Callable

RETRY_SECONDS, LONGEST_SECONDS = 2.0, 3600.0
"""How often an entry is tried again, and for how long."""
MOST_KEPT = 200
"""Entries beyond these are in the process's own log alone."""


class Unwritten:
    """The entries of one process. `keep` of an Audit says whether an entry was written."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def again(self, keep: Callable[[], Awaitable[bool]]) -> None:
        """Tries to write an entry until that can be done."""
        if len(self._tasks) < MOST_KEPT:
            task = asyncio.create_task(_until_kept(keep))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Gives up what is not written yet: the process's log has it."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _until_kept(keep: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(round(LONGEST_SECONDS / RETRY_SECONDS)):
        await asyncio.sleep(RETRY_SECONDS)
        if await keep():
            return
