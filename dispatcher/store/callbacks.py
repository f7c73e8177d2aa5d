"""Reads callbacks from the ledger for display: one, those of a message, all in a state. Writes nothing."""

import heapq
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import redis.asyncio
import structlog

from dispatcher.codec import MAX_SECONDS
from dispatcher.errors import InvalidInput
from dispatcher.model import is_time
from dispatcher.rules.endpoint_name import EndpointName, callback_id, event_id_of
from dispatcher.rules.outcomes import State
from dispatcher.store.by_score import ByScore, Member
from dispatcher.store.command_parts import in_parts
from dispatcher.store.connection import translated
from dispatcher.store.damaged import of_type, reply
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.entry import Entry, read_entry
from dispatcher.store.keys import Keys
from dispatcher.store.stored_callback import Pending, StoredCallback

PAGE = 500
"""Callbacks read per round trip, at most."""
FIRST_PAGE = 72
"""Callbacks that a list reads first: somewhat more than a page shows; with the next two reads, each twice as large, they are PAGE."""
LEAST_OF_EACH = 8
"""Ends that a list of several workspaces looks up first in each: few have many of the latest."""
LISTS_AT_ONCE = 500
"""Lists of ends that are looked up per round trip."""

LISTED = (State.FAILED, State.EXPIRED, State.SUPERSEDED)
"""Final states that are listed; delivered callbacks are too many."""

Id = tuple[str, str]
"""Workspace and eventId."""

T = TypeVar("T")


class Place(NamedTuple):
    """A partition: a client for its keys, these, and its URL for error texts."""

    client: Any
    keys: Keys
    url: str


class Passed(NamedTuple):
    """Pending callbacks that were passed over because they are of others."""

    expires_ms: int
    """Up to which expiry."""
    number: int


@dataclass
class _Row:
    """The ends of one workspace, latest first: those that were looked up last."""

    workspace: str
    ends: list[Member]
    """eventIds, and when they ended."""
    asked: int
    """How many were asked for."""
    reading: ByScore
    first: int = 0
    """How many are before them."""
    place: int = 0
    """How many of them were taken."""

    @property
    def is_read(self) -> bool:
        """Whether all that were looked up were taken."""
        return self.place == len(self.ends)

    def head(self) -> tuple[float, int, str, bytes]:
        """The next one: sorts as the latest end first, and of one workspace in the order of its list."""
        event_id, ended_ms = self.ends[self.place]
        return -ended_ms, self.first + self.place, self.workspace, event_id


log = structlog.get_logger()


def _readable(id_: Id, raw: bytes, strict: bool) -> Entry | None:
    """The entry. One that cannot be read is logged and left out, so that it does not hide the others."""
    try:
        return read_entry(raw)
    except InvalidInput:
        if strict:
            raise
        log.error("event.unreadable", workspace=id_[0], event_id=id_[1])
        return None


class Callbacks:
    """Reads one Redis. Every method raises RedisUnavailable."""

    def __init__(
        self, client: "redis.asyncio.Redis", keys: Keys, url: str = "", first_page: int = FIRST_PAGE
    ) -> None:
        self._client: Any = client
        self._keys = keys
        self._url = url
        self._first_page = first_page
        """Callbacks that a list reads first; each further page is twice as large, up to PAGE."""

    async def get(self, workspace: str, event_id: str) -> StoredCallback | None:
        """The callback of an eventId, or None: never accepted, or forgotten after the retention.

        Raises InvalidInput for an unreadable entry; the lists log it and leave it out.
        """
        found = await self._read([(workspace, event_id)], strict=True)
        return found[0] if found else None

    async def known(self, ids: Sequence[Id]) -> list[StoredCallback]:
        """Those of the callbacks that there are, in no order."""
        return await self._read(ids)

    async def others(self, callback: StoredCallback) -> list[StoredCallback]:
        """The callbacks for the other subscriptions that a status change went to, if this is its own.

        Those that its own names; and those of its message, if they were accepted by a run that broke off before its own
        was, and their subscription is gone since.
        """
        if callback.subscription:
            return []
        of_message = await self._ids_of_message(callback.workspace, callback.message_uuid)
        known = [callback_id(callback.event_id, one) for one in callback.others]
        listed = [one for one in of_message if "." in one]
        ids = dict.fromkeys([*known, *(one for one in listed if event_id_of(one) == callback.event_id)])
        return await self._read([(callback.workspace, one) for one in sorted(ids)])

    async def of_message(self, workspace: str, uuid: str, last: int = 0) -> list[StoredCallback]:
        """The callbacks of one message, in order of acceptance: all, or only the `last` ones."""
        ids = await self._ids_of_message(workspace, uuid)
        return await self._read([(workspace, event_id) for event_id in ids[-last:]])

    async def waiting(
        self, workspace: str | None = None, endpoint: str | None = None, since_ms: int = 0
    ) -> AsyncIterator[StoredCallback | Passed]:
        """Unfinished callbacks, soonest expiry first: of all, of one workspace, or to one endpoint (its id).

        Between them comes how many others were passed over, so that a reader may stop.

        since_ms: the earliest expiry
        """
        async for found, end_ms in self._pages(since_ms):
            ids = [one for one in found if workspace in (None, one[0])]
            waiting = [one for one in await self._read(ids, endpoint) if not one.ended]
            for callback in waiting:
                yield callback
            if len(waiting) < len(found):
                yield Passed(end_ms, _weight(len(found) - len(ids)) + len(ids) - len(waiting))

    async def pending(self, workspace: str, endpoint: str | None = None) -> AsyncIterator[Pending]:
        """The same for one workspace, with only the fields needed to move or cancel them."""
        async for found, _ in self._pages():
            ids = [one for one in found if one[0] == workspace]
            for (_, event_id), entry in await self._entries(ids):
                if not entry.ended and endpoint in (None, entry.endpoint):
                    yield Pending(event_id, entry.endpoint, entry.message_uuid, entry.expires_ms)

    async def order(self, workspace: str, uuids: Sequence[str]) -> dict[str, list[str]]:
        """The eventIds of messages, each in order of acceptance."""
        found: dict[str, list[str]] = {}
        for some in _batched(uuids, PAGE):
            with translated(self._url):
                ids = await self._client.mget([self._keys.message(workspace, uuid) for uuid in some])
            found |= {uuid: _ids_in(of) for uuid, of in zip(some, ids, strict=True)}
        return found

    async def ended(
        self, workspaces: Sequence[str], state: State, since_ms: int = 0, until_ms: int | None = None
    ) -> AsyncIterator[StoredCallback]:
        """Callbacks that ended in `state` (one of LISTED) between two times, latest first."""
        until = "+inf" if until_ms is None else until_ms
        rows = await self._firsts(workspaces, state, since_ms, until)
        heads = [(*row.head(), n) for n, row in enumerate(rows)]
        heapq.heapify(heads)
        page: list[Id] = []
        size = self._first_page
        while heads:
            _, _, workspace, event_id, n = heads[0]
            page.append((workspace, event_id.decode(errors="replace")))
            row = rows[n]
            row.place += 1
            if row.is_read and not row.reading.is_last:
                await self._read_on(row, state, since_ms)
            if row.is_read:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (*row.head(), n))
            if len(page) == size or not heads:
                for callback in await self._read(page):
                    if callback.state is state:
                        yield callback
                page, size = [], _next_page(size)

    async def _ids_of_message(self, workspace: str, uuid: str) -> list[str]:
        """The eventIds of a message, in order of acceptance; none, if the key is of another type, which is logged."""
        key = self._keys.message(workspace, uuid)
        with translated(self._url):
            return _ids_in(await of_type(self._client.get(key), key, None))

    async def places(self, workspace: str | None) -> list[Place]:
        """Every partition that may have something of a workspace; None: all that there are."""
        return [Place(self._client, self._keys, self._url)]

    async def present_places(self, workspace: str | None) -> list[Place]:
        """The same without partitions that do not answer, which are noted. Raises RedisUnavailable if none does."""
        return await self.places(workspace)

    async def has_body(self, callback: StoredCallback) -> bool:
        """Whether its body is still kept; without it, it cannot be replayed."""
        with translated(self._url):
            return bool(await self._client.exists(self._keys.body(callback.workspace, callback.event_id)))

    async def before(self, callback: StoredCallback, endpoint: Endpoint) -> int:
        """How many callbacks are due before it in its lane."""
        with translated(self._url):
            return await self._client.zrank(self._keys.lane(endpoint.id), callback.event_id) or 0

    async def _firsts(
        self, workspaces: Sequence[str], state: State, since: int, until: int | str
    ) -> list["_Row"]:
        """The latest ends in each of the workspaces that has any."""
        size = max(LEAST_OF_EACH, self._first_page // max(1, len(workspaces)))
        found: list[_Row] = []
        for some in _batched(workspaces, LISTS_AT_ONCE):
            pipe = self._client.pipeline(transaction=False)
            for workspace in some:
                key = self._keys.ended(workspace, state)
                pipe.zrevrangebyscore(key, until, since, start=0, num=size, withscores=True)
            with translated(self._url):
                replies = await pipe.execute(raise_on_error=False)
            for workspace, replied in zip(some, replies, strict=True):
                if ends := reply(replied, self._keys.ended(workspace, state), ()):
                    from_latest = ByScore(until)
                    found.append(_Row(workspace, from_latest.take(ends, size), size, from_latest))
        return found

    async def _read_on(self, row: "_Row", state: State, since: int) -> None:
        """Looks up the next ends of a workspace."""
        size = _next_page(row.asked)
        key = self._keys.ended(row.workspace, state)

        async def ask(at: str, start: int, num: int) -> Sequence[Member]:
            found: Sequence[Member] = await self._client.zrevrangebyscore(
                key, at, since, start=start, num=num, withscores=True
            )
            return found

        row.first += len(row.ends)
        with translated(self._url):
            row.ends, row.place, row.asked = await row.reading.next(size, ask), 0, size

    async def _pages(self, since_ms: int = 0) -> AsyncIterator[tuple[list[Id], int]]:
        """The ids of unfinished callbacks, page by page, soonest expiry first; and up to which expiry each page reaches."""
        reading, size = ByScore(since_ms), self._first_page

        async def ask(at: str, start: int, num: int) -> Sequence[Member]:
            found: Sequence[Member] = await self._client.zrangebyscore(
                self._keys.expiries, at, "+inf", start=start, num=num, withscores=True
            )
            return found

        while True:
            with translated(self._url):
                found = await reading.next(size, ask)
            if not found:
                return
            size = _next_page(size)
            names = (member.decode(errors="replace").partition(":") for member, _ in found)
            yield [(name, id_) for name, _, id_ in names], int(min(found[-1][1], MAX_SECONDS * 1000))

    async def _entries(self, ids: Sequence[Id], strict: bool = False) -> list[tuple[Id, Entry]]:
        found: list[bytes | None] = []
        with translated(self._url):
            for some in in_parts(ids):
                found += await self._client.mget([self._keys.event(*one) for one in some])
        kept = [(one, raw) for one, raw in zip(ids, found, strict=True) if raw is not None]
        return [(one, entry) for one, raw in kept if (entry := _readable(one, raw, strict))]

    async def _read(
        self, ids: Sequence[Id], endpoint: str | None = None, *, strict: bool = False
    ) -> list[StoredCallback]:
        entries = [one for one in await self._entries(ids, strict) if endpoint in (None, one[1].endpoint)]
        if not entries:
            return []
        endpoints = list(dict.fromkeys(entry.endpoint for _, entry in entries))
        parts = [*in_parts(entries)]
        pipe = self._client.pipeline(transaction=False)
        for some in parts:
            pipe.mget([self._keys.answer(*id_) for id_, _ in some])
        for endpoint_id in endpoints:
            pipe.hget(self._keys.endpoint(endpoint_id), "name")
        for (_, event_id), entry in entries:
            if not entry.ended:
                pipe.zscore(self._keys.lane(entry.endpoint), event_id)
                pipe.zscore(self._keys.leased(entry.endpoint), event_id)
        with translated(self._url):
            found = iter(await pipe.execute(raise_on_error=False))
        answers = [answer for _ in parts for answer in next(found)]
        names = {one: reply(next(found), self._keys.endpoint(one), None) for one in endpoints}
        return [
            stored(*one, names[one[1].endpoint], *_scores(found, one[1]), answer)
            for one, answer in zip(entries, answers, strict=True)
        ]


def _scores(found: Iterator[Any], entry: Entry) -> tuple[float | None, float | None]:
    """When it is due, and when its lease ends; what has ended has neither."""
    return (None, None) if entry.ended else (next(found), next(found))


def _weight(others: int) -> int:
    """How many callbacks could be read in the time in which so many of other workspaces are passed over, by their names alone."""
    return others // 8


def _next_page(size: int) -> int:
    return min(2 * size, PAGE)


def _batched(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for first in range(0, len(values), size):
        yield values[first : first + size]


def stored(
    id_: Id,
    entry: Entry,
    name: bytes | None,
    due: float | None,
    lease_end: float | None,
    answer: bytes | None,
) -> StoredCallback:
    """A callback for display, from its entry and what is kept elsewhere: its endpoint's name, and the scores of its places."""
    workspace, event_id = id_
    return StoredCallback(
        event_id=event_id,
        workspace=workspace,
        endpoint=EndpointName.parse(name.decode(errors="replace")).origin if name else entry.endpoint,
        message_uuid=entry.message_uuid,
        status=entry.status,
        event_type=entry.event_type,
        state=entry.state,
        attempts=entry.attempts,
        accepted_ms=entry.accepted_ms,
        expires_ms=entry.expires_ms,
        next_attempt_ms=_ms(due),
        ended_ms=entry.ended_ms,
        answer=None if answer is None else answer.decode(errors="replace"),
        lease_ends_ms=_ms(lease_end),
        attempts_before=entry.attempts_before,
        replay_of=entry.extra.get("replay_of"),
        replayed_as=entry.extra.get("replayed_as"),
        cancelled="cancelled" in entry.extra,
        others=tuple(entry.extra["to"].split(",")) if "to" in entry.extra else (),
    )


def _ids_in(of_message: bytes | None) -> list[str]:
    return list(dict.fromkeys((of_message or b"").decode(errors="replace").split()))


def _ms(score: float | None) -> int | None:
    return int(score) if score is not None and math.isfinite(score) and is_time(int(score)) else None
