"""The ledger: one typed method per Lua script. The scripts alone decide the state of callbacks."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from typing import Any, TypeVar

import structlog
from redis.exceptions import ResponseError

from dispatcher.errors import EndpointBroken, InvalidInput, NotLeader, Overtakes, RedisUnavailable
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.archive.archived_callback import ArchivedCallback
from dispatcher.store.archive.restore import restore
from dispatcher.store.arguments import (
    HINT_MS,
    NOTHING_SAID,
    WITH_ARCHIVE,
    WITH_MESSAGES,
    Id,
    LedgerOptions,
    Room,
    ToAccept,
    of_accept,
    of_claim,
    of_settle,
)
from dispatcher.store.command_parts import in_parts
from dispatcher.store.connection import translated, without_script
from dispatcher.store.damaged import needed
from dispatcher.store.keys import FORMAT_TEXT, Keys, endpoint_id
from dispatcher.store.messages_to_archive import Leaving
from dispatcher.store.queue import Between
from dispatcher.store.replies import (
    Accepted,
    Beat,
    Claim,
    Ended,
    Lead,
    Lost,
    Retried,
    Settled,
    Stopped,
    Swept,
    ToClaim,
    ToSettle,
    Woken,
    read_accepted,
    read_claim_of,
    read_ended,
    read_hints,
    read_lead,
    read_lost,
    read_members,
    read_settled,
)
from dispatcher.store.scripts import Scripts
from dispatcher.store.stored_callback import Waiting
from dispatcher.store.wire import Argument, Call

RETRIED_AT_ONCE = 500
OF_DATA = "WRONGTYPE", "not an integer", "not a valid float", "attempt to ", "bad argument"
"""Error texts of Redis and Lua for a key of the wrong type, or for text in place of a number."""
ASIDE_MS = 604_800_000
"""How long a key that was set aside is kept, as in lua/lib/aside.lua."""


log = structlog.get_logger()

Found = TypeVar("Found")


class Ledger:
    """The scripts of one Redis.

    `on_end` is called for each callback that a script ended in any state but delivered. `clock`
    replaces Redis's TIME in tests (ms since 1970).
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
        self._url = url
        self._scripts = Scripts(call, keys, url, archives=self.options.archives)
        self._clock = clock
        self._on_end = on_end
        self.on_broken: Callable[[str, Sequence[str]], None] = lambda *_: None
        """Called with Redis's error about a damaged key, and with the endpoints concerned if they are known."""
        self._redis_minus_monotonic: float | None = None
        self.leads_until = 0.0
        """Monotonic time until which this worker certainly has the intake lease."""

    def now_ms(self) -> int:
        """Redis's clock: the time of the last script, advanced by our monotonic clock.

        Raises RedisUnavailable before the first reply.
        """
        if self._clock:
            return self._clock()
        if self._redis_minus_monotonic is None:
            raise RedisUnavailable("Redis has not answered yet")
        return int(self._redis_minus_monotonic + time.monotonic() * 1000)

    async def lead(
        self, token: str, lease_ms: int, *, full: bool = False, renew: bool = False
    ) -> Lead | None:
        """Takes or renews the intake lease; a `lease_ms` of 0 gives it up.

        Returns None if this worker does not lead now. With `renew` it does not take a lease that ran out: another worker
        may have led meanwhile.
        """
        reply, sent = await self._run("lead", token, lease_ms, int(full), int(renew), WITH_ARCHIVE)
        leads = reply[0] == b"leading"
        self.leads_until = sent + lease_ms / 1000 if leads else 0.0
        return read_lead(reply) if leads else None

    async def accept(
        self,
        token: str,
        revisions: Mapping[str, str],
        skipped: Sequence[tuple[str, str]],
        callbacks: ToAccept,
        room: Room | None = None,
        between: Between | None = None,
        archived: Mapping[Id, str] = NOTHING_SAID,
    ) -> Accepted:
        """Takes callbacks with their queue entries into the ledger; takes `skipped` (entry, workspace) off the queue.

        Leases callbacks of ready endpoints to this worker at once, as far as `room` allows. `archived` is what the archive
        has said about retired callbacks: their digest, or NOT_ARCHIVED. Raises
        NotLeader, RedisFull, RedisUnavailable, or Overtakes if an entry is on the queue where `between` allows none.
        """
        args = of_accept(
            self.options, token, revisions, skipped, callbacks, room or Room(), between, archived
        )
        reply, sent = await self._run("accept", *args)
        if reply[0] == b"overtakes":
            raise Overtakes
        if reply[0] != b"accepted":
            raise NotLeader
        accepted, broken, rest = read_accepted(reply, self._lease_end(sent), self.keys.partition)
        self._tell(rest)
        if broken:
            pairs = zip(callbacks.endpoint_ids(), accepted.words, strict=True)
            self._tell_broken(broken, [one for ids, word in pairs if word == "broken" for one in ids if one])
        return accepted

    async def reject(self, token: str, entries: Iterable[tuple[str, str, str, str, str]]) -> list[str]:
        """Moves queue entries to `rejected`: (entry, reason, detail, workspace, eventId) each. Raises NotLeader.

        Returns the ids of those that could not be moved and stay on the queue.
        """
        left: list[str] = []
        for some in in_parts(entries, len):
            reply, _ = await self._run("reject", token, *chain.from_iterable(some))
            if reply[0] != b"rejected":
                raise NotLeader
            self._tell_broken(reply[3])
            left += [entry.decode() for entry in reply[2].split()]
        return left

    async def forward(
        self, source: int, entries: Sequence[tuple[str, bytes]], gone: Sequence[str] = ()
    ) -> int:
        """Puts entries of the queue of partition `source`, each a name and its JSON, on this one's queue, in their order.

        Returns how many were not forwarded before: each is added once, however often this is called, until it is named
        in `gone`, the entries that have left the source's queue. Raises RedisFull, RedisUnavailable; then the script may
        nevertheless have run.
        """
        args = [value for entry in entries for value in entry]
        reply, _ = await self._run("forward", source, len(gone), *gone, *args)
        return int(reply[2])

    async def forwarded(self, token: str, entries: Sequence[str]) -> None:
        """Takes entries off the queue that are on another partition's now. Raises NotLeader, RedisUnavailable."""
        for some in in_parts(entries):
            reply, _ = await self._run("forwarded", token, *some)
            if reply[0] != b"left":
                raise NotLeader

    async def retire(
        self, token: str, callbacks: Sequence[tuple[Id, bytes]], notes: Sequence[bytes]
    ) -> int | None:
        """Takes callbacks that the archive has out of the ledger: each by its id and entry. Forgets notes of `ended`.

        One whose entry is another one now is left alone. Returns how many were retired; None: the data's format does not
        allow it yet. Raises NotLeader, RedisUnavailable.
        """
        flat = [value for (workspace, id_), entry in callbacks for value in (workspace, id_, entry)]
        reply, _ = await self._run("retire", token, WITH_ARCHIVE, len(callbacks), *flat, *notes)
        if reply[0] == b"not_leader":
            raise NotLeader
        return int(reply[2]) if reply[0] == b"retired" else None

    async def retire_messages(self, token: str, messages: Sequence[Leaving]) -> int | None:
        """Takes messages that the archive has out of the message store, or says when it is to look at them next.

        One whose record is another one now is left alone. Returns how many were retired; None: the data's format does not
        allow it yet. Raises NotLeader, RedisUnavailable.
        """
        flat = [value for one in messages for value in one.arguments()]
        reply, _ = await self._run("retire_messages", token, WITH_MESSAGES, *flat)
        if reply[0] == b"not_leader":
            raise NotLeader
        return int(reply[2]) if reply[0] == b"retired" else None

    async def claim(self, asked: Sequence[ToClaim]) -> list[Claim | EndpointBroken]:
        """Leases due callbacks of several endpoints to this worker, in one call.

        Raises RedisUnavailable; the script may nevertheless have run.
        """
        reply, sent = await self._run("claim", *of_claim(self.options, asked))
        rest = iter(reply[2:])
        claims = [
            self._unless_broken(one.endpoint, read_claim_of(rest, self._lease_end(sent))) for one in asked
        ]
        self._tell(rest)
        return claims

    async def settle(self, asked: Sequence[ToSettle]) -> list[Settled | EndpointBroken]:
        """Records outcomes for several endpoints in one call.

        Raises RedisUnavailable; the script may nevertheless have run.
        """
        reply, sent = await self._run("settle", *of_settle(self.options, asked))
        rest = iter(reply[2:])
        settled = [
            self._unless_broken(one.endpoint, read_settled(rest, self._lease_end(sent))) for one in asked
        ]
        self._tell(rest)
        return settled

    def _unless_broken(self, endpoint: str, found: Found | str) -> Found | EndpointBroken:
        """What a script found of an endpoint; of one whose keys are damaged it found the error."""
        if not isinstance(found, str):
            return found
        self._tell_damage(found, [endpoint])
        return EndpointBroken(found)

    async def replay(
        self,
        workspace: str,
        event_id: str,
        *,
        copy: str = "",
        in_ms: int = 0,
        ttl_ms: int = 172_800_000,
        ended_ms: int = 0,
    ) -> str:
        """Sends an ended callback again, due in `in_ms`; as a copy with the eventId `copy`, if one is given.

        ended_ms: only if that is when it ended, so that what was chosen is not sent twice by two people; 0: whenever
        Returns `replayed`, or why not: unknown, not_ended, ended_again, fanned_out, no_body, superseded, busy, full.
        A copy raises RedisFull.
        """
        reply, _ = await self._run(
            "replay", workspace, event_id, copy, in_ms, ttl_ms, self.options.max_waiting, ended_ms
        )
        return str(reply[0].decode())

    async def restore(self, one: ArchivedCallback) -> None:
        """Puts a callback back that only the archive has, so that it can be replayed. Raises RedisUnavailable."""
        with translated(self._url):
            await restore(self._call, self.keys, self.options.retention_ms, one)

    async def cancel(self, endpoint: str, waiting: Sequence[Waiting]) -> int:
        """Ends waiting callbacks of one endpoint as failed; returns how many. Leased ones are left alone."""
        count = 0
        for some in in_parts(waiting, len):
            reply, _ = await self._run("cancel", endpoint, *_words(some))
            self._tell(iter(reply[3:]))
            count += int(reply[2])
        return count

    async def forget(self, workspace: str, event_ids: Sequence[str]) -> int:
        """Removes ended callbacks from the ledger; returns how many."""
        return sum([int((await self._run("forget", workspace, *some))[0][2]) for some in in_parts(event_ids)])

    async def erase(self, workspace: str, event_ids: Sequence[str]) -> tuple[int, int]:
        """Leaves of ended callbacks only that their eventIds are known; returns how many, and how many have not ended."""
        replies = [(await self._run("erase", workspace, *some))[0] for some in in_parts(event_ids)]
        return sum(reply[2] for reply in replies), sum(reply[3] for reply in replies)

    async def unlist(self, workspace: str, places: Sequence[tuple[str, str, str]]) -> int:
        """Takes messages out of the message store; returns how many records. `places` are as in lua/unlist.lua."""
        replies = [
            (await self._run("unlist", workspace, *chain.from_iterable(some)))[0]
            for some in in_parts(places, len)
        ]
        return sum(reply[2] for reply in replies)

    async def move(
        self, workspace: str, from_url: str, url: str, endpoint: str, waiting: Sequence[Waiting]
    ) -> int:
        """Moves waiting callbacks of one subscription from `from_url` to `url`, of the endpoint named `endpoint`.

        `waiting` is in order of acceptance. Returns how many moved; leased ones are left alone. Raises RedisFull.
        """
        origin = parse_callback_url(from_url, allow_http=True).origin
        before = endpoint_id(EndpointName(workspace, origin, EndpointName.parse(endpoint).subscription))
        args, count = (workspace, url, endpoint_id(endpoint), endpoint, from_url, before), 0
        for some in in_parts(waiting, len):
            reply, _ = await self._run("move", *args, *_words(some))
            self._tell(iter(reply[3:]))
            count += int(reply[2])
        return count

    async def requeue(self, ids: Sequence[str]) -> tuple[int, int]:
        """Puts rejected entries back on the queue; returns how many, and how many it could not. Raises RedisFull."""
        replies = [(await self._run("requeue", *some))[0] for some in in_parts(ids)]
        return sum(reply[2] for reply in replies), sum(reply[3] for reply in replies)

    async def stop(self, endpoint: str, *, resume: bool = False) -> Stopped:
        """Stops or resumes an endpoint, for the operator."""
        reply, _ = await self._run("stop", endpoint, int(not resume))
        return Stopped.UNKNOWN if reply[0] == b"unknown" else Stopped.CHANGED if reply[2] else Stopped.SAME

    async def retry(self, endpoint: str, later: Sequence[tuple[str, float]] = ()) -> Retried | None:
        """Ends an endpoint's pause so that a probe goes out now, and makes due what waits for its next attempt.

        `later`: eventIds and due times, soonest first (Endpoints.later); sent in batches, so that Redis serves others
        in between. Returns None for an unknown endpoint.
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
        """Makes everything in an endpoint's lane due now, and ends its pause or stop."""
        await self._run("expedite", endpoint)

    async def wake(self, limit: int = 100, worker: str = "", heartbeat: str = "") -> Woken:
        """Looks at up to `limit` endpoints that need attention now.

        Stores `heartbeat` for `worker`, unless it is empty.
        """
        reply, _ = await self._run("wake", limit, HINT_MS, worker, heartbeat)
        self._tell_broken(reply[8])
        return Woken(
            read_hints(reply[2], self.keys.partition),
            await self._readable(reply[3]),
            reply[4],
            reply[5],
            reply[6] == 1,
            self.keys.own_format(needed(reply[7], self.keys.format, FORMAT_TEXT)),
            reply[9] == 1,
        )

    async def _readable(self, found: Sequence[Sequence[bytes]]) -> list[Lost]:
        """Parses callbacks whose lease ran out. Unreadable entries are set aside: no worker could settle them."""
        lost = []
        for endpoint, name, event_id, raw in found:
            try:
                lost.append(read_lost(endpoint, name, event_id, raw))
            except InvalidInput as error:
                workspace = EndpointName.parse(name.decode(errors="replace")).workspace
                key = self.keys.event(workspace, event_id.decode())
                log.error("redis.key_set_aside", key=key, problem=str(error))
                aside = f"{self.keys.root}aside:{key.removeprefix(self.keys.root)}"
                with translated(""):
                    await self._call("RENAME", key, aside)
                    await self._call("PEXPIRE", aside, ASIDE_MS)
                    await self._call("PEXPIRE", self.keys.body(workspace, event_id.decode()), ASIDE_MS)
        return lost

    async def beat(self, worker: str, heartbeat: str) -> Beat:
        """Stores a worker's heartbeat."""
        reply, _ = await self._run("beat", worker, heartbeat)
        return Beat(reply[2] == 1, reply[3])

    async def members(self) -> list[tuple[str, int, bytes]]:
        """The heartbeats of all workers that were stored here: name, age in ms and JSON of each."""
        reply, _ = await self._run("members")
        return read_members(reply)

    async def leave(self, worker: str) -> None:
        """Removes the heartbeat of a worker that ends."""
        await self._run("leave", worker)

    async def expire(self, limit: int = 500) -> int:
        """Ends callbacks past their expiry; returns how many were looked at (fewer than `limit`: none are left)."""
        reply, _ = await self._run("expire", limit)
        self._tell_broken(reply[3])
        self._tell(iter(reply[4:]))
        return int(reply[2])

    async def sweep(self, cursor: str, count: int) -> Swept:
        """Puts pending callbacks that are in no lane, lease or chain back into their lanes.

        Looks at some `count` keys from `cursor` on (`0`: from the start).
        """
        reply, _ = await self._run("sweep", cursor, count)
        values = iter([value.decode() for value in reply[5:]])
        found, nameless = ([(next(values), next(values)) for _ in range(count)] for count in reply[3:5])
        return Swept(reply[2].decode(), found, nameless, list(values))

    async def mend(self, endpoints: Sequence[str] = ()) -> list[str]:
        """Sets aside keys of the wrong type and mends damaged records, among shared keys and those of `endpoints`.

        Returns the keys.
        """
        replies = [(await self._run("mend", *some))[0] for some in list(in_parts(endpoints)) or [[]]]
        return [key.decode() for reply in replies for key in reply[2:]]

    async def migrate(self, limit: int, format_: int) -> tuple[int, str]:
        """Migrates up to `limit` endpoints to this format.

        Returns how many endpoints are left, and the format number stored now (empty until none is left).
        """
        reply, _ = await self._run("migrate", limit, format_)
        return reply[2], reply[3].decode()

    def _tell(self, ends: Iterator[bytes]) -> None:
        """Reports callbacks that ended in any state but delivered: five values each, at the end of a reply."""
        for fields in iter(lambda: tuple(islice(ends, 5)), ()):
            if self._on_end:
                with suppress(InvalidInput):  # overwritten by hand
                    self._on_end(read_ended(*fields))

    def _tell_broken(self, problem: bytes, endpoints: Sequence[str] = ()) -> None:
        if problem:
            self.on_broken(problem.decode(errors="replace"), endpoints)

    def _tell_damage(self, problem: str, endpoints: Sequence[str]) -> None:
        """Reports an error if it comes from a damaged key, by the same rule as lua/lib/guard.lua."""
        if any(words in problem for words in OF_DATA):
            self.on_broken(problem, endpoints)

    def _lease_end(self, sent: float) -> float:
        return sent + self.options.lease_ms / 1000

    async def _run(self, name: str, *args: Argument) -> tuple[list[Any], float]:
        """Runs a script, with the arguments of lua/lib/prologue.lua first; returns its reply and when it was sent."""
        now = self._clock() if self._clock else ""
        try:
            reply, sent = await self._scripts.run(name, now, *self._of_all, *args)
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            self.on_broken(str(error), ())  # what needs that key stops until it is mended
            why = without_script(str(error))
            raise RedisUnavailable(f"a key in Redis is not of the type it should be: {why}") from error
        if self._clock is None:
            self._redis_minus_monotonic = reply[1] - sent * 1000
        return reply, sent


def _words(waiting: Iterable[Waiting]) -> list[Argument]:
    return [word for one in waiting for word in (one.event_id, one.expires_ms)]
