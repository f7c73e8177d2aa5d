"""Reads the message store: one message, those to a number or with a reference, a campaign, a stretch of time."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
import structlog

from dispatcher.connection import translated
from dispatcher.errors import InvalidInput
from dispatcher.keys import Keys
from dispatcher.model import MAX_AHEAD_MS, Status, decode_json
from dispatcher.status_api.record import SLOT_MS, STATUSES, read_record, reference_digest
from dispatcher.wire import Argument, Call

PAGE = 500
"""Messages that are read in one round trip."""
MAX_LOOKED_AT = 20_000
"""Messages that one question may look at; it says so where that is not enough."""
CHANNELS = ("SMS", "RCS", "WHATSAPP")
"""Those on which messages are looked up by their customer's ids."""
SLOTS_AT_ONCE = 144
"""A day's."""

log = structlog.get_logger()

Filter = Callable[["StoredMessage"], bool]
"""Whether a message is wanted."""
Row = tuple[int, int, int]
"""Part of a slot's list: the slot, the first place, the place after the last."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as the store knows it; None where nobody told. Times are ms since 1970."""

    uuid: str
    status: Status
    history: Sequence[tuple[Status, int]]
    """The statuses it went through, with when."""
    sent_ms: int
    src: str
    dest: str
    channel: str
    segments: int | None
    units: int | None
    attempts: int | None
    cost: Decimal | None
    currency: str | None
    campaign_id: str | None
    customer_message_id: str | None
    network: str | None
    total_parts: int | None
    reference: Mapping[str, Any] = field(default_factory=dict)
    provider: Mapping[str, Any] = field(default_factory=dict)
    error_code: str | None = None
    error_message: str | None = None
    names: Set[tuple[str, str]] = frozenset()
    """Each channel and id that its customer knew it by: its customerMessageIds, its own id before one was told."""

    def projected(self, words: Mapping[Status, str]) -> list[tuple[str, int]]:
        """The history in a platform's own words, each with when it began; what a platform has no word for is left out."""
        steps: list[tuple[str, int]] = []
        for status, at in self.history:
            word = words.get(status)
            if word and (not steps or steps[-1][0] != word):
                steps.append((word, at))
        return steps

    def first(self, *statuses: Status) -> int | None:
        """When it first had one of these statuses."""
        return next((at for status, at in self.history if status in statuses), None)


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


class Messages:
    """Reads one Redis; knows only what its workspace's keys lead to. Every method raises RedisUnavailable."""

    def __init__(self, call: Call, keys: Keys, url: str = "", retention_ms: int = 604_800_000) -> None:
        self._call = call
        self._keys = keys
        self._url = url
        self._retention_ms = retention_ms

    async def get(self, workspace: str, uuid: str) -> StoredMessage | None:
        """A message, or None: unknown to this workspace, or forgotten."""
        found = await self.get_many(workspace, [uuid])
        return found[0] if found else None

    async def get_many(self, workspace: str, uuids: Sequence[str]) -> list[StoredMessage]:
        """Those of the messages that are known, in the order asked for."""
        if not uuids:
            return []
        raw = await self._ask("MGET", *(self._keys.status(workspace, uuid) for uuid in uuids))
        found = [_stored(uuid, one) for uuid, one in zip(uuids, raw, strict=True) if one]
        return [one for one in found if one]

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
        leads = {
            id_: [raw.decode() for raw in row if raw] + [id_] for id_, row in zip(ids, rows, strict=True)
        }
        uuids = list(dict.fromkeys(uuid for some in leads.values() for uuid in some))
        known = {one.uuid: one for one in await self.get_many(workspace, uuids)}
        found = {
            id_: [known[uuid] for uuid in some if uuid in known and (channel, id_) in known[uuid].names]
            for id_, some in leads.items()
        }
        return {id_: some[0] for id_, some in found.items() if some}

    async def to_phone(
        self, workspace: str, number: str, before_ms: int, count: int, keep: Filter
    ) -> list[StoredMessage]:
        """The latest messages to a number that were sent before a time, the latest first; of those that are to be kept."""
        return await self._latest(
            workspace, self._keys.status_phone(workspace, number), before_ms, count, keep
        )

    async def with_reference(
        self, workspace: str, key: str, before_ms: int, count: int, keep: Filter
    ) -> list[StoredMessage]:
        """The same of messages with a reference key."""
        zset = self._keys.status_reference(workspace, reference_digest(key))
        return await self._latest(
            workspace, zset, before_ms, count, lambda one: one.reference.get("key") == key and keep(one)
        )

    async def campaign(self, workspace: str, campaign: str) -> Campaign | None:
        """A campaign's counts, or None: unknown to this workspace, or forgotten."""
        flat = await self._ask("HGETALL", self._keys.status_campaign(workspace, campaign))
        if not flat:
            return None
        fields = {name: int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
        started = fields.pop(b"started", 0)
        return Campaign(campaign, started, {STATUSES[letter]: n for letter, n in fields.items() if n})

    async def recipients(self, workspace: str, campaign: str, skip: int, count: int) -> list[StoredMessage]:
        """Some of a campaign's messages, in the order in which they were first heard of; forgotten ones are left out."""
        key = self._keys.status_recipients(workspace, campaign)
        uuids = await self._ask("LRANGE", key, skip, skip + count - 1)
        return await self.get_many(workspace, [uuid.decode() for uuid in uuids])

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
    ) -> list[StoredMessage]:
        """Some of the messages of a channel that were sent between two times (both inclusive), the earliest ten minutes first.

        Within ten minutes they come in the order in which they were first heard of. Reaches back as far as the
        retention. Raises InvalidInput where it would have to look at too many.
        """
        from_ms, to_ms = max(from_ms, now_ms - self._retention_ms), min(to_ms, now_ms + MAX_AHEAD_MS)
        found: list[StoredMessage] = []
        looked_at = 0
        rows: list[Row] = []
        async for slot, length in self._slots(
            workspace, channel, range(from_ms // SLOT_MS, to_ms // SLOT_MS + 1)
        ):
            whole = keep is None and from_ms <= slot * SLOT_MS and (slot + 1) * SLOT_MS <= to_ms
            start = min(skip, length) if whole else 0  # of others it shows only when they are read
            skip -= start
            rows += [(slot, first, min(first + PAGE, length)) for first in range(start, length, PAGE)]
            if whole and sum(end - first for _, first, end in rows) < PAGE:
                continue
            async for one in self._read(workspace, channel, rows):
                looked_at += 1
                if looked_at > MAX_LOOKED_AT:
                    raise InvalidInput(
                        f"more than {MAX_LOOKED_AT:,} messages lie in that time before what was asked for: narrow it"
                    )
                if from_ms <= one.sent_ms <= to_ms and (keep is None or keep(one)):
                    found += [one] if not skip else []
                    skip -= bool(skip)
                    if len(found) == count:
                        return found
            rows = []
        return (found + [one async for one in self._read(workspace, channel, rows)])[:count]

    async def _slots(self, workspace: str, channel: str, slots: range) -> AsyncIterator[tuple[int, int]]:
        """Those that have messages, with how many."""
        for first in range(0, len(slots), SLOTS_AT_ONCE):
            some = slots[first : first + SLOTS_AT_ONCE]
            calls = [self._ask("LLEN", self._keys.status_time(workspace, channel, slot)) for slot in some]
            for slot, length in zip(some, await asyncio.gather(*calls), strict=True):
                if length:
                    yield slot, length

    async def _read(self, workspace: str, channel: str, rows: Sequence[Row]) -> AsyncIterator[StoredMessage]:
        """The messages of rows, some at a time."""
        some: list[Row] = []
        for number, row in enumerate(rows, 1):
            some.append(row)
            if number < len(rows) and sum(end - first for _, first, end in some) < PAGE:
                continue
            calls = [
                self._ask("LRANGE", self._keys.status_time(workspace, channel, slot), first, end - 1)
                for slot, first, end in some
            ]
            uuids = [uuid.decode() for listed in await asyncio.gather(*calls) for uuid in listed]
            for one in await self.get_many(workspace, uuids):
                yield one
            some = []

    async def _latest(
        self, workspace: str, zset: str, before_ms: int, count: int, keep: Filter
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
            known = await self.get_many(workspace, [uuid.decode() for uuid in uuids])
            found += [one for one in known if keep(one)]
        return found[:count]

    async def _ask(self, *command: Argument) -> Any:
        with translated(self._url):
            return await self._call(*command)


def _stored(uuid: str, raw: bytes) -> StoredMessage | None:
    try:
        record = read_record(raw)
    except (ValueError, LookupError, TypeError, struct.error, msgspec.MsgspecError):
        log.error("status.unreadable", message=uuid)
        return None
    told = record.told
    return StoredMessage(
        uuid,
        record.status,
        record.history,
        record.sent_ms,
        told.src,
        told.dest,
        told.channel,
        _int(told.segments),
        _int(told.units),
        _int(told.attempts),
        Decimal(told.cost) if told.cost else None,
        told.currency or None,
        record.campaign_id or None,
        told.customer_message_id or None,
        told.network or None,
        _int(told.total_parts),
        decode_json(told.reference.encode()) if told.reference else {},
        decode_json(told.provider.encode()) if told.provider else {},
        told.error_code or None,
        told.error_message or None,
        frozenset((channel, id_ or uuid) for channel, id_ in record.names),
    )


def _int(text: str) -> int | None:
    return int(text) if text else None
