"""Reads the message store: one message, those to a number or with a reference, a campaign, a stretch of time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from redis.exceptions import ResponseError

from dispatcher.errors import InvalidInput
from dispatcher.model import MAX_AHEAD_MS, Status
from dispatcher.store.connection import translated
from dispatcher.store.keys import Keys
from dispatcher.store.message_record import SLOT_MS, STATUSES, Head, read_head, reference_digest
from dispatcher.store.stored_message import StoredMessage, stored
from dispatcher.store.wire import Argument, Call

PAGE = 500
"""Messages that are read in one round trip."""
AT_A_STRETCH = 50
"""Messages that all searches of a process together read before others are served."""
MAX_LOOKED_AT = 20_000
"""Messages that one question may look at; it says so where that is not enough."""
CHANNELS = ("SMS", "RCS", "WHATSAPP")
"""Those on which messages are looked up by their customer's ids."""
SLOTS_AT_ONCE = 144
"""A day's."""
TIME_DIGITS = 13
"""Of the largest number that a counter has: ms since 1970, up to the year 2286."""

log = structlog.get_logger()

Filter = Callable[[Head], bool]
"""Whether a message is wanted."""
Look = Callable[[int], Awaitable[None]]
"""Is told how many messages are to be read next, and may have the reader wait, or raise."""
Row = tuple[int, int, int]
"""Part of a slot's list: the slot, the first place, the place after the last."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """How many messages of a campaign have which status, and since when it runs (ms since 1970)."""

    id: str
    started_ms: int
    counts: Mapping[Status, int]

    @property
    def recipients(self) -> int:
        """How many messages it has."""
        return sum(self.counts.values())


async def free(_: int) -> None:
    """A Look that costs nothing."""


class Messages:
    """Reads one Redis; knows only what its workspace's keys lead to. Every method raises RedisUnavailable."""

    def __init__(self, call: Call, keys: Keys, url: str = "", retention_ms: int = 604_800_000) -> None:
        self._call = call
        self._keys = keys
        self._url = url
        self._retention_ms = retention_ms
        self._turn = asyncio.Lock()

    async def get(self, workspace: str, uuid: str) -> StoredMessage | None:
        """A message, or None: unknown to this workspace, or forgotten."""
        found = await self.get_many(workspace, [uuid])
        return found[0] if found else None

    async def get_many(
        self, workspace: str, uuids: Sequence[str], keep: Filter | None = None
    ) -> list[StoredMessage]:
        """Those of the messages that are known and to be kept, in the order asked for."""
        found: list[StoredMessage] = []
        for first in range(0, len(uuids), PAGE):
            some = uuids[first : first + PAGE]
            raw = await self._ask("MGET", *(self._keys.status(workspace, uuid) for uuid in some))
            pairs = list(zip(some, raw, strict=True))
            if len(uuids) <= AT_A_STRETCH:
                found += _wanted(pairs, keep)
                continue
            for start in range(0, len(pairs), AT_A_STRETCH):
                async with self._turn:
                    found += _wanted(pairs[start : start + AT_A_STRETCH], keep)
                    await asyncio.sleep(0)  # others are served between
        return found

    async def of_customer(self, workspace: str, channel: str, ids: Sequence[str]) -> dict[str, StoredMessage]:
        """Messages by each id that a customer knew them by on a channel; unknown ones are left out.

        Of several that told the same one, the one that told it first last.
        """
        if not ids:
            return {}
        channels = list(
            dict.fromkeys((channel, *CHANNELS))
        )  # it may have been told before the channel changed
        key = self._keys.status_customer
        listed = await self._ask("MGET", *(key(workspace, one, id_) for id_ in ids for one in channels))
        rows = zip(*[iter(listed)] * len(channels), strict=True)
        leads = {id_: [_text(raw) for raw in row if raw] + [id_] for id_, row in zip(ids, rows, strict=True)}
        uuids = list(dict.fromkeys(uuid for some in leads.values() for uuid in some))
        known = {one.uuid: one for one in await self.get_many(workspace, uuids)}
        found = {
            id_: [known[uuid] for uuid in some if uuid in known and (channel, id_) in known[uuid].names]
            for id_, some in leads.items()
        }
        return {id_: some[0] for id_, some in found.items() if some}

    async def to_phone(
        self, workspace: str, number: str, before_ms: int, count: int, keep: Filter, look: Look = free
    ) -> list[StoredMessage]:
        """The latest messages to a number that were sent before a time, the latest first; of those that are to be kept."""
        zset = self._keys.status_phone(workspace, number)
        return await self._latest(workspace, zset, before_ms, count, keep, look)

    async def with_reference(
        self, workspace: str, key: str, before_ms: int, count: int, keep: Filter, look: Look = free
    ) -> list[StoredMessage]:
        """The same of messages with a reference key."""
        zset = self._keys.status_reference(workspace, reference_digest(key))
        return await self._latest(workspace, zset, before_ms, count, keep, look, key)

    async def campaign(self, workspace: str, campaign: str) -> Campaign | None:
        """A campaign's counts, or None: unknown to this workspace, or forgotten."""
        flat = await self._ask("HGETALL", self._keys.status_campaign(workspace, campaign))
        if not flat:
            return None
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        counts = {status: _count(fields[letter]) for letter, status in STATUSES.items() if letter in fields}
        started = _count(fields.get(b"started", b"0"))
        return Campaign(campaign, started, {status: n for status, n in counts.items() if n})

    async def recipients(self, workspace: str, campaign: str, skip: int, count: int) -> list[StoredMessage]:
        """Some of a campaign's messages, in the order in which they were first heard of; forgotten ones are left out."""
        key = self._keys.status_recipients(workspace, campaign)
        uuids = await self._ask("LRANGE", key, skip, skip + count - 1)
        return await self.get_many(workspace, _texts(uuids))

    async def sent_between(
        self,
        workspace: str,
        channel: str,
        from_ms: int,
        to_ms: int,
        *,
        now_ms: int,
        skip: int,
        count: int,
        keep: Filter | None = None,
        look: Look = free,
    ) -> list[StoredMessage]:
        """Some of the messages of a channel that were sent between two times (both inclusive), the earliest ten minutes first.

        Within ten minutes they come in the order in which they were first heard of. Reaches back as far as the
        retention. Raises InvalidInput where it would have to look at too many.
        """
        from_ms, to_ms = max(from_ms, now_ms - self._retention_ms), min(to_ms, now_ms + MAX_AHEAD_MS)
        found: list[StoredMessage] = []
        looked_at = 0
        rows: list[Row] = []

        def wanted(head: Head) -> bool:
            return from_ms <= head.sent_ms <= to_ms and (keep is None or keep(head))

        async def take() -> bool:
            """Adds the wanted messages of the rows; whether there are enough."""
            nonlocal skip, looked_at
            async for length, some in self._read(workspace, channel, rows, wanted, look):
                found.extend(some[skip:])
                skip, looked_at = max(0, skip - len(some)), looked_at + length
                if len(found) >= count:
                    return True
                if looked_at > MAX_LOOKED_AT:
                    raise InvalidInput(
                        f"more than {MAX_LOOKED_AT:,} messages lie in that time before what was asked for: narrow it"
                    )
            return False

        slots = range(from_ms // SLOT_MS, to_ms // SLOT_MS + 1)
        async for slot, length in self._slots(workspace, channel, slots, look):
            whole = keep is None and from_ms <= slot * SLOT_MS and (slot + 1) * SLOT_MS <= to_ms
            start = min(skip, length) if whole else 0  # of others it shows only when they are read
            skip -= start
            rows += [(slot, first, min(first + PAGE, length)) for first in range(start, length, PAGE)]
            if whole and _length(rows) < PAGE:
                continue
            if await take():
                return found[:count]
            rows = []
        await take()
        return found[:count]

    async def _slots(
        self, workspace: str, channel: str, slots: range, look: Look
    ) -> AsyncIterator[tuple[int, int]]:
        """Those that have messages, with how many."""
        for first in range(0, len(slots), SLOTS_AT_ONCE):
            some = slots[first : first + SLOTS_AT_ONCE]
            await look(len(some))
            calls = [self._ask("LLEN", self._keys.status_time(workspace, channel, slot)) for slot in some]
            for slot, length in zip(some, await asyncio.gather(*calls), strict=True):
                if length:
                    yield slot, length

    async def _read(
        self, workspace: str, channel: str, rows: Sequence[Row], keep: Filter, look: Look
    ) -> AsyncIterator[tuple[int, list[StoredMessage]]]:
        """The messages of rows that are to be kept, some at a time, with how many were looked at."""
        some: list[Row] = []
        for number, row in enumerate(rows, 1):
            some.append(row)
            if number < len(rows) and _length(some) < PAGE:
                continue
            await look(_length(some))
            calls = [
                self._ask("LRANGE", self._keys.status_time(workspace, channel, slot), first, end - 1)
                for slot, first, end in some
            ]
            uuids = [uuid for listed in await asyncio.gather(*calls) for uuid in _texts(listed)]
            yield len(uuids), await self.get_many(workspace, uuids, keep)
            some = []

    async def _latest(
        self,
        workspace: str,
        zset: str,
        before_ms: int,
        count: int,
        keep: Filter,
        look: Look,
        reference: str | None = None,
    ) -> list[StoredMessage]:
        found: list[StoredMessage] = []
        start = 0
        while len(found) < count:
            if start >= MAX_LOOKED_AT:
                raise InvalidInput(
                    f"more than {MAX_LOOKED_AT:,} messages would have to be looked at: say an earlier sendDate"
                )
            limit = PAGE if start else count
            uuids = await self._ask("ZREVRANGEBYSCORE", zset, f"({before_ms}", "-inf", "LIMIT", start, limit)
            if not uuids:
                break
            start += len(uuids)
            await look(len(uuids))
            known = await self.get_many(workspace, _texts(uuids), keep)
            found += [one for one in known if reference in (None, one.reference.get("key"))]
        return found[:count]

    async def _ask(self, *command: Argument) -> Any:
        """Redis's reply; None, and a line in the log, where something else is under the key: it hides nothing under others."""
        try:
            with translated(self._url):
                return await self._call(*command)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            kind = (
                str(command[1]).removeprefix(self._keys.root).partition(":")[0]
            )  # the rest may be a phone number
            log.error(
                "status.unreadable", kind=kind, problem=str(error), action="look for keys of another type"
            )
            return None


def _wanted(pairs: Iterable[tuple[str, bytes | None]], keep: Filter | None) -> list[StoredMessage]:
    """The messages without those that are not known, not to be kept, or not readable."""
    found = (_one_wanted(uuid, raw, keep) for uuid, raw in pairs if raw)
    return [one for one in found if one]


def _one_wanted(uuid: str, raw: bytes, keep: Filter | None) -> StoredMessage | None:
    head = read_head(uuid, raw) if keep else None
    return None if keep and head and not keep(head) else stored(uuid, raw)


def _length(rows: Sequence[Row]) -> int:
    return sum(end - first for _, first, end in rows)


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _texts(listed: Sequence[bytes] | None) -> list[str]:
    return [_text(one) for one in listed or ()]


def _count(text: bytes) -> int:
    """A counter's value; 0 where it is none, or no time either."""
    return int(text) if text.isdigit() and len(text) <= TIME_DIGITS else 0
