"""Finds messages by time range. They are listed in slots of ten minutes, by the time they were sent."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from dispatcher.errors import InvalidInput
from dispatcher.store.message_reader import Filter, Look, MessageReader, free, texts
from dispatcher.store.message_record import SLOT_MS, Head
from dispatcher.store.stored_message import StoredMessage

SLOTS_AT_ONCE = 144
"""Slots whose lengths are read at once: a day's."""

Row = tuple[int, int, int]
"""Part of a slot's list: the slot, the first index, the index after the last."""


@dataclass(frozen=True, slots=True)
class TimeSearch:
    """A query: `count` messages after the first `skip`, sent from `from_ms` to `to_ms`, both inclusive."""

    workspace: str
    channel: str
    from_ms: int
    to_ms: int
    skip: int
    count: int
    keep: Filter | None = None
    look: Look = free

    def wants(self, head: Head) -> bool:
        """Whether a message matches."""
        return self.from_ms <= head.sent_ms <= self.to_ms and (self.keep is None or self.keep(head))

    def wants_all_of(self, slot: int) -> bool:
        """Whether every message of a slot matches: skipped ones then need not be read."""
        return self.keep is None and self.from_ms <= slot * SLOT_MS and (slot + 1) * SLOT_MS <= self.to_ms


class MessagesByTime:
    """Answers one TimeSearch."""

    def __init__(self, reader: MessageReader, search: TimeSearch) -> None:
        self._reader = reader
        self._search = search
        self._skip = search.skip
        self._looked_at = 0
        self._found: list[StoredMessage] = []

    async def find(self) -> list[StoredMessage]:
        """The messages, earliest slot first; within a slot, in order of their first status change.

        Raises RedisUnavailable, or InvalidInput if it would have to look at too many.
        """
        page = self._reader.bounds.page
        rows: list[Row] = []
        async for slot, length in self._slots():
            whole = self._search.wants_all_of(slot)
            start = min(self._skip, length) if whole else 0  # in other slots only reading shows which match
            self._skip -= start
            rows += [(slot, first, min(first + page, length)) for first in range(start, length, page)]
            if whole and _length(rows) < page:
                continue
            await self._take(rows)
            if self._is_enough():
                break
            rows = []
        else:
            await self._take(rows)
        return self._found[: self._search.count]

    def _is_enough(self) -> bool:
        return len(self._found) >= self._search.count

    async def _take(self, rows: Sequence[Row]) -> None:
        """Adds the matching messages of the rows, until there are enough."""
        most = self._reader.bounds.looked_at
        async for length, some in self._read(rows):
            self._found += some[self._skip :]
            self._skip, self._looked_at = max(0, self._skip - len(some)), self._looked_at + length
            if self._is_enough():
                return
            if self._looked_at > most:
                raise InvalidInput(
                    f"more than {most:,} messages lie in that time before what was asked for: narrow it"
                )

    async def _slots(self) -> AsyncIterator[tuple[int, int]]:
        """The slots that have messages, each with their number."""
        slots = range(self._search.from_ms // SLOT_MS, self._search.to_ms // SLOT_MS + 1)
        for first in range(0, len(slots), SLOTS_AT_ONCE):
            some = slots[first : first + SLOTS_AT_ONCE]
            await self._search.look(len(some))
            calls = [self._reader.ask("LLEN", self._list(slot)) for slot in some]
            for slot, length in zip(some, await asyncio.gather(*calls), strict=True):
                if length:
                    yield slot, length

    async def _read(self, rows: Sequence[Row]) -> AsyncIterator[tuple[int, list[StoredMessage]]]:
        """The matching messages of rows, in batches, each with how many were looked at."""
        some: list[Row] = []
        for number, row in enumerate(rows, 1):
            some.append(row)
            if number < len(rows) and _length(some) < self._reader.bounds.page:
                continue
            await self._search.look(_length(some))
            calls = [
                self._reader.ask("LRANGE", self._list(slot), first, end - 1) for slot, first, end in some
            ]
            uuids = [uuid for listed in await asyncio.gather(*calls) for uuid in texts(listed)]
            found = await self._reader.get_many(self._search.workspace, uuids, self._search.wants)
            yield len(uuids), found
            some = []

    def _list(self, slot: int) -> str:
        return self._reader.keys.status_time(self._search.workspace, self._search.channel, slot)


def _length(rows: Sequence[Row]) -> int:
    return sum(end - first for _, first, end in rows)
