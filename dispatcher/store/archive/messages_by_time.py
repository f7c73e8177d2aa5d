"""Finds messages by time range, in Redis and the archive: in order of when they were sent, and of their uuids.

In Redis they are listed in slots of ten minutes. A day's slots are read, and the archive's messages of that day put between them.
Redis is read first, since messages go from there to the archive. Where one is met is not always its place: the archive may have
several rows of it, or Redis a record that began anew.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from dispatcher.errors import InvalidInput
from dispatcher.store.archive.messages import ArchivedMessages, Place, Wanted
from dispatcher.store.archive.read_messages import head_of, listed_messages, pages, place_of
from dispatcher.store.message_reader import Bounds, Filter, Look, MessageReader, free, texts
from dispatcher.store.message_record import SLOT_MS
from dispatcher.store.messages import Messages
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
    in_redis: Messages, archive: ArchivedMessages, search: ArchiveSearch, bounds: Bounds
) -> AsyncIterator[StoredMessage]:
    """The messages, in order, each once.

    Raises RedisUnavailable, ArchiveUnavailable, or InvalidInput if it would have to look at too many.
    """
    finding = _Finding(in_redis, await in_redis.readers(search.workspace), archive, search, bounds)
    for start, end in search.windows():
        if end >= search.redis_from_ms:
            finding.add(await finding.of_redis(start, end))
        async for reached in finding.of_archive(start, end):
            for one in finding.before(reached):
                yield one


class _Finding:
    """Reads for one search, and counts what it looked at."""

    def __init__(
        self,
        in_redis: Messages,
        readers: Sequence[MessageReader],
        archive: ArchivedMessages,
        search: ArchiveSearch,
        bounds: Bounds,
    ) -> None:
        self._in_redis = in_redis
        self._readers = readers
        self._archive = archive
        self._search = search
        self._bounds = bounds
        self._looked_at = 0
        self._seen: set[str] = set()
        self._waiting: list[tuple[Place, StoredMessage]] = []
        """A heap: those that match, until all that comes before them is known."""

    def add(self, messages: Iterable[StoredMessage]) -> None:
        """Notes those that were not seen yet."""
        for one in messages:
            if one.uuid in self._seen:
                continue
            self._seen.add(one.uuid)
            if self._search.from_ms <= one.sent_ms <= self._search.to_ms and self._wants(one):
                heappush(self._waiting, (place_of(one), one))

    def before(self, place: Place) -> Iterator[StoredMessage]:
        """Takes out those that stand before a place, in order."""
        while self._waiting and self._waiting[0][0] < place:
            yield heappop(self._waiting)[1]

    async def of_redis(self, start: int, end: int) -> list[StoredMessage]:
        """What Redis has of a window."""
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
        return [*newest(found).values()]

    async def of_archive(self, start: int, end: int) -> AsyncIterator[Place]:
        """Adds what the archive has of it, page by page; gives the place before which all are known."""
        workspace = self._search.workspace
        async for page in pages(
            self._archive, Wanted(workspace, f"time:{self._search.channel}", start, end), PAGE
        ):
            await self._look_at(len(page))
            uuids = [one.uuid for one in page]
            self.add((await listed_messages(self._in_redis, self._archive, workspace, uuids)).values())
            yield page[-1].place
        yield end + 1, ""

    async def _look_at(self, count: int) -> None:
        self._looked_at += count
        if self._looked_at > self._bounds.looked_at:
            raise InvalidInput(
                f"more than {self._bounds.looked_at:,} messages lie in that time before what was asked for: narrow it"
            )
        await self._search.look(count)

    def _wants(self, message: StoredMessage) -> bool:
        return self._search.keep is None or self._search.keep(head_of(message))

    def _list(self, reader: MessageReader, slot: int) -> str:
        return reader.keys.status_time(self._search.workspace, self._search.channel, slot)
