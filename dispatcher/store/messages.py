"""Reads the message store: by id, phone number, reference, campaign or time range."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dispatcher.errors import InvalidInput
from dispatcher.model import MAX_AHEAD_MS, Status
from dispatcher.store.by_score import ByScore, Member, members
from dispatcher.store.command_parts import in_parts
from dispatcher.store.keys import Keys
from dispatcher.store.message_reader import BOUNDS, Bounds, Filter, Look, MessageReader, free, text, texts
from dispatcher.store.message_record import STATUSES, reference_digest
from dispatcher.store.messages_by_time import MessagesByTime, TimeSearch
from dispatcher.store.stored_message import StoredMessage
from dispatcher.store.wire import Call
from dispatcher.values import CHANNELS

TIME_DIGITS = 13
"""Digits of the largest value of a counter: ms since 1970, up to the year 2286."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign's messages by status, and its start (ms since 1970)."""

    id: str
    started_ms: int
    counts: Mapping[Status, int]

    @property
    def recipients(self) -> int:
        """The number of its messages."""
        return sum(self.counts.values())


class Messages:
    """Reads one Redis; finds only messages of the workspace asked for. Every method raises RedisUnavailable."""

    def __init__(
        self,
        call: Call,
        keys: Keys,
        url: str = "",
        retention_ms: int = 604_800_000,
        bounds: Bounds = BOUNDS,
    ) -> None:
        self._reader = MessageReader(call, keys, url, bounds)
        self._keys = keys
        self._retention_ms = retention_ms

    async def get(self, workspace: str, uuid: str) -> StoredMessage | None:
        """A message, or None: unknown to this workspace, or forgotten."""
        found = await self.get_many(workspace, [uuid])
        return found[0] if found else None

    async def get_many(self, workspace: str, uuids: Sequence[str]) -> list[StoredMessage]:
        """The messages that are known, in the order of `uuids`."""
        return await self._reader.get_many(workspace, uuids)

    async def of_customer(self, workspace: str, channel: str, ids: Sequence[str]) -> dict[str, StoredMessage]:
        """Messages by the ids that their customer knew them by on a channel; unknown ids are left out.

        If several messages had the same id, returns the one that got it most recently.
        """
        leads = await self.of_channels(workspace, channels_from(channel), ids)
        uuids = [uuid for groups in leads.values() for some in groups for uuid in some]
        known = {one.uuid: one for one in await self.get_many(workspace, list(dict.fromkeys([*uuids, *ids])))}
        return named(channel, leads, known)

    async def of_channels(
        self, workspace: str, channels: Sequence[str], ids: Sequence[str]
    ) -> dict[str, list[list[str]]]:
        """The uuids of the messages that got ids of their customer last: for each id those of each channel, one at most."""
        key = self._keys.status_customer
        listed: list[bytes | None] = []
        for some in in_parts(ids, lambda _: len(channels)):
            listed += await self._reader.ask(
                "MGET", *(key(workspace, one, id_) for id_ in some for one in channels)
            )
        rows = zip(*[iter(listed)] * len(channels), strict=True)
        return {id_: [[text(raw)] if raw else [] for raw in row] for id_, row in zip(ids, rows, strict=True)}

    async def to_phone(
        self, workspace: str, number: str, before_ms: int, count: int, keep: Filter, look: Look = free
    ) -> list[StoredMessage]:
        """The latest messages to a number that were sent before a time and that `keep` accepts, latest first.

        Raises InvalidInput if it would have to look at too many.
        """
        zset = self._keys.status_phone(workspace, number)
        return await self._latest(workspace, zset, before_ms, count, keep, look)

    async def with_reference(
        self, workspace: str, key: str, before_ms: int, count: int, keep: Filter, look: Look = free
    ) -> list[StoredMessage]:
        """The same for messages with a reference key."""
        zset = self._keys.status_reference(workspace, reference_digest(key))
        return await self._latest(workspace, zset, before_ms, count, keep, look, key)

    async def campaign(self, workspace: str, campaign: str) -> Campaign | None:
        """A campaign's counts, or None: unknown to this workspace, or forgotten."""
        flat = await self._reader.ask("HGETALL", self._keys.status_campaign(workspace, campaign))
        if not flat:
            return None
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        counts = {status: _count(fields[letter]) for letter, status in STATUSES.items() if letter in fields}
        started = _count(fields.get(b"started", b"0"))
        return Campaign(campaign, started, {status: n for status, n in counts.items() if n})

    async def recipients(self, workspace: str, campaign: str, skip: int, count: int) -> list[StoredMessage]:
        """A page of a campaign's messages, in order of their first status change; forgotten ones are left out."""
        return await self.get_many(workspace, await self.recipient_ids(workspace, campaign, skip, count))

    async def recipient_ids(self, workspace: str, campaign: str, skip: int, count: int) -> list[str]:
        """The uuids of a page of a campaign's messages, in order of their first status change."""
        key = self._keys.status_recipients(workspace, campaign)
        return texts(await self._reader.ask("LRANGE", key, skip, skip + count - 1))

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
        """A page of a channel's messages sent between two times (both inclusive), earliest ten-minute slot first.

        Within a slot they are in order of their first status change, place by place. Reaches back as far as the retention.
        A message that is in two places may be on two pages. Raises InvalidInput if it would have to look at too many.
        """
        from_ms, to_ms = max(from_ms, now_ms - self._retention_ms), min(to_ms, now_ms + MAX_AHEAD_MS)
        search = TimeSearch(workspace, channel, from_ms, to_ms, skip, count, keep, look)
        return await MessagesByTime(await self.readers(workspace), search).find()

    async def readers(self, workspace: str) -> list[MessageReader]:
        """What reads each place where messages of a workspace may lie, its home first."""
        return [self._reader]

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
        bounds = self._reader.bounds
        found: list[StoredMessage] = []
        looked_at, reading = 0, ByScore(f"({before_ms}")

        async def ask(at: str, leave_out: int, most: int) -> Sequence[Member]:
            reply = await self._reader.ask(
                "ZREVRANGEBYSCORE", zset, at, "-inf", "WITHSCORES", "LIMIT", leave_out, most
            )
            return members(reply or ())

        while len(found) < count:
            if looked_at >= bounds.looked_at:
                raise InvalidInput(
                    f"more than {bounds.looked_at:,} messages would have to be looked at: say an earlier sendDate"
                )
            listed = await reading.next(bounds.page if looked_at else count, ask)
            if not listed:
                break
            looked_at += len(listed)
            await look(len(listed))
            known = await self._reader.get_many(workspace, texts([uuid for uuid, _ in listed]), keep)
            found += [one for one in known if reference in (None, one.reference.get("key"))]
        return found[:count]


def channels_from(channel: str) -> list[str]:
    """All channels, one first: an id may have been given before the channel changed."""
    return list(dict.fromkeys((channel, *CHANNELS)))


def named(
    channel: str, leads: Mapping[str, Sequence[Sequence[str]]], known: Mapping[str, StoredMessage]
) -> dict[str, StoredMessage]:
    """Messages by their customers' ids on a channel: of the first channel whose lead is right, or else the one whose own id it is.

    leads: uuids by id, for each of `channels_from`; of several of one channel the message that was sent last counts
    """
    found: dict[str, StoredMessage] = {}
    for id_, groups in leads.items():
        for uuids in [*groups, [id_]]:
            right = [known[uuid] for uuid in uuids if uuid in known and (channel, id_) in known[uuid].names]
            if right:
                found[id_] = max(right, key=lambda one: one.sent_ms)
                break
    return found


def _count(text: bytes) -> int:
    """A counter's value; 0 for text that is no number of at most TIME_DIGITS digits."""
    return int(text) if text.isdigit() and len(text) <= TIME_DIGITS else 0
