"""Reads endpoints: state, waiting callbacks, last failed attempt."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis.asyncio

from dispatcher.codec import iso_or_none
from dispatcher.errors import InvalidInput
from dispatcher.model import LONGEST_TTL_SECONDS
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.endpoint_name import EndpointName, subscription_of
from dispatcher.rules.subscription import ACTIVE, DISABLED, PAUSED
from dispatcher.store.by_score import ByScore, Member
from dispatcher.store.connection import redis_now_ms, translated
from dispatcher.store.damaged import naming, number, of_type, real, reply, time_ms
from dispatcher.store.kept_body import url_of
from dispatcher.store.keys import Keys, endpoint_id

ANSWER_BYTES = 200
"""Bytes shown of an endpoint's last failed answer."""
PAGE = 5000
"""Callbacks of one endpoint read per command: Redis does nothing else meanwhile."""
READ_AT_ONCE = 100
"""Endpoints read per round trip: nothing else is done here while its replies are parsed."""
HOUR_MS = 3_600_000
FIELDS = (
    "name", "waiting", "window", "failures", "p95", "pause", "stopped", "down_since", "last_failure", "held",
)  # fmt: skip
"""Fields of an endpoint's hash that are read."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The state of an endpoint. Times are ms since 1970."""

    id: str
    workspace: str
    url: str
    """scheme://host:port"""
    waiting: int
    """Callbacks that have not ended, including those in flight."""
    in_flight: int
    window: int | None
    failures: int
    """In a row."""
    p95_ms: int | None
    """95 of 100 attempts take less; an estimate over the last hundred or so (lua/lib/breaker.lua)."""
    paused_until_ms: int
    stopped_ms: int | None
    oldest_due_ms: int | None
    down_since_ms: int
    """0: it is not down."""
    now_ms: int
    last_error: str | None = None
    """Error of the last failed attempt, `worker_lost` excepted; the endpoint may have accepted callbacks since."""
    last_failed_ms: int | None = None
    last_event_id: str | None = None
    """The callback of that attempt."""
    last_answer: str | None = None
    """First bytes of the answer, or why there was none. Filled in by Endpoints.with_answers."""
    has_answer: bool = False
    subscription: str = ""
    """Whose it is; empty: the default one's, or of a URL that came with status changes."""
    subscription_state: str = ACTIVE
    """Whether its subscription is paused or disabled. Filled in by Endpoints.with_states."""
    is_held: bool = False
    """Whether its record has it that its subscription is paused: known without reading the workspace."""
    late_since_ms: int | None = None
    """From when on its first callback can be sent: when it is due, or its pause ends. None: there is none, or a stop, a paused
    subscription or an outage holds it."""

    @property
    def name(self) -> EndpointName:
        """The endpoint's name: its workspace, url and subscription."""
        return EndpointName(self.workspace, self.url, self.subscription)

    @property
    def owner(self) -> str:
        """Whose it is: `workspace`, or `workspace.subscription`."""
        return self.name.owner

    @property
    def last_status(self) -> int | None:
        """The last failed attempt's HTTP status, if there was an answer."""
        word, _, status = (self.last_error or "").partition("_")
        return int(status) if word == "http" and status.isdigit() else None

    @property
    def is_down(self) -> bool:
        """Whether it does not answer or fails while callbacks wait for it; False if a stop or a paused subscription holds them."""
        return bool(self.down_since_ms and self.waiting and self.stopped_ms is None and not self.is_held)

    @property
    def state(self) -> str:
        """stopped (by the operator), paused (by the breaker or Retry-After), probing, waiting or idle."""
        if self.stopped_ms is not None:
            return "stopped"
        if self.paused_until_ms and self.waiting:
            return "probing" if self.in_flight or self.paused_until_ms <= self.now_ms else "paused"
        return "waiting" if self.waiting else "idle"

    def as_json(self) -> dict[str, Any]:
        """The document that `endpoint show --json` prints."""
        return {
            "endpoint": self.url,
            "workspace": self.workspace,
            **({"subscription": self.subscription} if self.subscription else {}),
            "state": self.state,
            **({"subscriptionState": self.subscription_state} if self.subscription_state != ACTIVE else {}),
            "waiting": self.waiting,
            "inFlight": self.in_flight,
            "window": self.window,
            "failures": self.failures,
            "p95Ms": self.p95_ms,
            "downSince": iso_or_none(self.down_since_ms or None),
            "nextProbeAt": iso_or_none((self.state != "idle" and self.paused_until_ms) or None),
            "stoppedAt": iso_or_none(self.stopped_ms),
            "oldestDueAt": iso_or_none(self.oldest_due_ms),
            "lastError": self.last_error,
            "lastStatus": self.last_status,
            "lastAnswer": self.last_answer,
            "lastFailedAt": iso_or_none(self.last_failed_ms),
        }


class Endpoints:
    """Reads the endpoints of one Redis, and restores lost records. Every method raises RedisUnavailable."""

    def __init__(self, client: "redis.asyncio.Redis", keys: Keys, url: str = "") -> None:
        self._client: Any = client
        self._keys = keys
        self._url = url

    async def count(self) -> int:
        """How many there are about."""
        with translated(self._url):
            return int(await self._client.zcard(self._keys.endpoints))

    async def all(self, *, strict: bool = False) -> list[Endpoint]:
        """All endpoints used within the retention, most waiting callbacks first, without answers.

        None if their key is of another type, which is logged, or `strict`, raises ResponseError.
        """
        with translated(self._url):
            asked, key = self._ids(), self._keys.endpoints
            with naming(key):
                ids = await (asked if strict else of_type(asked, key, []))
        found = [
            await self._read(ids[first : first + READ_AT_ONCE]) for first in range(0, len(ids), READ_AT_ONCE)
        ]
        return sorted(
            (one for some in found for one in some), key=lambda one: (-one.waiting, one.owner, one.url)
        )

    async def _ids(self) -> list[str]:
        scanned = self._client.zscan_iter(self._keys.endpoints, count=READ_AT_ONCE)
        found = {id_.decode(errors="replace"): None async for id_, _ in scanned}  # a scan may give one twice
        return list(found)

    async def get(self, name: EndpointName) -> Endpoint | None:
        """The endpoint of that name, with its subscription's state; or None if there is no record of it."""
        found = await self.with_states(await self._read([endpoint_id(name)]))
        return found[0] if found else None

    async def with_states(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """The same endpoints, each with the state of its subscription."""
        states = await self.states(one.name for one in endpoints)
        return [
            one if one.subscription_state == state else replace(one, subscription_state=state)
            for one in endpoints
            for state in (states[one.name],)
        ]

    async def states(self, names: Iterable[EndpointName]) -> dict[EndpointName, str]:
        """The state of the subscription that each endpoint is of: active, paused or disabled.

        One that is disabled only ends what goes to its own server; a default one's other endpoints are of URLs that
        came with status changes.
        """
        of: dict[tuple[str, str], dict[EndpointName, None]] = {}
        for name in names:
            of.setdefault((name.workspace, name.subscription), {})[name] = None
        asked, found = list(of), dict[EndpointName, str]()
        for first in range(0, len(asked), READ_AT_ONCE):
            some = asked[first : first + READ_AT_ONCE]
            pipe = self._client.pipeline(transaction=False)
            for workspace, subscription in some:
                suffix = f":{subscription}" if subscription else ""
                pipe.hmget(self._keys.workspace(workspace), f"state{suffix}", f"callback_url{suffix}")
            with translated(self._url):
                replies = await pipe.execute(raise_on_error=False)
            for one, fields in zip(some, replies, strict=True):
                state, url = reply(fields, self._keys.workspace(one[0]), (None, None))
                found |= {name: _state(name, state, url) for name in of[one]}
        return found

    async def with_answers(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """The same endpoints, each with the answer of its last failed attempt if that is still kept."""
        asked = [one for one in endpoints if one.has_answer]
        pipe = self._client.pipeline(transaction=False)
        for one in asked:
            pipe.getrange(self._keys.answer(one.workspace, one.last_event_id or ""), 0, ANSWER_BYTES - 1)
        with translated(self._url):
            replies = await pipe.execute() if asked else []
        answers = {
            one.id: answer.decode(errors="replace") for one, answer in zip(asked, replies, strict=True)
        }
        return [replace(one, last_answer=answers.get(one.id) or None) for one in endpoints]

    async def later(self, endpoint: Endpoint) -> list[tuple[str, float]]:
        """Callbacks in an endpoint's lane that are not due yet: eventId and due time (ms since 1970), soonest first."""

        async def ask(at: str, start: int, num: int) -> Sequence[Member]:
            found: Sequence[Member] = await self._client.zrangebyscore(
                self._keys.lane(endpoint.id), at, "+inf", start, num, withscores=True
            )
            return found

        reading, found = ByScore(f"({endpoint.now_ms}"), list[tuple[str, float]]()
        with translated(self._url):
            while not reading.is_last:  # in pages, so that Redis is not blocked for long
                page = await reading.next(PAGE, ask)
                found += [(event_id.decode(errors="replace"), due) for event_id, due in page]
        return found

    async def next_url(self, endpoint: Endpoint) -> str | None:
        """The URL of an endpoint's next callback, or of one in flight; None if there is none."""
        lane, leased = self._keys.lane(endpoint.id), self._keys.leased(endpoint.id)
        with translated(self._url):
            found = await self._client.zrange(lane, 0, 0) or await self._client.zrange(leased, 0, 0)
            body = (
                await self._client.get(self._keys.body(endpoint.workspace, found[0].decode()))
                if found
                else None
            )
        return url_of(body) if body else None

    async def restore(
        self, endpoint: str, workspace: str, event_id: str, now_ms: int, retention_ms: int = 604_800_000
    ) -> bool:
        """Restores the name of an endpoint (by id) whose record is gone or damaged, from a callback's URL, and schedules it.

        The record is kept as long as one that accept has just made (lua/lib/batch.lua). Returns False, having changed
        nothing, if that callback's URL is gone or belongs to another endpoint.
        """
        keep_ms = LONGEST_TTL_SECONDS * 1000 + HOUR_MS + retention_ms
        with translated(self._url):
            body = await self._client.get(self._keys.body(workspace, event_id))
        url = url_of(body or b"")
        try:
            origin = parse_callback_url(url, allow_http=True).origin
            name = EndpointName(workspace, origin, subscription_of(event_id))
        except InvalidInput:
            return False
        if endpoint_id(name) != endpoint:
            return False
        with translated(self._url):
            record, waiting = self._keys.endpoint(endpoint), await self._in_lane_and_leased(endpoint)
            await self._client.hset(record, mapping={"name": str(name), "seen": 0})
            await self._client.hsetnx(record, "waiting", waiting)
            if not await self._client.hexists(record, "stopped"):
                await self._client.pexpire(record, keep_ms)
            await self._client.zadd(self._keys.endpoints, {endpoint: now_ms}, gt=True)
            await self._client.zadd(self._keys.schedule_of(workspace), {endpoint: 0})
            await self._client.zadd(self._keys.schedule, {workspace: now_ms}, lt=True)
        return True

    async def _in_lane_and_leased(self, endpoint: str) -> int:
        lane = await self._client.zcard(self._keys.lane(endpoint))
        return int(lane + await self._client.zcard(self._keys.leased(endpoint)))

    async def _read(self, ids: Sequence[str]) -> list[Endpoint]:
        """Those of the endpoints that have a readable record; leases and lanes are asked for where something waits, by the record."""
        pipe = self._client.pipeline(transaction=False)
        for id_ in ids:
            pipe.hmget(self._keys.endpoint(id_), FIELDS)
        with translated(self._url):
            now_ms = await redis_now_ms(self._client)
            replies = await pipe.execute(raise_on_error=False)
        records = {
            id_: fields
            for id_, record in zip(ids, replies, strict=True)
            if (fields := reply(record, self._keys.endpoint(id_), (None,)))[0]
        }
        # where the count is missing or damaged, something may wait
        waits = [id_ for id_, fields in records.items() if fields[1] != b"0"]
        for id_ in waits:
            pipe.zcard(self._keys.leased(id_))
            pipe.zrange(self._keys.lane(id_), 0, 0, withscores=True)
        with translated(self._url):
            replies = await pipe.execute(raise_on_error=False) if waits else []
        places = dict(zip(waits, zip(replies[::2], replies[1::2], strict=True), strict=True))
        return [
            self._endpoint(id_, fields, *places.get(id_, (0, ())), now_ms) for id_, fields in records.items()
        ]

    def _endpoint(self, id_: str, fields: Any, leased: Any, lane: Any, now_ms: int) -> Endpoint:
        """Parses the replies about an endpoint."""
        in_flight = reply(leased, self._keys.leased(id_), 0)
        return _endpoint(id_, fields, in_flight, reply(lane, self._keys.lane(id_), ()), now_ms)


def _state(name: EndpointName, state: bytes | None, url: bytes | None) -> str:
    if state == PAUSED.encode():
        return PAUSED
    if state != DISABLED.encode():
        return ACTIVE
    try:
        own = parse_callback_url((url or b"").decode(errors="replace"), allow_http=True).origin
    except InvalidInput:
        own = ""
    return DISABLED if name.subscription or own == name.origin else ACTIVE


def _endpoint(
    id_: str,
    fields: Sequence[bytes | None],
    in_flight: int,
    first: Sequence[tuple[bytes, float]],
    now_ms: int,
) -> Endpoint:
    name, waiting, window, failures, p95, pause, stopped, down_since, last_failure, held = fields
    called = EndpointName.parse((name or b"").decode(errors="replace"))
    one = Endpoint(
        id_,
        called.workspace,
        called.origin,
        number(waiting),
        in_flight,
        number(window) if window else None,
        number(failures),
        round(real(p95)) if p95 else None,
        time_ms(pause),
        time_ms(stopped) if stopped else None,
        time_ms(first[0][1]) if first else None,
        time_ms(down_since),
        now_ms,
        *_last_failure(last_failure),
        called.subscription,
        is_held=bool(held),
    )
    return replace(one, late_since_ms=_late_since_ms(one))


def _late_since_ms(one: Endpoint) -> int | None:
    if one.oldest_due_ms is None or one.stopped_ms is not None or one.is_held or one.is_down:
        return None
    return max(one.oldest_due_ms, one.paused_until_ms)


def _last_failure(raw: bytes | None) -> tuple[str | None, int | None, str | None, None, bool]:
    """Parses `last_failure` (lua/lib/breaker.lua): error, time, eventId, no answer yet, and whether one is kept."""
    found = re.fullmatch(rb"(\d{1,13}) (\w+) ([01]) (\S+)", raw or b"")
    if not found:  # none, or overwritten by hand
        return None, None, None, None, False
    at, error, answered, event_id = (one.decode(errors="replace") for one in found.groups())
    return error, int(at), event_id, None, answered == "1"
