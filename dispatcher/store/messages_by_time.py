"""Finds messages by time range. They are listed in slots of ten minutes, by the time they were sent.

A workspace may lie in several places (partitions): a slot then has a list in each, which are taken one after another.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from dispatcher.errors import InvalidInput
from dispatcher.store.message_reader import Filter, Look, MessageReader, free, texts
from dispatcher.store.message_record import SLOT_MS, Head
from dispatcher.store.stored_message import StoredMessage, newest

SLOTS_AT_ONCE = 144
"""Slots whose lengths are read at once: a day's."""

Row = tuple[int, int, int, int]
"""Part of a list: the number of its place, its slot, the first index, the index after the last."""


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
    """Answers one TimeSearch, from all places of its workspace."""

    def __init__(self, readers: Sequence[MessageReader], search: TimeSearch) -> None:
        self._readers = readers
        self._bounds = readers[0].bounds
        self._search = search
        self._skip = search.skip
        self._looked_at = 0
        self._found: list[StoredMessage] = []

    async def find(self) -> list[StoredMessage]:
        """The messages, earliest slot first; within a slot, place by place, in order of their first status change.

        Raises RedisUnavailable, or InvalidInput if it would have to look at too many.
        """
        page = self._bounds.page
        rows: list[Row] = []
        async for place, slot, length in self._lists():
            whole = self._search.wants_all_of(slot)
            start = min(self._skip, length) if whole else 0  # in other slots only reading shows which match
            self._skip -= start
            rows += [(place, slot, first, min(first + page, length)) for first in range(start, length, page)]
            if whole and _length(rows) < page:
                continue
            await self._take(rows)
            if self._is_enough():
                break
            rows = []
        else:
            await self._take(rows)
        return await self._page()

    def _is_enough(self) -> bool:
        return len(newest(self._found)) >= self._search.count

    async def _page(self) -> list[StoredMessage]:
        """What was found, each message once. One that is in several places shows its newest status, unless that is filtered."""
        known = newest(self._found)
        page = [*known][: self._search.count]
        if page and len(self._readers) > 1 and not self._search.keep:
            calls = [reader.get_many(self._search.workspace, page) for reader in self._readers]
            every = [one for some in await asyncio.gather(*calls) for one in some]
            known = newest([*known.values(), *every])
        return [known[uuid] for uuid in page]

    async def _take(self, rows: Sequence[Row]) -> None:
        """Adds the matching messages of the rows, until there are enough."""
        most = self._bounds.looked_at
        async for length, some in self._read(rows):
            self._found += some[self._skip :]
            self._skip, self._looked_at = max(0, self._skip - len(some)), self._looked_at + length
            if self._is_enough():
                return
            if self._looked_at > most:
                raise InvalidInput(
                    f"more than {most:,} messages lie in that time before what was asked for: narrow it"
                )

    async def _lists(self) -> AsyncIterator[tuple[int, int, int]]:
        """The lists that have messages: place, slot, and how many messages."""
        slots = range(self._search.from_ms // SLOT_MS, self._search.to_ms // SLOT_MS + 1)
        for first in range(0, len(slots), SLOTS_AT_ONCE):
            lists = [
                (place, slot)
                for slot in slots[first : first + SLOTS_AT_ONCE]
                for place in range(len(self._readers))
            ]
            await self._search.look(len(lists))
            calls = [self._readers[place].ask("LLEN", self._list(place, slot)) for place, slot in lists]
            for (place, slot), length in zip(lists, await asyncio.gather(*calls), strict=True):
                if length:
                    yield place, slot, length

    async def _read(self, rows: Sequence[Row]) -> AsyncIterator[tuple[int, list[StoredMessage]]]:
        """The matching messages of rows, in batches, each with how many were looked at."""
        some: list[Row] = []
        for number, row in enumerate(rows, 1):
            some.append(row)
            if number < len(rows) and _length(some) < self._bounds.page:
                continue
            await self._search.look(_length(some))
            calls = [
                self._readers[place].ask("LRANGE", self._list(place, slot), first, end - 1)
                for place, slot, first, end in some
            ]
            listed = [
                (place, uuid)
                for (place, *_), found in zip(some, await asyncio.gather(*calls), strict=True)
                for uuid in texts(found)
            ]
            yield len(listed), await self._wanted(listed)
            some = []

    async def _wanted(self, listed: Sequence[tuple[int, str]]) -> list[StoredMessage]:
        """The matching messages, in order; each place is asked once for all of its own."""
        of: defaultdict[int, list[str]] = defaultdict(list)
        for place, uuid in listed:
            of[place].append(uuid)
        calls = [
            self._readers[place].get_many(self._search.workspace, uuids, self._search.wants)
            for place, uuids in of.items()
        ]
        found = zip(of, await asyncio.gather(*calls), strict=True)
        known = {(place, one.uuid): one for place, some in found for one in some}
        return [known[one] for one in listed if one in known]

    def _list(self, place: int, slot: int) -> str:
        return self._readers[place].keys.status_time(self._search.workspace, self._search.channel, slot)


def _length(rows: Sequence[Row]) -> int:
    return sum(end - first for *_, first, end in rows)
