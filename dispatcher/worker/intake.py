"""Moves entries from the queue into the ledger: read a batch, render it, have it accepted. One worker at a time leads.

A message's status changes are accepted in the order of the queue because only the leader accepts. What a dead leader had
read is read again, one entry at a time, so that an entry that kills its reader is found and set aside.
"""

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import takewhile

import structlog

from dispatcher.errors import NotLeader, Overtakes, PreviousUnavailable, RedisFull, RedisUnavailable
from dispatcher.rules.render import RenderOptions
from dispatcher.store.ledger import Ledger
from dispatcher.store.queue import CONSUMER, START, Between, Place, Queue, QueueEntry, place
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.worker.acceptor import Acceptor
from dispatcher.worker.batch import Batch, Later
from dispatcher.worker.forwarder import Forwarder, Routing
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.prepare import NOBODY, Preparer
from dispatcher.worker.put_off import PutOff
from dispatcher.worker.read_ahead import ReadAhead
from dispatcher.worker.recorder import Recorder
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.retired import RetiredCallbacks
from dispatcher.worker.turns import Turns

LEASE_MS = 5000
RENEW_SECONDS = 1.0
FOLLOW_SECONDS = 0.5
"""How often a worker that does not lead tries to."""
BEHIND_MS = 500
"""Intake is behind when the entries that it accepts have waited on the queue for longer than this."""
BATCH, BATCH_BEHIND = 64, 512
"""Entries that are read and accepted at once.

Few, so that Redis accepts some while the worker sends others; many while intake is behind, when every new status change
waits for those before it anyway.
"""
MAX_DEATHS = 3
"""An entry on which this many readers died, or stood still for longer than their lease, is rejected unread."""
TRYING_SHARE = 0.2
"""Largest share of the time spent on entries that were put off, so that new ones are not held up."""

log = structlog.get_logger()


class Intake:
    """One worker's intake: it leads, or waits to lead."""

    def __init__(
        self,
        queue: Queue,
        ledger: Ledger,
        workspaces: WorkspaceCache,
        watch: RedisWatch,
        turns: Turns,
        *,
        recorder: Recorder | None = None,
        metrics: Metrics | None = None,
        options: RenderOptions | None = None,
        routing: Routing | None = None,
        retired: RetiredCallbacks | None = None,
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._watch = watch
        self._turns = turns
        self.token = secrets.token_hex(8)
        """Of this worker's lease of the intake."""
        self._put_off = PutOff()
        metrics = metrics or Metrics()
        self._preparer = Preparer(
            workspaces,
            ledger.now_ms,
            options or RenderOptions(),
            recorder,
            self._put_off.holds,
            routing.router if routing else None,
            routing.previous if routing else None,
            routing.earlier(ledger.now_ms) if routing else None,
            routing.homes() if routing else None,
        )
        forwarder = Forwarder(ledger, self.token, routing.ledger_of, metrics) if routing else None
        self._acceptor = Acceptor(
            ledger, self.token, self._preparer, workspaces, turns, recorder, metrics, forwarder, retired
        )
        self._waits = (routing and routing.waits) or RedisWatch()
        self._ahead = ReadAhead(self._read_next, self._preparer.prepare, self._take_new)
        self._reread_to: Place | None = START
        """The place up to which entries that were read but not accepted have been read again; None: all have been."""
        self._taken_to = START
        """The place of the last entry that was taken; what comes behind it is read in order."""
        self._reading: list[str] = []
        """Entries that are being read again; whatever becomes of the reply, this worker has not died on them."""
        self._full = False
        self._tried_at = time.monotonic()
        self._logged = ""
        self._stop = asyncio.Event()
        self._due_ms: int | None = None
        self._due = asyncio.Event()
        """Set when something is or was due within RENEW_SECONDS; then this worker looks at the time."""
        self.leading = False
        self.failing_since: float | None = None
        """Since when Redis has been unavailable, in monotonic seconds; None: it answered last."""

    def stop(self) -> None:
        """Lets the current batch be accepted, then ends `run`."""
        self._stop.set()
        self._due.set()

    @property
    def has_lease(self) -> bool:
        """Whether this worker leads, as far as it can know: a lease that it cannot renew runs out."""
        since = self.failing_since
        return self.leading and (since is None or time.monotonic() - since < LEASE_MS / 1000)

    async def something_due(self) -> None:
        """Waits until an endpoint needs attention or a callback expires, as far as the last renewal of the lease knew; or until `stop`."""
        await self._due.wait()
        while not self._stop.is_set():
            self._due.clear()
            wait_ms = self._due_ms - self._ledger.now_ms() if self._due_ms else 0
            if wait_ms <= 0:
                return
            try:  # there may be an earlier time by then
                await asyncio.wait_for(self._due.wait(), wait_ms / 1000)
            except TimeoutError:
                return

    def note_due(self, at_ms: int | None) -> None:
        """Notes when an endpoint next needs attention or a callback expires; None if nothing waits."""
        self._due_ms = at_ms
        if at_ms is not None and at_ms <= self._ledger.now_ms() + RENEW_SECONDS * 1000:
            self._due.set()

    def note_failure(self, error: RedisUnavailable) -> None:
        """Notes that a call to Redis failed."""
        self._watch.failed(error)
        self.failing_since = self.failing_since or time.monotonic()

    async def run(self) -> None:
        """Runs until stopped; survives failures of Redis."""
        while not self._stop.is_set():
            try:
                await self._lead()
            except NotLeader:
                self._follow()
            except Overtakes:
                await self._read_all_again()
            except RedisFull as error:
                self._set_behind(False)
                self._log_full(error)
                await self._spare_held()
                await self._pause(RENEW_SECONDS)
            except PreviousUnavailable as error:  # this partition's own server is well
                self._set_behind(False)
                self._waits.failed(error)
                await self._spare_held()
                await self._pause(RENEW_SECONDS)
            except RedisUnavailable as error:
                self._set_behind(False)
                self.note_failure(error)
                self._reread_to = START  # the reply to a read may be lost
                await self._pause(FOLLOW_SECONDS)
            except Exception as error:  # the entries stay on the queue
                self._set_behind(False)
                self._log_error(error)
                self._reread_to = START
                await self._spare_held()
                await self._pause(RENEW_SECONDS)
        await self._resign()

    async def _lead(self) -> None:
        """Renews the lease, then works until it is time to renew it again."""
        lead = await self._ledger.lead(self.token, LEASE_MS, full=self._full, renew=self.leading)
        self._watch.worked()
        self._waits.look()
        was_away, self.failing_since = self.failing_since is not None, None
        if lead is None:
            if was_away:
                await self._spare_held()
            self._follow()
            await self._pause(FOLLOW_SECONDS)
            return
        if not self.leading:
            log.info("intake.leading", pending=lead.pending, **self._queue.about)
        self.leading = True
        self.note_due(lead.due_ms)
        self._queue.note_unread(lead.queued - lead.pending)
        until = time.monotonic() + RENEW_SECONDS
        if not lead.pending:
            self._reread_to = None
        elif not self._put_off:  # for instance read since by a worker that had lost the lead
            self._reread_to = self._reread_to or START
        while (self._ahead.held or self._reread_to is not None) and self._goes_on(until):
            if held := self._ahead.held:
                await self._take_held(held, between=self._before(held))
            elif found := await self._reread():
                await self._take_held(found)
        while self._goes_on(until):
            await self._try_again(until)
            entries = await self._read()
            self._set_behind(self._ahead.behind and bool(entries))
            await self._ahead.run(entries, partial(self._reads_on, until))

    def _goes_on(self, until: float) -> bool:
        return not self._stop.is_set() and time.monotonic() < until

    def _reads_on(self, until: float) -> bool:
        return self._queue.may_have_more and self._goes_on(until)

    async def _reread(self) -> list[QueueEntry]:
        """Reads the next entries that were read but not accepted; sets `_reread_to` to None when there are no more.

        Entries that were put off come together, others one at a time. An entry whose readers keep dying is rejected.
        """
        if self._reading:  # the reply to the last read was lost
            await self._queue.claim(self._reading)
            self._reading = []
        after = self._reread_to or START
        found = await self._queue.pending(after, BATCH)
        if not found:
            self._reread_to = None
            return []
        if others := [one.id for one in found if one.consumer != CONSUMER]:  # read by hand
            await self._queue.claim(others)
            return []
        deaths, count = found[0].reads, len(list(takewhile(lambda one: one.reads == 0, found))) or 1
        if deaths >= MAX_DEATHS and not await self._set_aside(found[0].id, deaths):
            await self._pause(RENEW_SECONDS)
            return []
        self._reread_to = place(found[count - 1].id)
        if deaths >= MAX_DEATHS:
            return []
        self._reading = [one.id for one in found[:count]]
        entries = await self._queue.read_again(after, count)
        self._reading = []
        return entries

    async def _set_aside(self, entry_id: str, deaths: int) -> bool:
        """Rejects an entry unread; returns False if that could not be recorded."""
        detail = f"{deaths} workers died or stood still on this entry; it was set aside unread"
        log.error("intake.poisoned", entry=entry_id, deaths=deaths)
        return not await self._ledger.reject(self.token, [(entry_id, "poisoned", detail, "", "")])

    async def _try_again(self, until: float) -> None:
        """Tries the entries of a put-off workspace that is due, and of other due ones that begin in the same batch.

        Takes one batch, and more as long as TRYING_SHARE allows; new entries are read in between.
        """
        now = time.monotonic()
        until = min(until, now + (now - self._tried_at) * TRYING_SHARE / (1 - TRYING_SHARE))
        while (after := self._put_off.due()) is not None:
            entries = await self._queue.read_again(after, BATCH)
            last = place(entries[-1].id) if len(entries) == BATCH else None
            trying = self._put_off.trying(after, last)
            self._put_off.tried(trying, await self._take_held(entries, trying), last)
            if not self._goes_on(until):
                break
        self._tried_at = time.monotonic()

    async def _read(self) -> list[QueueEntry]:
        """Reads new entries. Waits for them up to 1 s, or 100 ms while a workspace is put off.

        Does not wait while intake is behind or a put-off workspace is due.
        """
        at_once = self._ahead.behind or self._put_off.due() is not None
        return await self._read_next(wait_ms=0 if at_once else 100 if self._put_off else 1000)

    async def _read_next(self, wait_ms: int = 0) -> list[QueueEntry]:
        return await self._queue.read(BATCH_BEHIND if self._ahead.behind else BATCH, wait_ms)

    async def _take_new(self, entries: list[QueueEntry], batch: Batch | None) -> None:
        await self._take(entries, batch, between=self._before(entries))
        self._set_behind(self._is_behind(entries))

    def _before(self, entries: Sequence[QueueEntry]) -> Between:
        """Where nothing may be on the queue when entries are taken that were just read."""
        return Between(self._taken_to, place(entries[0].id))

    async def _take_held(
        self,
        entries: list[QueueEntry],
        trying: Mapping[str, bool] = NOBODY,
        between: Between | None = None,
    ) -> dict[str, Later]:
        """Takes entries that were read again.

        If that fails they are held and taken once more: another read would count as a death of their reader.
        """
        self._ahead.held = entries
        later = await self._take(entries, trying=trying, between=between)
        self._ahead.held = []
        return later

    async def _take(
        self,
        entries: Sequence[QueueEntry],
        batch: Batch | None = None,
        trying: Mapping[str, bool] = NOBODY,
        between: Between | None = None,
    ) -> dict[str, Later]:
        """Has entries accepted, rejected or put off; returns the ones put off, by workspace."""
        if batch is None or self._put_off.concerns([*batch.workspaces, *batch.routes, *batch.groups]):
            batch = await self._preparer.prepare(entries, trying)
        await self._acceptor.accept(replace(batch, between=between))
        if batch.later:  # claiming sets their reads to 0: no reader has died on them
            await self._queue.claim([entry_id for left in batch.later.values() for entry_id in left.ids])
            self._put_off.add(batch.later)
        if entries:
            self._taken_to = max(self._taken_to, place(entries[-1].id))
        self._log_room()
        self._waits.worked()
        self._logged = ""
        return batch.later

    def _is_behind(self, entries: Sequence[QueueEntry]) -> bool:
        """Whether more entries are waiting: the batch was full, and its last entry had waited longer than BEHIND_MS."""
        enqueued_ms, _ = place(entries[-1].id)
        return len(entries) >= BATCH and self._ledger.now_ms() - enqueued_ms > BEHIND_MS

    def _set_behind(self, behind: bool) -> None:
        self._ahead.behind = behind
        self._turns.set_intake_behind(behind, self._ledger.keys.partition)

    def _follow(self) -> None:
        """Another worker leads: forgets what was read, since that worker reads it again."""
        if self.leading:
            log.warning("intake.lost_lead", held=len(self._ahead.held), **self._queue.about)
        self.leading = False
        self._waits.left()
        self._set_behind(False)  # otherwise turns would stay rationed
        self._ahead.held, self._reread_to, self._taken_to, self._reading = [], START, START, []
        self._put_off.clear()
        self._acceptor.forget_answers()

    async def _read_all_again(self) -> None:
        """Another worker has read what comes before the held entries: it thought that it leads, or stalled for a while.

        All that was read and not accepted is read again in its order, so that nothing overtakes it.
        """
        log.warning("intake.read_elsewhere", held=len(self._ahead.held), **self._queue.about)
        await self._spare_held()
        self._ahead.held, self._reread_to = [], START

    async def _spare_held(self) -> None:
        """Sets the reads of entries in hand to 0: their reader lives, however it ends later."""
        ids = [*(entry.id for entry in self._ahead.held), *self._reading]
        if self.leading and ids:
            with suppress(Exception):  # what is wrong is met, and logged, by what is tried next
                await self._queue.claim(ids)

    async def _resign(self) -> None:
        """Gives up the lease, so that another worker can lead at once."""
        self._set_behind(False)  # its partition must not ration the turns of others
        self._waits.left()
        await self._spare_held()
        if self.leading and not self._ahead.held:
            try:
                await self._ledger.lead(self.token, 0)
            except RedisUnavailable:
                pass  # then the lease runs out by itself
            except Exception as error:  # so it does
                self._log_error(error)
        self.leading = False

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def _log_error(self, error: Exception) -> None:
        """Logs an error once; again only after another error, or after a batch was taken."""
        text = f"{type(error).__name__}: {error}"
        if text != self._logged:
            log.error("intake.internal_error", action="trying again", exc_info=error)
        self._logged = text

    def _log_full(self, error: RedisFull) -> None:
        if not self._full:
            log.error("intake.refused", problem=str(error), action="waiting for room; nothing is lost")
        self._full = True

    def _log_room(self) -> None:
        if self._full:
            log.info("intake.resumed")
        self._full = False
