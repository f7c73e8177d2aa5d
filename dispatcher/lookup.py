"""Reads what the ledger knows, for people: one event, a message's events, counters, workers. Changes nothing."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio

from dispatcher.connection import translated
from dispatcher.keys import Keys, endpoint_id
from dispatcher.ledger import read_record
from dispatcher.model import iso
from dispatcher.outcomes import ENDS, Attempt, State

MINUTES_OF_A_DAY = 1440


@dataclass(frozen=True, slots=True)
class Event:
    """One callback as the ledger has it. Times are ms since 1970."""

    event_id: str
    workspace: str
    endpoint: str
    """Its name: scheme://host:port."""
    message_uuid: str
    status: str
    event_type: str
    state: State
    attempts: Sequence[Attempt]
    accepted_ms: int
    expires_ms: int
    next_attempt_ms: int | None
    """None while it is in a worker's hands, behind another one of its message, or at its end."""
    ended_ms: int | None
    answer: str | None
    """The beginning of the last answer that was no 2xx, or what else somebody has to know to mend it."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDS

    def as_json(self) -> dict[str, Any]:
        """The document that `event show --json` prints; times are ISO 8601 in UTC."""
        return {
            "eventId": self.event_id,
            "workspace": self.workspace,
            "endpoint": self.endpoint,
            "messageId": self.message_uuid,
            "status": self.status,
            "eventType": self.event_type,
            "state": self.state.value,
            "attempts": [
                {
                    "number": number,
                    "startedAt": iso(attempt.started_at_ms),
                    "durationMs": attempt.duration_ms,
                    "httpStatus": attempt.http_status,
                    "error": attempt.error,
                }
                for number, attempt in enumerate(self.attempts, 1)
            ],
            "acceptedAt": iso(self.accepted_ms),
            "expiresAt": iso(self.expires_ms),
            "nextAttemptAt": _iso(self.next_attempt_ms),
            "endedAt": _iso(self.ended_ms),
            "lastAnswer": self.answer,
        }


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
    now_ms: int

    @property
    def state(self) -> str:
        """stopped (by the operator), paused (by the breaker or Retry-After), probing, waiting or idle."""
        if self.stopped_ms is not None:
            return "stopped"
        if self.paused_until_ms:
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
            "nextProbeAt": _iso(self.paused_until_ms or None),
            "stoppedAt": _iso(self.stopped_ms),
            "oldestDueAt": _iso(self.oldest_due_ms),
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

    async def event(self, workspace: str, event_id: str) -> Event | None:
        """The callback of an eventId, or None: never accepted, or forgotten after the retention."""
        with translated(self._url):
            fields = await self._client.hgetall(self._keys.event(workspace, event_id))
            if not fields:
                return None
            h = {name.decode(): value.decode() for name, value in fields.items()}
            pipe = self._client.pipeline(transaction=False)
            pipe.hget(self._keys.endpoint(h["endpoint"]), "name")
            pipe.zscore(self._keys.lane(h["endpoint"]), event_id)
            pipe.get(self._keys.answer(workspace, event_id))
            name, due, answer = await pipe.execute()
        return Event(
            event_id=event_id,
            workspace=workspace,
            endpoint=name.decode().partition(" ")[2] if name else h["endpoint"],
            message_uuid=h["message"],
            status=h["status"],
            event_type=h["type"],
            state=State(h["state"]),
            attempts=[read_record(h[f"a{n}"]) for n in range(1, int(h.get("attempts", 0)) + 1)],
            accepted_ms=int(h["accepted"]),
            expires_ms=int(h["expires"]),
            next_attempt_ms=None if due is None else int(due),
            ended_ms=int(h["ended"]) if "ended" in h else None,
            answer=None if answer is None else answer.decode(errors="replace"),
        )

    async def events_of_message(self, workspace: str, uuid: str) -> list[Event]:
        """All callbacks of one message, in order of acceptance."""
        with translated(self._url):
            ids = await self._client.get(self._keys.message(workspace, uuid)) or b""
        found = [await self.event(workspace, event_id) for event_id in ids.decode().split()]
        return [event for event in found if event]

    async def counters(self) -> Counter[str]:
        """Counters of the last 24 hours: accepted, duplicate, conflict, noCallback, rejected, and ends."""
        total: Counter[str] = Counter()
        with translated(self._url):
            seconds, _ = await self._client.time()
            pipe = self._client.pipeline(transaction=False)
            for minute in range(seconds // 60 - MINUTES_OF_A_DAY, seconds // 60 + 1):
                pipe.hgetall(self._keys.stats(minute))
            for counts in await pipe.execute():
                total.update({name.decode(): int(value) for name, value in counts.items()})
        return total

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
        due = [one.oldest_due_ms for one in endpoints if one.oldest_due_ms and one.stopped_ms is None]
        return {
            "queued": queued,
            "queue_age": max(0.0, now_ms - int(first[0][0].split(b"-")[0])) / 1000 if first else 0.0,
            "waiting": waiting,
            "due": max(0.0, now_ms - min(due, default=now_ms)) / 1000,
            "workers": len(await self.workers()),
            "memory": memory["used_memory"],
            "maxmemory": memory["maxmemory"],
            "endpoints": Counter(one.state for one in endpoints),
            "rejected": await self.rejected_counts(),
        }

    async def rejected(self, limit: int = 100) -> list[RejectedEntry]:
        """The newest rejected entries, newest first."""
        with translated(self._url):
            found = await self._client.xrevrange(self._keys.rejected, count=limit)
        return [_rejected(id_.decode(), fields) for id_, fields in found]

    async def rejected_counts(self) -> dict[str, int]:
        """How many entries were ever rejected, by reason."""
        with translated(self._url):
            counts = await self._client.hgetall(self._keys.rejected_counts)
        return {reason.decode(): int(count) for reason, count in sorted(counts.items())}

    async def workers(self) -> dict[str, dict[str, Any]]:
        """Workers that gave a sign of life in the last 15 s, by name."""
        with translated(self._url):
            names = [name.decode() for name in await self._client.zrange(self._keys.workers, 0, -1)]
            signs = await self._client.mget([self._keys.worker(name) for name in names]) if names else []
        return {name: json.loads(sign) for name, sign in sorted(zip(names, signs, strict=True)) if sign}

    async def endpoints(self) -> list[Endpoint]:
        """All endpoints that were used within the retention, those with the most waiting first."""
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

    async def _endpoints(self, ids: Sequence[str]) -> list[Endpoint]:
        names = ("name", "waiting", "window", "failures", "p95", "pause", "stopped")
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
    name, waiting, window, failures, p95, pause, stopped = fields
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
        now_ms,
    )


def _iso(ms: int | None) -> str | None:
    return None if ms is None else iso(ms)


def _rejected(id_: str, fields: dict[bytes, bytes]) -> RejectedEntry:
    h = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
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
