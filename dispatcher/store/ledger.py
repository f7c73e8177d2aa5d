"""The ledger: one typed method per Lua script. What is true about callbacks is decided in there."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any

import structlog
from redis.exceptions import ResponseError

from dispatcher.errors import EndpointBroken, InvalidInput, NotLeader, RedisUnavailable
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.arguments import HINT_MS, LedgerOptions, Room, ToAccept, of_accept, of_settle
from dispatcher.store.connection import translated
from dispatcher.store.keys import Keys, endpoint_id
from dispatcher.store.replies import (
    Accepted,
    Claim,
    Ended,
    Lost,
    Retried,
    Settled,
    Stopped,
    Swept,
    ToSettle,
    Woken,
    read_accepted,
    read_claim,
    read_ended,
    read_hints,
    read_lost,
    read_settled,
)
from dispatcher.store.scripts import Scripts
from dispatcher.store.wire import Argument, Call

RETRIED_AT_ONCE = 500
OF_DATA = "WRONGTYPE", "not an integer", "not a valid float", "attempt to ", "bad argument"
"""What Redis and Lua say of a key that is not of the type it should be, or has text where a number should be."""
ASIDE_MS = 604_800_000
"""How long what somebody wrote over by hand is kept, as in lua/lib/aside.lua."""


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
        self._of_all = self.options.max_concurrency, self.options.retention_ms
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
        reply, _ = await self._run("lead", token, lease_ms, int(full), int(renew))
        return reply[2] if reply[0] == b"leading" else None

    async def accept(
        self,
        token: str,
        revisions: Mapping[str, str],
        skipped: Sequence[tuple[str, str]],
        callbacks: ToAccept,
        room: Room | None = None,
    ) -> Accepted:
        """Takes callbacks (with their queue entries) into the ledger, and `skipped` entries (with their workspaces) off the queue.

        Leases callbacks of endpoints that are ready to this worker at once, as far as there is room.
        Raises NotLeader, RedisFull, RedisUnavailable.
        """
        args = of_accept(self.options, token, revisions, skipped, callbacks, room or Room())
        reply, sent = await self._run("accept", *args)
        if reply[0] != b"accepted":
            raise NotLeader
        accepted, broken, rest = read_accepted(reply, self._lease_end(sent))
        self._tell(rest)
        pairs = zip(callbacks.endpoint_ids(), accepted.words, strict=True)
        self._tell_broken(broken, [str(endpoint) for endpoint, word in pairs if word == "broken"])
        return accepted

    async def reject(self, token: str, entries: Iterable[tuple[str, str, str, str, str]]) -> list[str]:
        """Keeps entries in `rejected`: (entry, reason, detail, workspace, eventId) each. Raises NotLeader.

        Returns those that could not be kept, and stay on the queue.
        """
        args = [field for entry in entries for field in entry]
        reply, _ = await self._run("reject", token, *args)
        if reply[0] != b"rejected":
            raise NotLeader
        self._tell_broken(reply[3])
        return [entry.decode() for entry in reply[2].split()]

    async def claim(self, endpoint: str, count: int) -> Claim:
        """Leases up to `count` due callbacks of an endpoint to this worker."""
        try:
            reply, sent = await self._run("claim", endpoint, count, self.options.lease_ms, HINT_MS)
        except ResponseError as error:
            self._tell_damage(str(error), [endpoint])
            raise
        rest = iter(reply[2:])
        _, claimed = read_claim(rest, self._lease_end(sent))
        self._tell(rest)
        return claimed

    async def settle(self, asked: Sequence[ToSettle]) -> list[Settled | EndpointBroken]:
        """Records outcomes of several endpoints at once, in one call. Raises RedisUnavailable: it may have been done then."""
        reply, sent = await self._run("settle", *of_settle(self.options, asked))
        rest = iter(reply[2:])
        settled = [self._settled(one.endpoint, read_settled(rest, self._lease_end(sent))) for one in asked]
        self._tell(rest)
        return settled

    def _settled(self, endpoint: str, found: Settled | str) -> Settled | EndpointBroken:
        if isinstance(found, Settled):
            return found
        self._tell_damage(found, [endpoint])
        return EndpointBroken(found)

    async def replay(
        self, workspace: str, event_id: str, *, copy: str = "", in_ms: int = 0, ttl_ms: int = 172_800_000
    ) -> str:
        """Sends a callback that has ended once more, due `in_ms` from now; as `copy`, where an eventId for it is given.

        Returns `replayed`, or why not: unknown, not_ended, no_body, superseded, busy, full. Raises RedisFull.
        """
        reply, _ = await self._run(
            "replay", workspace, event_id, copy, in_ms, ttl_ms, self.options.max_waiting
        )
        return str(reply[0].decode())

    async def cancel(self, endpoint: str, event_ids: Sequence[str]) -> int:
        """Ends callbacks of one endpoint that wait, as failed; how many. Those in a worker's hands are left alone."""
        reply, _ = await self._run("cancel", endpoint, *event_ids)
        self._tell(iter(reply[3:]))
        return int(reply[2])

    async def forget(self, workspace: str, event_ids: Sequence[str]) -> int:
        """Removes callbacks that have ended from the ledger; how many."""
        reply, _ = await self._run("forget", workspace, *event_ids)
        return int(reply[2])

    async def move(
        self, workspace: str, from_url: str, url: str, endpoint: str, event_ids: Sequence[str]
    ) -> int:
        """Gives waiting callbacks to `from_url` (in order of acceptance) another URL, of the endpoint of that name.

        Returns how many. Those in a worker's hands are left alone. Raises RedisFull.
        """
        before = endpoint_id(EndpointName(workspace, parse_callback_url(from_url, allow_http=True).origin))
        args = workspace, url, endpoint_id(endpoint), endpoint, from_url, before, *event_ids
        reply, _ = await self._run("move", *args)
        self._tell(iter(reply[3:]))
        return int(reply[2])

    async def requeue(self, ids: Sequence[str]) -> tuple[int, int]:
        """Puts rejected entries back on the queue; how many, and how many could not be. Raises RedisFull."""
        reply, _ = await self._run("requeue", *ids)
        return reply[2], reply[3]

    async def stop(self, endpoint: str, *, resume: bool = False) -> Stopped:
        """Stops an endpoint, or lets it resume."""
        reply, _ = await self._run("stop", endpoint, int(not resume))
        return Stopped.UNKNOWN if reply[0] == b"unknown" else Stopped.CHANGED if reply[2] else Stopped.SAME

    async def retry(self, endpoint: str, later: Sequence[tuple[str, float]] = ()) -> Retried | None:
        """Has an endpoint probed now if it pauses, and makes due what waits for its next attempt; None if there is none of that id.

        `later`: eventIds and due times, the longest due first (Endpoints.later). Some at a time, so that others get a word in.
        """
        total = Retried()
        for first in range(0, max(len(later), 1), RETRIED_AT_ONCE):
            some = later[first : first + RETRIED_AT_ONCE]
            pairs = [value for event_id, due in some for value in (event_id, repr(due))]
            reply, _ = await self._run("retry", endpoint, int(first == 0), len(later) - first, *pairs)
            if reply[0] == b"unknown":
                return None
            if reply[0] == b"stopped":
                return replace(total, stopped=True)
            total = Retried(total.pause_ended_ms or reply[2], reply[3], total.made_due + reply[4])
        return total

    async def expedite(self, endpoint: str) -> None:
        """Makes everything that waits in an endpoint's lane due now, and lets the endpoint go on, paused or stopped."""
        await self._run("expedite", endpoint)

    async def wake(self, limit: int = 100, worker: str = "", heartbeat: str = "") -> Woken:
        """Looks at up to `limit` endpoints whose time has come.

        `heartbeat`, if any, is kept as the heartbeat of `worker`.
        """
        reply, _ = await self._run("wake", limit, HINT_MS, worker, heartbeat)
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
        """Takes back the heartbeat of a worker that ends."""
        await self._run("leave", worker)

    async def expire(self, limit: int = 500) -> int:
        """Ends what is past its expiry; returns how many were looked at (fewer than `limit`: none left)."""
        reply, _ = await self._run("expire", limit)
        self._tell_broken(reply[3])
        self._tell(iter(reply[4:]))
        return int(reply[2])

    async def sweep(self, cursor: str, count: int) -> Swept:
        """Puts back what is pending and nowhere, of some `count` keys from `cursor` on (`0`: from the start)."""
        reply, _ = await self._run("sweep", cursor, count)
        values = iter([value.decode() for value in reply[5:]])
        found, nameless = ([(next(values), next(values)) for _ in range(count)] for count in reply[3:5])
        return Swept(reply[2].decode(), found, nameless, list(values))

    async def mend(self, endpoints: Sequence[str] = ()) -> list[str]:
        """Sets keys aside that all endpoints share, or that are these ones', and that are not of the type they should be; which."""
        reply, _ = await self._run("mend", *endpoints)
        return [key.decode() for key in reply[2:]]

    async def migrate(self, limit: int, format_: int) -> tuple[int, str]:
        """Brings what is in Redis to this format: how many endpoints are left to move, and the format that is there now."""
        reply, _ = await self._run("migrate", limit, format_)
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
        """Of an error: whether it comes of what somebody wrote over by hand, as lua/lib/guard.lua has it."""
        if any(words in problem for words in OF_DATA):
            self.on_broken(problem, endpoints)

    def _lease_end(self, sent: float) -> float:
        return sent + self.options.lease_ms / 1000

    async def _run(self, name: str, *args: Argument) -> tuple[list[Any], float]:
        """A script's reply, and when it was sent; before its own arguments go those of lua/lib/prologue.lua."""
        now = self._clock() if self._clock else ""
        try:
            reply, sent = await self._scripts.run(name, now, *self._of_all, *args)
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            self.on_broken(str(error), ())  # a key that all share: until it is mended nobody gets on
            raise RedisUnavailable(f"a key in Redis is not of the type it should be: {error}") from error
        if self._clock is None:
            self._redis_minus_monotonic = reply[1] - sent * 1000
        return reply, sent
