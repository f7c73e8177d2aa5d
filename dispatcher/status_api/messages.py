"""Reads the message store: one message, those to a number or with a reference, a campaign, a stretch of time."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
import redis.asyncio

from dispatcher.connection import translated
from dispatcher.errors import InvalidInput
from dispatcher.keys import Keys
from dispatcher.model import Status, decode_json
from dispatcher.status_api.record import SLOT_MS, Record, reference_digest

PAGE = 500
"""Messages that are read in one round trip."""
MAX_LOOKED_AT = 100_000
"""Messages that one question may look at; it says so where that is not enough."""
MAX_AHEAD_MS = 3_600_000

_unpack = msgspec.msgpack.Decoder(Record).decode


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
    part: int | None
    total_parts: int | None
    accepted_ms: int | None
    reference: Mapping[str, Any] = field(default_factory=dict)
    provider: Mapping[str, Any] = field(default_factory=dict)
    error_code: str | None = None
    error_message: str | None = None

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

    def __init__(
        self, client: "redis.asyncio.Redis", keys: Keys, url: str = "", retention_ms: int = 604_800_000
    ) -> None:
        self._client: Any = client
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
        with translated(self._url):
            raw = await self._client.mget([self._keys.status(workspace, uuid) for uuid in uuids])
        return [_stored(uuid, one) for uuid, one in zip(uuids, raw, strict=True) if one]

    async def of_customer(self, workspace: str, channel: str, ids: Sequence[str]) -> dict[str, StoredMessage]:
        """Messages of a channel by customerMessageId, or by their own id where they have none; unknown ones are left out."""
        if not ids:
            return {}
        with translated(self._url):
            keys = [self._keys.status_customer(workspace, channel, one) for one in ids]
            uuids = [
                raw.decode() if raw else one
                for one, raw in zip(ids, await self._client.mget(keys), strict=True)
            ]
        known = {one.uuid: one for one in await self.get_many(workspace, uuids) if one.channel == channel}
        found = {one: known[uuid] for one, uuid in zip(ids, uuids, strict=True) if uuid in known}
        return {one: message for one, message in found.items() if message.customer_message_id in (None, one)}

    async def to_phone(
        self, workspace: str, number: str, before_ms: int, count: int, keep: Callable[[StoredMessage], bool]
    ) -> list[StoredMessage]:
        """The latest messages to a number that were sent before a time, the latest first; of those that are to be kept."""
        return await self._latest(
            workspace, self._keys.status_phone(workspace, number), before_ms, count, keep
        )

    async def with_reference(
        self, workspace: str, key: str, before_ms: int, count: int, keep: Callable[[StoredMessage], bool]
    ) -> list[StoredMessage]:
        """The same of messages with a reference key."""
        zset = self._keys.status_reference(workspace, reference_digest(key))
        return await self._latest(
            workspace, zset, before_ms, count, lambda one: one.reference.get("key") == key and keep(one)
        )

    async def campaign(self, workspace: str, campaign: str) -> Campaign | None:
        """A campaign's counts, or None: unknown to this workspace, or forgotten."""
        with translated(self._url):
            fields = await self._client.hgetall(self._keys.status_campaign(workspace, campaign))
        if not fields:
            return None
        started = int(fields.pop(b"started", 0))
        return Campaign(campaign, started, {Status(s.decode()): int(n) for s, n in fields.items() if int(n)})

    async def recipients(self, workspace: str, campaign: str, skip: int, count: int) -> list[StoredMessage]:
        """Some of a campaign's messages, in the order in which they were first heard of; forgotten ones are left out."""
        with translated(self._url):
            key = self._keys.status_recipients(workspace, campaign)
            uuids = await self._client.lrange(key, skip, skip + count - 1)
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
        keep: Callable[[StoredMessage], bool] | None = None,
    ) -> list[StoredMessage]:
        """Some of the messages of a channel that were sent between two times (both inclusive), the earliest ten minutes first.

        Within ten minutes they come in the order in which they were first heard of. Reaches back as far as the
        retention. Raises InvalidInput where it would have to look at too many.
        """
        from_ms, to_ms = max(from_ms, now_ms - self._retention_ms), min(to_ms, now_ms + MAX_AHEAD_MS)
        if from_ms > to_ms:
            return []
        slots = await self._slots(workspace, channel, range(from_ms // SLOT_MS, to_ms // SLOT_MS + 1))
        found: list[StoredMessage] = []
        looked_at = 0
        for slot, length in slots:
            whole = from_ms <= slot * SLOT_MS and (slot + 1) * SLOT_MS <= to_ms
            start = min(skip, length) if whole and keep is None else 0
            skip -= start
            async for one in self._of_slot(workspace, channel, slot, start):
                looked_at += 1
                if not from_ms <= one.sent_ms <= to_ms or (keep and not keep(one)):
                    continue
                if skip:
                    skip -= 1
                    continue
                found.append(one)
                if len(found) == count:
                    return found
            if looked_at > MAX_LOOKED_AT:
                raise InvalidInput(
                    f"more than {MAX_LOOKED_AT:,} messages lie in that time before what was asked for: narrow it"
                )
        return found

    async def _slots(self, workspace: str, channel: str, slots: Iterable[int]) -> list[tuple[int, int]]:
        """Those that have messages, with how many."""
        slots = list(slots)
        pipe = self._client.pipeline(transaction=False)
        for slot in slots:
            pipe.llen(self._keys.status_time(workspace, channel, slot))
        with translated(self._url):
            lengths = await pipe.execute()
        return [(slot, length) for slot, length in zip(slots, lengths, strict=True) if length]

    async def _of_slot(
        self, workspace: str, channel: str, slot: int, start: int
    ) -> AsyncIterator[StoredMessage]:
        key = self._keys.status_time(workspace, channel, slot)
        while True:
            with translated(self._url):
                uuids = await self._client.lrange(key, start, start + PAGE - 1)
            for one in await self.get_many(workspace, [uuid.decode() for uuid in uuids]):
                yield one
            if len(uuids) < PAGE:
                return
            start += PAGE

    async def _latest(
        self, workspace: str, zset: str, before_ms: int, count: int, keep: Callable[[StoredMessage], bool]
    ) -> list[StoredMessage]:
        found: list[StoredMessage] = []
        start = 0
        while len(found) < count and start < MAX_LOOKED_AT:
            with translated(self._url):
                uuids = await self._client.zrevrangebyscore(
                    zset, f"({before_ms}", "-inf", start=start, num=PAGE if start else count
                )
            if not uuids:
                break
            start += len(uuids)
            known = await self.get_many(workspace, [uuid.decode() for uuid in uuids])
            found += [one for one in known if keep(one)]
        return found[:count]


def _stored(uuid: str, raw: bytes) -> StoredMessage:
    r = _unpack(raw)
    steps = [(Status(str(s)), int(at)) for s, at in zip(r.steps[::2], r.steps[1::2], strict=True)]
    return StoredMessage(
        uuid,
        Status(r.status),
        steps,
        r.sent_ms,
        r.src,
        r.dest,
        r.channel,
        _int(r.segments),
        _int(r.units),
        _int(r.attempts),
        Decimal(r.cost) if r.cost else None,
        r.currency or None,
        r.campaign_id or None,
        r.customer_message_id or None,
        r.network or None,
        _int(r.part),
        _int(r.total_parts),
        _int(r.accepted_ms),
        decode_json(r.reference.encode()) if r.reference else {},
        decode_json(r.provider.encode()) if r.provider else {},
        r.error_code or None,
        r.error_message or None,
    )


def _int(text: str) -> int | None:
    return int(text) if text else None
