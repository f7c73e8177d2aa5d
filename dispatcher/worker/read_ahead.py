"""Reading ahead: while Redis accepts a batch, the next one is read and rendered."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from dispatcher.store.queue import QueueEntry
from dispatcher.worker.batch import Batch

READ_AHEAD_FROM = 8
"""Batches from this size on are worth reading ahead of; with fewer entries nothing is gained."""

Read = Callable[[], Awaitable[list[QueueEntry]]]
Prepare = Callable[[Sequence[QueueEntry]], Awaitable[Batch]]
Take = Callable[[list[QueueEntry], Batch | None], Awaitable[None]]

_Next = tuple[list[QueueEntry], Batch | None]


class ReadAhead:
    """Takes batches one after the other, in the order in which they were read.

    What runs at the same time, from one batch to the next:

        not behind      take 1: read 2, prepare 2       take 2: read 3, prepare 3
        behind          take 1: prepare 2, read 3       take 2: prepare 3, read 4

    An entry is in `held` from when it is read until it is taken, so none is lost if something fails.
    `read` returns the next entries, `prepare` renders them, and `take` has them accepted; if `prepare` failed, `take`
    gets None in place of the batch.
    """

    def __init__(self, read: Read, prepare: Prepare, take: Take) -> None:
        self._read = read
        self._prepare = prepare
        self._take = take
        self._further: asyncio.Task[list[QueueEntry]] | None = None
        """Reads the batch after the next one, while intake is behind."""
        self.held: list[QueueEntry] = []
        """Entries that were read and not yet taken, in order."""
        self.behind = False
        """Whether intake is behind; then two batches are read ahead."""

    async def run(self, entries: list[QueueEntry], goes_on: Callable[[], bool]) -> None:
        """Takes entries that were just read, and then all that are read meanwhile.

        Stops reading after a small batch, or when `goes_on` returns False. Raises what `take` or `read` raises, once no
        read is under way; if both fail, what `read` raises, since its reply may be lost.
        """
        self.held += entries
        batch: Batch | None = None
        ahead: asyncio.Task[_Next] | None = None
        try:
            while entries:
                looks_ahead = self._further or (len(entries) >= READ_AHEAD_FROM and goes_on())
                ahead = asyncio.create_task(self._look_ahead(goes_on)) if looks_ahead else None
                failure = await self._try_to_take(entries, batch)
                entries, batch = await ahead if ahead else ([], None)
                if failure:
                    await self._read_further()
                    raise failure
        except asyncio.CancelledError:
            await self._cancel(ahead)
            raise

    async def _look_ahead(self, goes_on: Callable[[], bool]) -> _Next:
        """Reads and renders the next batch; while intake is behind, also starts to read the one after it."""
        entries = await self._read_further() if self._further else await self._read_and_hold()
        if self.behind and entries and goes_on():
            self._further = asyncio.create_task(self._read_and_hold())
        try:
            return entries, await self._prepare(entries)
        except Exception:  # `take` renders them again, and meets the same error
            return entries, None

    async def _read_and_hold(self) -> list[QueueEntry]:
        entries = await self._read()
        self.held += entries
        return entries

    async def _read_further(self) -> list[QueueEntry]:
        """Waits for the read that is under way and returns its entries; none if no read is."""
        further, self._further = self._further, None
        return await further if further else []

    async def _try_to_take(self, entries: list[QueueEntry], batch: Batch | None) -> Exception | None:
        """Takes the first held entries; returns the error if that fails."""
        try:
            await self._take(entries, batch)
        except Exception as error:
            return error
        del self.held[: len(entries)]
        return None

    async def _cancel(self, ahead: "asyncio.Task[_Next] | None") -> None:
        tasks = [task for task in (ahead, self._further) if task]
        self._further = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
