"""For people: endpoints, workers, rejected entries, how much waits."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import redis.asyncio
import structlog

from dispatcher.model import is_time, iso
from dispatcher.rules.outcomes import REJECTIONS
from dispatcher.store.connection import translated
from dispatcher.store.keys import Keys, endpoint_id

log = structlog.get_logger()

EXPIRING_MS = 3_600_000
REJECTED_FIELDS = {"entry", "at", "reason", "detail", "workspace", "eventId", "raw"}
"""What a script of ours writes of one."""
ANSWER_BYTES = 200
"""Of an endpoint's last failed answer."""
REJECTED_AT_ONCE = 200
"""Each may have 64 kB."""


PAGE = 5000
"""Of one endpoint's callbacks that are read at once: Redis does nothing else meanwhile."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What an endpoint is doing. Times are ms since 1970."""

    id: str
    workspace: str
    url: str
    """scheme://host:port"""
    waiting: int
    """Callbacks that have not ended, with those in a worker's hands."""
    in_flight: int
    window: int | None
    failures: int
    """In a row."""
    p95_ms: int | None
    """95 of 100 attempts take less; followed in steps, over the last hundred or so."""
    paused_until_ms: int
    stopped_ms: int | None
    oldest_due_ms: int | None
    down_since_ms: int
    """0: it takes callbacks."""
    now_ms: int
    last_error: str | None = None
    """Of the last attempt that failed, unless a worker's death was to blame; it may have taken callbacks since."""
    last_failed_ms: int | None = None
    last_event_id: str | None = None
    """Whose attempt that was."""
    last_answer: str | None = None
    """The answer's first bytes, or why there was none. Read by Lookup.with_answers."""
    has_answer: bool = False

    @property
    def last_status(self) -> int | None:
        """The last failed attempt's HTTP status, if there was an answer."""
        word, _, status = (self.last_error or "").partition("_")
        return int(status) if word == "http" and status.isdigit() else None

    @property
    def is_down(self) -> bool:
        """Whether something waits for it, and it does not answer or fails."""
        return bool(self.down_since_ms and self.waiting and self.stopped_ms is None)

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
            "state": self.state,
            "waiting": self.waiting,
            "inFlight": self.in_flight,
            "window": self.window,
            "failures": self.failures,
            "p95Ms": self.p95_ms,
            "downSince": _iso(self.down_since_ms or None),
            "nextProbeAt": _iso(self.paused_until_ms or None),
            "stoppedAt": _iso(self.stopped_ms),
            "oldestDueAt": _iso(self.oldest_due_ms),
            "lastError": self.last_error,
            "lastStatus": self.last_status,
            "lastAnswer": self.last_answer,
            "lastFailedAt": _iso(self.last_failed_ms),
        }


@dataclass(frozen=True, slots=True)
class RejectedEntry:
    """A queue entry that could not be used."""

    id: str
    entry: str
    at_ms: int
    reason: str
    detail: str
    workspace: str | None
    event_id: str | None
    raw: str = field(repr=False)

    def as_json(self, *, reveal: bool = False) -> dict[str, Any]:
        """The document that `rejected list --json` prints; the entry itself only if it is to be revealed."""
        shown = {"raw": self.raw} if reveal else {}
        return shown | {
            "id": self.id,
            "entry": self.entry,
            "at": iso(self.at_ms),
            "reason": self.reason,
            "detail": self.detail,
            "workspace": self.workspace,
            "eventId": self.event_id,
        }


class Lookup:
    """Reads one Redis. Every method raises RedisUnavailable."""

    def __init__(self, client: "redis.asyncio.Redis", keys: Keys, url: str = "") -> None:
        self._client: Any = client
        self._keys = keys
        self._url = url

    async def now_ms(self) -> int:
        """Redis's clock, ms since 1970."""
        with translated(self._url):
            seconds, microseconds = await self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def format(self) -> str:
        """The number of the format of what is in Redis; empty where there is none."""
        with translated(self._url):
            found = await self._client.get(self._keys.format)
        return (found or b"").decode()

    async def waiting(self) -> tuple[int, int]:
        """How many status changes are on the queue, and how many callbacks have not come to their end."""
        pipe = self._client.pipeline(transaction=False)
        pipe.xlen(self._keys.events)
        pipe.zcard(self._keys.expiries)
        with translated(self._url):
            queued, pending = await pipe.execute()
        return queued, pending

    async def installation(self) -> dict[str, Any]:
        """Figures that are not of one worker, for metrics: counts, ages in seconds, bytes."""
        queued, waiting = await self.waiting()
        endpoints = await self.endpoints()
        with translated(self._url):
            first = await self._client.xrange(self._keys.events, count=1)
            memory = await self._client.info("memory")
            now_ms = await self.now_ms()
            expiring = await self._client.zcount(self._keys.expiries, now_ms, now_ms + EXPIRING_MS)
        due = [
            e.oldest_due_ms for e in endpoints if e.oldest_due_ms and e.stopped_ms is None and not e.is_down
        ]
        down = [e.down_since_ms for e in endpoints if e.is_down]
        return {
            "queued": queued,
            "queue_age": max(0.0, now_ms - int(first[0][0].split(b"-")[0])) / 1000 if first else 0.0,
            "waiting": waiting,
            "due": max(0.0, now_ms - min(due, default=now_ms)) / 1000,
            "down": max(0.0, now_ms - min(down, default=now_ms)) / 1000,
            "expiring": expiring,
            "workers": len(await self.workers()),
            "memory": memory["used_memory"],
            "maxmemory": memory["maxmemory"],
            "endpoints": Counter(one.state for one in endpoints),
            "rejected": dict.fromkeys(REJECTIONS, 0) | await self.rejected_counts(),
        }

    async def rejected(
        self, limit: int = 100, match: Callable[[RejectedEntry], bool] = lambda _: True
    ) -> list[RejectedEntry]:
        """The newest rejected entries that match, newest first."""
        chosen: list[RejectedEntry] = []
        until = "+"
        while len(chosen) < limit:
            with translated(self._url):
                found = await self._client.xrevrange(self._keys.rejected, max=until, count=REJECTED_AT_ONCE)
            entries = [_rejected(id_.decode(), fields) for id_, fields in found]
            chosen += [entry for entry in entries if entry and match(entry)]
            if len(found) < REJECTED_AT_ONCE:
                break
            until = f"({found[-1][0].decode()}"
        return chosen[:limit]

    async def remove_rejected(self, ids: Sequence[str]) -> None:
        """Removes rejected entries, by their ids in `rejected`."""
        with translated(self._url):
            await self._client.xdel(self._keys.rejected, *ids)

    async def rejected_counts(self) -> dict[str, int]:
        """How many entries were ever rejected, by reason."""
        with translated(self._url):
            counts = await self._client.hgetall(self._keys.rejected_counts)
        return {reason.decode(): int(count) for reason, count in sorted(counts.items())}

    async def workers(self) -> dict[str, dict[str, Any]]:
        """Workers that gave a sign of life in the last 15 s, by name; `signedMs`: when, ms since 1970 by Redis's clock."""
        with translated(self._url):
            found = await self._client.zrange(self._keys.workers, 0, -1, withscores=True)
            names = [name.decode() for name, _ in found]
            signs = await self._client.mget([self._keys.worker(name) for name in names]) if names else []
        return {
            name: json.loads(sign) | {"signedMs": int(at)}
            for name, sign, (_, at) in sorted(zip(names, signs, found, strict=True))
            if sign
        }

    async def endpoints(self) -> list[Endpoint]:
        """All endpoints that were used within the retention, those with the most waiting first, without answers."""
        with translated(self._url):
            ids = [id_.decode() for id_ in await self._client.zrange(self._keys.endpoints, 0, -1)]
        found = [await self._endpoints(ids[first : first + 500]) for first in range(0, len(ids), 500)]
        return sorted(
            (one for some in found for one in some), key=lambda one: (-one.waiting, one.workspace, one.url)
        )

    async def endpoint(self, name: str) -> Endpoint | None:
        """The endpoint of a name (workspace, blank, origin), or None: nothing was accepted for it yet."""
        found = await self._endpoints([endpoint_id(name)])
        return found[0] if found else None

    async def with_answers(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """The same, each with the answer of its last failed attempt, if it is kept still."""
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
        """What waits at an endpoint and is not due: eventIds and due times (ms since 1970), the longest due first."""
        found: list[tuple[str, float]] = []
        with translated(self._url):
            while len(found) % PAGE == 0:  # Redis is held by one page at a time
                page = await self._client.zrangebyscore(
                    self._keys.lane(endpoint.id),
                    f"({endpoint.now_ms}",
                    "+inf",
                    len(found),
                    PAGE,
                    withscores=True,
                )
                found += [(event_id.decode(), due) for event_id, due in page]
                if not page:
                    break
        return found

    async def next_url(self, endpoint: Endpoint) -> str | None:
        """The URL of the callback that is next at an endpoint, or in flight; None where none is."""
        lane, leased = self._keys.lane(endpoint.id), self._keys.leased(endpoint.id)
        with translated(self._url):
            found = await self._client.zrange(lane, 0, 0) or await self._client.zrange(leased, 0, 0)
            body = (
                await self._client.get(self._keys.body(endpoint.workspace, found[0].decode()))
                if found
                else None
            )
        return body.partition(b"\n")[0].decode() if body else None

    async def _endpoints(self, ids: Sequence[str]) -> list[Endpoint]:
        names = (
            "name",
            "waiting",
            "window",
            "failures",
            "p95",
            "pause",
            "stopped",
            "down_since",
            "last_failure",
        )
        pipe = self._client.pipeline(transaction=False)
        for id_ in ids:
            pipe.hmget(self._keys.endpoint(id_), names)
            pipe.zcard(self._keys.leased(id_))
            pipe.zrange(self._keys.lane(id_), 0, 0, withscores=True)
        with translated(self._url):
            now_ms = await self.now_ms()
            replies = await pipe.execute()
        found = zip(ids, replies[::3], replies[1::3], replies[2::3], strict=True)
        return [_endpoint(id_, h, in_flight, first, now_ms) for id_, h, in_flight, first in found if h[0]]


def _endpoint(
    id_: str,
    fields: Sequence[bytes | None],
    in_flight: int,
    first: Sequence[tuple[bytes, float]],
    now_ms: int,
) -> Endpoint:
    name, waiting, window, failures, p95, pause, stopped, down_since, last_failure = fields
    workspace, _, url = (name or b"").decode().partition(" ")
    return Endpoint(
        id_,
        workspace,
        url,
        int(waiting or 0),
        in_flight,
        int(window) if window else None,
        int(failures or 0),
        round(float(p95)) if p95 else None,
        int(pause or 0),
        int(stopped) if stopped else None,
        int(first[0][1]) if first else None,
        int(down_since or 0),
        now_ms,
        *_last_failure(last_failure),
    )


def _last_failure(raw: bytes | None) -> tuple[str | None, int | None, str | None, None, bool]:
    """Error, time and eventId, no answer yet, and whether one is kept, as lua/lib/breaker.lua writes them."""
    found = re.fullmatch(rb"(\d{1,13}) (\w+) ([01]) (\S+)", raw or b"")
    if not found:  # there was none, or somebody wrote over it
        return None, None, None, None, False
    at, error, answered, event_id = (one.decode(errors="replace") for one in found.groups())
    return error, int(at), event_id, None, answered == "1"


def _iso(ms: int | None) -> str | None:
    return None if ms is None else iso(ms)


def _rejected(id_: str, fields: dict[bytes, bytes]) -> RejectedEntry | None:
    """A rejected entry; None, and a line in the log, for what no script of ours wrote: it hides no other one."""
    h = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in fields.items()}
    if not h.keys() >= REJECTED_FIELDS or not (h["at"].isdigit() and is_time(int(h["at"][:20]))):
        log.error("rejected.unreadable", entry=id_, action="XDEL it from `rejected`")
        return None
    return RejectedEntry(
        id_,
        h["entry"],
        int(h["at"]),
        h["reason"],
        h["detail"],
        h["workspace"] or None,
        h["eventId"] or None,
        h["raw"],
    )
