"""The ledger: one typed method per Lua script. What is true about callbacks is decided in there."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import islice
from typing import Any

import structlog
from redis.exceptions import ResponseError

from dispatcher.errors import EndpointBroken, InvalidInput, NotLeader, RedisUnavailable
from dispatcher.model import LETTERS
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.callback import Callback
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import Delivered, Expired, Failed, Released, Retry
from dispatcher.store.connection import translated
from dispatcher.store.entry import write_record
from dispatcher.store.keys import Keys, endpoint_id
from dispatcher.store.replies import (
    Accepted,
    Claim,
    Ended,
    Lost,
    Settled,
    Settlement,
    Swept,
    ToSettle,
    Woken,
    read_claimed,
    read_ended,
    read_hints,
    read_lost,
)
from dispatcher.store.scripts import Scripts
from dispatcher.store.wire import Argument, Call

RETRIED_AT_ONCE = 500
OF_DATA = "WRONGTYPE", "not an integer", "not a valid float", "attempt to ", "bad argument"
"""What Redis and Lua say of a key that is not of the type it should be, or has text where a number should be."""
ASIDE_MS = 604_800_000
"""How long what somebody wrote over by hand is kept, as in lua/aside.lua."""

HINT_MS = 5000
"""How long an endpoint that was hinted is not hinted again; also how long a lost hint costs at most."""


@dataclass(frozen=True)
class LedgerOptions:
    """What the scripts need to know from the settings."""

    max_concurrency: int = 20
    max_waiting: int = 0
    """For one endpoint; 0: no limit."""
    retention_ms: int = 604_800_000
    lease_ms: int = 30_000
    delivered_body_ms: int = 3_600_000
    breaker_failures: int = 10
    breaker_pause_ms: int = 10_000
    breaker_max_pause_ms: int = 600_000


class ToAccept:
    """Callbacks with their queue entries, and what is said of messages, as the script takes them."""

    def __init__(self, callbacks: Iterable[tuple[str, Callback]] = ()) -> None:
        self.count = 0
        self.endpoints: dict[str, str] = {}
        """By their names."""
        self.arguments: list[Argument] = []
        self.said: list[Argument] = []
        """Retention, then what message_record.py makes of each status change."""
        for entry, callback in callbacks:
            self.add(entry, callback)

    def add(self, entry: str, callback: Callback) -> None:
        """One more."""
        self.count += 1
        endpoint = self.endpoints[callback.endpoint] = endpoint_id(callback.endpoint)
        self.arguments += (
            entry,
            callback.workspace,
            callback.event_id,
            f"{callback.digest} {callback.event_type} {LETTERS[callback.status]}",
            endpoint,
            callback.message_uuid,
            f"{max(callback.timestamp_ns, 0):022d}",
            callback.ttl_ms,
            callback.url.encode() + b"\n" + callback.body,
            "" if callback.to_delivered_ms is None else callback.to_delivered_ms,
        )


@dataclass(frozen=True, slots=True)
class Room:
    """How much of what accept takes in this worker can serve at once."""

    claims: int = 0
    """Callbacks to lease to it."""
    of_each: Mapping[str, int] = field(default_factory=dict)
    """Most of those of a workspace; one that is not there: any."""
    hints: int = 1_000_000
    """Most endpoints of one workspace to hint; the waker finds the others."""


class Stopped(Enum):
    """What became of stopping an endpoint, or letting it go on."""

    CHANGED = "changed"
    SAME = "same"
    """It was so already."""
    UNKNOWN = "unknown"
    """There is no such endpoint."""


@dataclass(frozen=True, slots=True)
class Retried:
    """What retrying an endpoint changed. Times are ms since 1970, 0: not so."""

    pause_ended_ms: int = 0
    """When the pause was to end that has ended now: one callback goes out, as the probe."""
    probe_ends_ms: int = 0
    """A probe was under way already: when it ends at the latest."""
    made_due: int = 0
    """Callbacks that waited for their next attempt."""
    stopped: bool = False
    """The operator had stopped the endpoint: nothing was changed."""

    @property
    def changed(self) -> bool:
        """Whether anything was."""
        return bool(self.pause_ended_ms or self.made_due)


log = structlog.get_logger()


class Ledger:
    """The scripts of one Redis.

    `on_end` is told of each callback that a script ended otherwise than delivered. `clock` replaces
    Redis's TIME in tests (ms since 1970).
    """

    def __init__(
        self,
        call: Call,
        keys: Keys,
        url: str = "",
        options: LedgerOptions | None = None,
        clock: Callable[[], int] | None = None,
        on_end: Callable[[Ended], None] | None = None,
    ) -> None:
        self.keys = keys
        self.options = options or LedgerOptions()
        self._call = call
        self._scripts = Scripts(call, keys, url)
        self._clock = clock
        self._on_end = on_end
        self.on_broken: Callable[[str, Sequence[str]], None] = lambda *_: None
        """Is told what Redis said of a key that is not of the type it should be, and of which endpoints, where that is known."""
        self._redis_minus_monotonic: float | None = None

    def now_ms(self) -> int:
        """Redis's clock, carried on by our monotonic one since the last script was sent.

        Raises RedisUnavailable before the first reply.
        """
        if self._clock:
            return self._clock()
        if self._redis_minus_monotonic is None:
            raise RedisUnavailable("Redis has not answered yet")
        return int(self._redis_minus_monotonic + time.monotonic() * 1000)

    async def lead(self, token: str, lease_ms: int, *, full: bool = False, renew: bool = False) -> int | None:
        """Takes the lease of intake, or renews it: entries read but not accepted, or None if another leads.

        With `renew` also None if the lease ran out: another may have led meanwhile.
        """
        reply, _ = await self._run("lead", self._now(), token, lease_ms, int(full), int(renew))
        return reply[2] if reply[0] == b"leading" else None

    async def accept(
        self,
        token: str,
        revisions: dict[str, str],
        skipped: Sequence[tuple[str, str]],
        callbacks: ToAccept,
        room: Room | None = None,
    ) -> Accepted:
        """Takes callbacks (with their queue entries) into the ledger, and `skipped` entries (with their workspaces) off the queue.

        Leases callbacks of endpoints that are ready to this worker at once, as far as there is room.
        Raises NotLeader, RedisFull, RedisUnavailable.
        """
        options, room = self.options, room or Room()
        args: list[Argument] = [
            token,
            HINT_MS,
            room.claims,
            options.lease_ms,
            room.hints,
            options.max_waiting,
        ]
        args.append(len(revisions))
        for workspace, revision in revisions.items():
            args += (workspace, revision, room.of_each.get(workspace, room.claims))
        args.append(len(skipped))
        for entry, workspace in skipped:
            args += (entry, workspace)
        args.append(len(callbacks.endpoints))
        for name, endpoint in callbacks.endpoints.items():
            args += (endpoint, name)
        args.append(callbacks.count)
        args += callbacks.arguments
        args += callbacks.said
        reply, sent = await self._run("accept", *self._ending(), *args)
        if reply[0] != b"accepted":
            raise NotLeader
        _, _, hints, words, recorded, problem, changed, broken, given = reply[:9]
        rest = iter(reply[9:])
        claims = [self._claim(rest, sent) for _ in range(given)]
        self._tell(rest)
        said = words.decode().split()
        of_each = callbacks.arguments[4::10]
        self._tell_broken(broken, [str(e) for e, word in zip(of_each, said, strict=True) if word == "broken"])
        return Accepted(
            read_hints(hints.split()),
            said,
            recorded.decode().split(),
            problem.decode(),
            [(e, claim) for e, claim in claims if claim.callbacks or claim.more or claim.wait_ms],
            changed.decode().split(),
        )

    async def reject(self, token: str, entries: Iterable[tuple[str, str, str, str, str]]) -> list[str]:
        """Keeps entries in `rejected`: (entry, reason, detail, workspace, eventId) each. Raises NotLeader.

        Returns those that could not be kept, and stay on the queue.
        """
        args = [field for entry in entries for field in entry]
        reply, _ = await self._run("reject", self._now(), token, self.options.retention_ms, *args)
        if reply[0] != b"rejected":
            raise NotLeader
        self._tell_broken(reply[3])
        return [entry.decode() for entry in reply[2].split()]

    async def claim(self, endpoint: str, count: int) -> Claim:
        """Leases up to `count` due callbacks of an endpoint to this worker."""
        args = (*self._ending(), endpoint, count, self.options.lease_ms, HINT_MS)
        try:
            reply, sent = await self._run("claim", *args)
        except ResponseError as error:
            self._tell_damage(str(error), [endpoint])
            raise
        rest = iter(reply[2:])
        _, claimed = self._claim(rest, sent)
        self._tell(rest)
        return claimed

    def _claim(self, values: Iterator[bytes], sent: float) -> tuple[str, Claim]:
        """What lua/claiming.lua gave: the endpoint, and its callbacks."""
        endpoint, more, wait_ms, count, revision, name = next(values).decode().split(" ", 5)
        called = EndpointName.parse(name)
        callbacks = [read_claimed(next(values), next(values)) for _ in range(int(count))]
        lease_ends_at = sent + self.options.lease_ms / 1000
        return endpoint, Claim(
            more == "more", int(wait_ms), called.workspace, called.origin, revision, callbacks, lease_ends_at
        )

    async def settle(self, asked: Sequence[ToSettle]) -> list[Settled | EndpointBroken]:
        """Records outcomes of several endpoints at once, in one call. Raises RedisUnavailable: it may have been done then."""
        o = self.options
        args: list[Argument] = [HINT_MS, o.delivered_body_ms, o.breaker_failures, o.breaker_pause_ms]
        args += (o.breaker_max_pause_ms, o.lease_ms)
        for one in asked:
            args += (one.endpoint, one.claim, len(one.settlements))
            for s in one.settlements:
                word, delay_ms = _word(s)
                made = s.attempt if s.attempt and s.attempt.own_fault is None else None
                started, record = (made.started_at_ms, write_record(made)) if made else ("", "")
                answer = s.attempt.answer if s.attempt and word != "delivered" else b""
                args += (s.event_id, s.claim, word, delay_ms, started, record, answer, s.news, s.pace_ms)
        reply, sent = await self._run("settle", *self._ending(), *args)
        rest = iter(reply[2:])
        settled = [self._settled(one.endpoint, rest, sent) for one in asked]
        self._tell(rest)
        return settled

    def _settled(self, endpoint: str, values: Iterator[bytes], sent: float) -> Settled | EndpointBroken:
        what, _, rest = next(values).decode().partition(" ")
        if what == "broken":
            self._tell_damage(rest, [endpoint])
            return EndpointBroken(rest)
        breaker, pause, down_since, *words = rest.split(" ")
        claim = self._claim(values, sent)[1] if what == "claimed" else None
        return Settled(
            what == "more", [word == "ok" for word in words], breaker, int(pause), int(down_since), claim
        )

    async def replay(
        self, workspace: str, event_id: str, *, copy: str = "", in_ms: int = 0, ttl_ms: int = 172_800_000
    ) -> str:
        """Sends a callback that has ended once more, due `in_ms` from now; as `copy`, where an eventId for it is given.

        Returns `replayed`, or why not: unknown, not_ended, no_body, superseded, busy, full. Raises RedisFull.
        """
        reply, _ = await self._run(
            "replay", *self._ending(), workspace, event_id, copy, in_ms, ttl_ms, self.options.max_waiting
        )
        return str(reply[0].decode())

    async def cancel(self, endpoint: str, event_ids: Sequence[str]) -> int:
        """Ends callbacks of one endpoint that wait, as failed; how many. Those in a worker's hands are left alone."""
        reply, _ = await self._run("cancel", *self._ending(), endpoint, *event_ids)
        self._tell(iter(reply[3:]))
        return int(reply[2])

    async def forget(self, workspace: str, event_ids: Sequence[str]) -> int:
        """Removes callbacks that have ended from the ledger; how many."""
        reply, _ = await self._run("forget", self._now(), workspace, *event_ids)
        return int(reply[2])

    async def move(
        self, workspace: str, from_url: str, url: str, endpoint: str, event_ids: Sequence[str]
    ) -> int:
        """Gives waiting callbacks to `from_url` (in order of acceptance) another URL, of the endpoint of that name.

        Returns how many. Those in a worker's hands are left alone. Raises RedisFull.
        """
        before = endpoint_id(EndpointName(workspace, parse_callback_url(from_url, allow_http=True).origin))
        args = workspace, url, endpoint_id(endpoint), endpoint, from_url, before, *event_ids
        reply, _ = await self._run("move", *self._ending(), *args)
        self._tell(iter(reply[3:]))
        return int(reply[2])

    async def requeue(self, ids: Sequence[str]) -> tuple[int, int]:
        """Puts rejected entries back on the queue; how many, and how many could not be. Raises RedisFull."""
        reply, _ = await self._run("requeue", self._now(), *ids)
        return reply[2], reply[3]

    async def stop(self, endpoint: str, *, going: bool = False) -> Stopped:
        """Stops an endpoint, or lets it go on."""
        args = (
            self._now(),
            self.options.max_concurrency,
            self.options.retention_ms,
            endpoint,
            int(not going),
        )
        reply, _ = await self._run("stop", *args)
        return Stopped.UNKNOWN if reply[0] == b"unknown" else Stopped.CHANGED if reply[2] else Stopped.SAME

    async def retry(self, endpoint: str, later: Sequence[tuple[str, float]] = ()) -> Retried | None:
        """Has an endpoint probed now if it pauses, and makes due what waits for its next attempt; None if there is none of that id.

        `later`: eventIds and due times, the longest due first (Endpoints.later). Some at a time, so that others get a word in.
        """
        total = Retried()
        for first in range(0, max(len(later), 1), RETRIED_AT_ONCE):
            some = later[first : first + RETRIED_AT_ONCE]
            pairs = [value for event_id, due in some for value in (event_id, repr(due))]
            behind = len(later) - first - len(some)
            args = self._now(), self.options.max_concurrency, endpoint, int(first == 0), behind, *pairs
            reply, _ = await self._run("retry", *args)
            if reply[0] == b"unknown":
                return None
            if reply[0] == b"stopped":
                return replace(total, stopped=True)
            total = Retried(
                total.pause_ended_ms or reply[2], reply[3], total.made_due + reply[4], stopped=False
            )
        return total

    async def hurry(self, endpoint: str) -> None:
        """Makes everything that waits in an endpoint's lane due now, and ends its pauses."""
        await self._run("hurry", *self._ending(), endpoint)

    async def wake(self, limit: int = 100, worker: str = "", sign: str = "") -> Woken:
        """Looks at up to `limit` endpoints whose time has come.

        `sign`, if any, is kept as the sign of life of `worker`.
        """
        options = self.options
        reply, _ = await self._run("wake", self._now(), options.max_concurrency, limit, HINT_MS, worker, sign)
        self._tell_broken(reply[8])
        return Woken(
            read_hints(reply[2]),
            await self._readable(reply[3]),
            reply[4],
            reply[5],
            reply[6] == 1,
            reply[7].decode(),
            reply[9] == 1,
        )

    async def _readable(self, found: Sequence[Sequence[bytes]]) -> list[Lost]:
        """Of the callbacks whose leases ran out those that are what we write; the others are set aside: nobody could settle them."""
        lost = []
        for endpoint, name, event_id, raw in found:
            try:
                lost.append(read_lost(endpoint, name, event_id, raw))
            except InvalidInput as error:
                key = self.keys.event(EndpointName.parse(name.decode()).workspace, event_id.decode())
                log.error("redis.key_set_aside", key=key, problem=str(error))
                aside = f"{self.keys.root}aside:{key.removeprefix(self.keys.root)}"
                with translated(""):
                    await self._call("RENAME", key, aside)
                    await self._call("PEXPIRE", aside, ASIDE_MS)
        return lost

    async def leave(self, worker: str) -> None:
        """Takes back the sign of life of a worker that ends."""
        await self._run("leave", self._now(), worker)

    async def expire(self, limit: int = 500) -> int:
        """Ends what is past its expiry; returns how many were looked at (fewer than `limit`: none left)."""
        reply, _ = await self._run("expire", *self._ending(), limit)
        self._tell_broken(reply[3])
        self._tell(iter(reply[4:]))
        return int(reply[2])

    async def sweep(self, cursor: str, count: int) -> Swept:
        """Puts back what is pending and nowhere, of some `count` keys from `cursor` on (`0`: from the start)."""
        reply, _ = await self._run("sweep", *self._ending(), cursor, count)
        values = iter([value.decode() for value in reply[5:]])
        found, nameless = ([(next(values), next(values)) for _ in range(count)] for count in reply[3:5])
        return Swept(reply[2].decode(), found, nameless, list(values))

    async def mend(self, endpoints: Sequence[str] = ()) -> list[str]:
        """Sets keys aside that all endpoints share, or that are these ones', and that are not of the type they should be; which."""
        reply, _ = await self._run("mend", self._now(), *endpoints)
        return [key.decode() for key in reply[2:]]

    async def migrate(self, limit: int, format_: int) -> tuple[int, str]:
        """Brings what is in Redis to this format: how many endpoints are left to move, and the format that is there now."""
        reply, _ = await self._run("migrate", self._now(), limit, format_)
        return reply[2], reply[3].decode()

    def _tell(self, ends: Iterator[bytes]) -> None:
        """Of what ended otherwise than delivered: five values each, the last of a reply."""
        for fields in iter(lambda: tuple(islice(ends, 5)), ()):
            if self._on_end:
                with suppress(InvalidInput):  # somebody wrote over it
                    self._on_end(read_ended(*fields))

    def _tell_broken(self, problem: bytes, endpoints: Sequence[str] = ()) -> None:
        if problem:
            self.on_broken(problem.decode(errors="replace"), endpoints)

    def _tell_damage(self, problem: str, endpoints: Sequence[str]) -> None:
        """Of an error: whether it comes of what somebody wrote over by hand, as lua/guard.lua has it."""
        if any(words in problem for words in OF_DATA):
            self.on_broken(problem, endpoints)

    async def _run(self, name: str, *args: Argument) -> tuple[list[Any], float]:
        try:
            reply, sent = await self._scripts.run(name, *args)
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            self.on_broken(str(error), ())  # a key that all share: until it is mended nobody gets on
            raise RedisUnavailable(f"a key in Redis is not of the type it should be: {error}") from error
        if self._clock is None:
            self._redis_minus_monotonic = reply[1] - sent * 1000
        return reply, sent

    def _now(self) -> Argument:
        return self._clock() if self._clock else ""

    def _ending(self) -> tuple[Argument, Argument, Argument]:
        return self._now(), self.options.max_concurrency, self.options.retention_ms


def _word(s: Settlement) -> tuple[str, int]:
    match s.outcome:
        case Delivered():
            return "delivered", 0
        case Retry(delay_ms):
            return ("suspect" if s.losses > 1 else "lost" if s.losses else "retry"), delay_ms
        case Failed():
            return "failed", 0
        case Expired():
            return "expired", 0
        case Released(delay_ms):
            return "released", delay_ms
