"""Finds messages by time range, in Redis and the archive: in order of when they were sent, and of their uuids.

In Redis they are listed in slots of ten minutes. A day's slots are read, put in order, and the archive's messages of that day put between
them. Redis is read first, since messages go from there to the archive.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from dispatcher.errors import InvalidInput
from dispatcher.store.archive.archived_message import whole
from dispatcher.store.archive.messages import ArchivedMessages, Wanted
from dispatcher.store.archive.read_messages import head_of, pages, read_messages
from dispatcher.store.message_reader import Bounds, Filter, Look, MessageReader, free, texts
from dispatcher.store.message_record import SLOT_MS
from dispatcher.store.messages_by_time import SLOTS_AT_ONCE
from dispatcher.store.stored_message import StoredMessage, newest

PAGE = 100
"""Rows of the archive that are read at once: the largest page of the API."""


@dataclass(frozen=True, slots=True)
class ArchiveSearch:
    """Messages sent from `from_ms` to `to_ms`, both inclusive, that `keep` accepts; Redis has none that were sent before `redis_from_ms`."""

    workspace: str
    channel: str
    from_ms: int
    to_ms: int
    redis_from_ms: int
    keep: Filter | None = None
    look: Look = free

    def windows(self) -> Iterator[tuple[int, int]]:
        """First and last ms of each window: all that only the archive has is one."""
        start = self.from_ms
        if start < self.redis_from_ms:
            yield start, min(self.redis_from_ms - 1, self.to_ms)
            start = self.redis_from_ms
        while start <= self.to_ms:
            end = min((start // SLOT_MS + SLOTS_AT_ONCE) * SLOT_MS - 1, self.to_ms)
            yield start, end
            start = end + 1


async def by_time(
    readers: Sequence[MessageReader], archive: ArchivedMessages, search: ArchiveSearch, bounds: Bounds
) -> AsyncIterator[StoredMessage]:
    """The messages, in order. `readers` read the places where those of the workspace may lie.

    Raises RedisUnavailable, ArchiveUnavailable, or InvalidInput if it would have to look at too many.
    """
    finding = _Finding(readers, archive, search, bounds)
    seen: set[str] = set()
    for start, end in search.windows():
        in_redis = await finding.of_redis(start, end) if end >= search.redis_from_ms else []
        seen |= {one.uuid for one in in_redis}
        left = iter(in_redis)
        next_one = next(left, None)
        async for one in finding.of_archive(start, end):
            if one.uuid in seen:
                continue
            seen.add(one.uuid)
            while next_one and _place(next_one) < _place(one):
                if finding.wants(next_one):
                    yield next_one
                next_one = next(left, None)
            if finding.wants(one):
                yield one
        while next_one:
            if finding.wants(next_one):
                yield next_one
            next_one = next(left, None)


class _Finding:
    """Reads for one search, and counts what it looked at."""

    def __init__(
        self,
        readers: Sequence[MessageReader],
        archive: ArchivedMessages,
        search: ArchiveSearch,
        bounds: Bounds,
    ) -> None:
        self._readers = readers
        self._archive = archive
        self._search = search
        self._bounds = bounds
        self._looked_at = 0

    def wants(self, message: StoredMessage) -> bool:
        """Whether it matches."""
        return self._search.keep is None or self._search.keep(head_of(message))

    async def of_redis(self, start: int, end: int) -> list[StoredMessage]:
        """What Redis has of a window, in order."""
        slots = range(start // SLOT_MS, end // SLOT_MS + 1)
        lists = [(reader, self._list(reader, slot)) for slot in slots for reader in self._readers]
        await self._search.look(len(lists))
        lengths = await asyncio.gather(*(reader.ask("LLEN", key) for reader, key in lists))
        await self._look_at(sum(length or 0 for length in lengths))
        found: list[StoredMessage] = []
        for (reader, key), length in zip(lists, lengths, strict=True):
            for first in range(0, length or 0, self._bounds.page):
                uuids = texts(await reader.ask("LRANGE", key, first, first + self._bounds.page - 1))
                found += await reader.get_many(
                    self._search.workspace, uuids, lambda head: start <= head.sent_ms <= end
                )
        return sorted(newest(found).values(), key=_place)

    async def of_archive(self, start: int, end: int) -> AsyncIterator[StoredMessage]:
        """What the archive has of it, in order."""
        wanted = Wanted(self._search.workspace, f"time:{self._search.channel}", start, end)
        async for page in pages(self._archive, wanted, PAGE):
            await self._look_at(len(page))
            for one in read_messages(whole(page).values()):
                yield one

    async def _look_at(self, count: int) -> None:
        self._looked_at += count
        if self._looked_at > self._bounds.looked_at:
            raise InvalidInput(
                f"more than {self._bounds.looked_at:,} messages lie in that time before what was asked for: narrow it"
            )
        await self._search.look(count)

    def _list(self, reader: MessageReader, slot: int) -> str:
        return reader.keys.status_time(self._search.workspace, self._search.channel, slot)


def _place(message: StoredMessage) -> tuple[int, str]:
    return message.sent_ms, message.uuid
