"""From the queue into the ledger: read a batch, validate, render, accept. One worker at a time leads.

Acceptance order is queue order because only the leader accepts; what a dead leader had read is
read again, one entry at a time, so that an entry that kills its reader is found and set aside.
"""

import asyncio
import secrets
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol

import structlog
from redis.exceptions import ResponseError

from dispatcher.connection import translated
from dispatcher.errors import RedisFull, RedisUnavailable
from dispatcher.ledger import Ledger, NotLeader, WorkspaceChanged
from dispatcher.metrics import Metrics
from dispatcher.prepare import Batch, Entry, Preparer, Rejection
from dispatcher.render import RenderOptions
from dispatcher.replies import Claim
from dispatcher.status_api.record import Recorder
from dispatcher.watch import RedisWatch
from dispatcher.wire import Argument, Call
from dispatcher.workspaces import WorkspaceCache

LEASE_MS = 5000
RENEW_SECONDS = 1.0
FOLLOW_SECONDS = 0.5
"""How often a worker that does not lead looks whether it should."""
BEHIND_MS = 500
"""An entry that has waited on the queue for longer says that intake is behind."""
BATCH, BATCH_BEHIND = 64, 512
"""Entries that are read and accepted at once: few, so that Redis accepts some while the worker sends others; many
while intake is behind, for nobody's next status change gets on then."""
READ_AHEAD_FROM = 8
"""With fewer in hand, nothing is gained by reading the next ones meanwhile."""
MAX_DEATHS = 3
"""An entry on which this many readers died is rejected unread."""

GROUP, CONSUMER = "workers", "intake"

log = structlog.get_logger()

Reading = asyncio.Task[list[Entry]]


class Turns(Protocol):
    """Who serves endpoints: the engine."""

    def hint(self, endpoints: Iterable[str]) -> None:
        """These have work."""

    def give_precedence(self, behind: bool) -> None:
        """Whether more waits on the queue: turns make way then."""

    def reserve(self, count: int) -> int:
        """Takes slots for what accept may give to this worker at once; how many."""

    def take_up(self, claims: Sequence[tuple[str, Claim]], reserved: int) -> None:
        """Serves what accept gave; `reserved` slots were taken for it."""


class Intake:
    """Leads, or waits to lead."""

    def __init__(
        self,
        call: Call,
        ledger: Ledger,
        workspaces: WorkspaceCache,
        watch: RedisWatch,
        turns: Turns,
        *,
        recorder: Recorder | None = None,
        metrics: Metrics | None = None,
        url: str = "",
        options: RenderOptions | None = None,
    ) -> None:
        self._call = call
        self._ledger = ledger
        self._workspaces = workspaces
        self._watch = watch
        self._turns = turns
        self._recorder = recorder
        self._metrics = metrics or Metrics()
        self._url = url
        self._preparer = Preparer(workspaces, ledger.now_ms, options or RenderOptions(), recorder)
        self._token = secrets.token_hex(8)
        self._held: list[Entry] = []
        self._full = self._behind = False
        self._stop = asyncio.Event()
        self.leading = False

    def stop(self) -> None:
        """Lets the batch in hand be accepted, then ends `run`."""
        self._stop.set()

    async def run(self) -> None:
        """Runs until stopped; survives Redis."""
        while not self._stop.is_set():
            try:
                await self._lead()
            except NotLeader:
                self._say_behind(False)
                self._follow()
            except RedisFull as error:
                self._say_behind(False)
                self._say_full(error)
                await self._pause(RENEW_SECONDS)
            except RedisUnavailable as error:
                self._say_behind(False)
                self._watch.failed(error)
                await self._pause(FOLLOW_SECONDS)
        await self._resign()

    async def _lead(self) -> None:
        """Renews the lease, then works until it is time to renew it again."""
        pending = await self._ledger.lead(self._token, LEASE_MS, full=self._full)
        self._watch.worked()
        if pending is None:
            self._follow()
            await self._pause(FOLLOW_SECONDS)
            return
        if not self.leading:
            log.info("intake.leading", pending=pending)
        self.leading = True
        until = time.monotonic() + RENEW_SECONDS
        while pending and self._goes_on(until):
            self._held = self._held or await self._reread()
            pending = len(self._held)
            await self._take(self._held)
            self._done()
        while self._goes_on(until):
            entries = await self._read()
            self._say_behind(self._behind and bool(entries))
            await self._take_new(entries, until)

    def _goes_on(self, until: float) -> bool:
        return not self._stop.is_set() and time.monotonic() < until

    async def _take_new(self, entries: list[Entry], until: float) -> None:
        """Takes a batch; while Redis accepts it, the next one is read and rendered."""
        batch: Batch | None = None
        reading: Reading | None = None
        try:
            while entries:
                if not reading and len(entries) >= READ_AHEAD_FROM and self._goes_on(until):
                    reading = asyncio.create_task(self._read_new())
                ahead = asyncio.create_task(self._look_ahead(reading, until)) if reading else None
                self._held = entries
                try:
                    await self._take(entries, batch)
                    self._done()
                    self._say_behind(self._is_behind(entries))
                finally:
                    entries, batch, reading = await ahead if ahead else ([], None, None)
                    self._held = [*self._held, *entries]
        finally:
            if reading:  # something broke
                self._held = [*self._held, *await reading]

    async def _look_ahead(
        self, reading: Reading, until: float
    ) -> tuple[list[Entry], Batch | None, Reading | None]:
        """Renders what is being read; while intake is behind, those after it are read meanwhile."""
        entries = await reading
        more = self._behind and bool(entries) and self._goes_on(until)
        further = asyncio.create_task(self._read_new()) if more else None
        try:
            return entries, await self._preparer.prepare(entries), further
        except Exception:  # looked into when they are taken
            return entries, None, further

    def _say_behind(self, behind: bool) -> None:
        self._behind = behind
        self._turns.give_precedence(behind)

    def _done(self) -> None:
        self._held = []
        self._say_room()

    def _follow(self) -> None:
        if self.leading:
            log.warning("intake.lost_lead", held=len(self._held))
        self.leading = False
        self._held = []

    async def _resign(self) -> None:
        """Makes way for the next leader at once."""
        if self.leading and not self._held:
            with suppress(RedisUnavailable):
                await self._ledger.lead(self._token, 0)
        self.leading = False

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _read(self) -> list[Entry]:
        """New entries; waits up to a second for some, unless there were many just now."""
        return await self._read_new(block_ms=None if self._behind else 1000)

    async def _read_new(self, block_ms: int | None = None) -> list[Entry]:
        return await self._xreadgroup(">", BATCH_BEHIND if self._behind else BATCH, block_ms)

    def _is_behind(self, entries: Sequence[Entry]) -> bool:
        """Whether so many came that more will be there, and the last of them had waited for long."""
        enqueued_ms = int(entries[-1][0].partition("-")[0])
        return len(entries) >= BATCH and self._ledger.now_ms() - enqueued_ms > BEHIND_MS

    async def _reread(self) -> list[Entry]:
        """The first entry that was read but not accepted, unless its readers keep dying."""
        events = self._ledger.keys.events
        with translated(self._url):
            found = await self._call("XPENDING", events, GROUP, "-", "+", 1)
        if not found:
            return []
        [(id_, _consumer, _idle, deaths)] = found
        entry = id_.decode()
        if deaths >= MAX_DEATHS:
            detail = f"{deaths} workers died on this entry; it was set aside unread"
            log.error("intake.poisoned", entry=entry, deaths=deaths)
            await self._ledger.reject(self._token, [(entry, "poisoned", detail, "", "")])
            return await self._reread()
        return await self._xreadgroup("0", 1)

    async def _xreadgroup(self, after: str, count: int, block_ms: int | None = None) -> list[Entry]:
        block: tuple[Argument, ...] = ("BLOCK", block_ms) if block_ms else ()
        events = self._ledger.keys.events
        try:
            with translated(self._url):
                reply = await self._call(
                    "XREADGROUP", "GROUP", GROUP, CONSUMER, "COUNT", count, *block, "STREAMS", events, after
                )
        except ResponseError as error:
            if "NOGROUP" in str(error):  # the stream was deleted; `lead` makes it again
                raise NotLeader from error
            raise
        [(_, entries)] = reply or [(events, [])]
        return [(entry.decode(), fields or []) for entry, fields in entries]

    async def _take(self, entries: Sequence[Entry], batch: Batch | None = None) -> None:
        """Accepts or rejects entries; what breaks a whole batch is looked for entry by entry."""
        try:
            while entries and not await self._accept(batch or await self._preparer.prepare(entries)):
                batch = None
        except (NotLeader, RedisUnavailable):
            raise
        except Exception as error:
            if len(entries) > 1:
                for entry in entries:
                    await self._take([entry])
                return
            log.exception("intake.internal_error", entry=entries[0][0])
            rejection = Rejection("internal_error", f"{type(error).__name__}: {error}")
            await self._reject([(entries[0][0], rejection)])

    async def _accept(self, batch: Batch) -> bool:
        """False if a workspace changed meanwhile, and the entries have to be rendered again."""
        try:
            if batch.callbacks.count or batch.skipped:
                await self._accept_callbacks(batch)
        except WorkspaceChanged as changed:
            for workspace in changed.workspaces:
                self._workspaces.forget(workspace)
            return False
        if batch.rejected:
            await self._reject(batch.rejected)
        return True

    async def _accept_callbacks(self, batch: Batch) -> None:
        reserved, claims = self._turns.reserve(batch.callbacks.count), []
        try:
            accepted = await self._ledger.accept(
                self._token, batch.revisions, batch.skipped, batch.callbacks, reserved
            )
            claims = accepted.claims
            self._metrics.taken.update(accepted.words)
            self._metrics.taken["no_callback"] += len(batch.skipped)
            if self._recorder:
                self._recorder.count(accepted.recorded, accepted.problem)
        finally:  # not at once: first the next batch, if there is one, goes to Redis
            asyncio.get_running_loop().call_soon(self._turns.take_up, claims, reserved)
        self._turns.hint(accepted.hints)

    async def _reject(self, rejected: Sequence[tuple[str, Rejection]]) -> None:
        self._metrics.rejected.update(r.reason for _, r in rejected)
        for entry, r in rejected:
            log.warning(
                "event.rejected", entry=entry, reason=r.reason, workspace=r.workspace, event_id=r.event_id
            )
        await self._ledger.reject(
            self._token, [(entry, r.reason, r.detail, r.workspace, r.event_id) for entry, r in rejected]
        )

    def _say_full(self, error: RedisFull) -> None:
        if not self._full:
            log.error("intake.refused", problem=str(error), action="waiting for room; nothing is lost")
        self._full = True

    def _say_room(self) -> None:
        if self._full:
            log.info("intake.resumed")
        self._full = False
