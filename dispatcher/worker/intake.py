"""From the queue into the ledger: read a batch, validate, render, accept. One worker at a time leads.

Acceptance order is queue order because only the leader accepts; what a dead leader had read is
read again, one entry at a time, so that an entry that kills its reader is found and set aside.
"""

import asyncio
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Protocol

import structlog
from redis.exceptions import ResponseError

from dispatcher.errors import RedisFull, RedisUnavailable
from dispatcher.rules.render import RenderOptions
from dispatcher.store.arguments import Room
from dispatcher.store.connection import translated
from dispatcher.store.ledger import Ledger, NotLeader
from dispatcher.store.replies import LEFT_ON_THE_QUEUE, Accepted, Claim, Hint
from dispatcher.store.wire import Argument, Call
from dispatcher.store.workspaces import WorkspaceCache
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.prepare import NOBODY, Batch, Entry, Fault, Later, Preparer, place
from dispatcher.worker.put_off import PutOff
from dispatcher.worker.recorder import Recorder
from dispatcher.worker.redis_watch import RedisWatch

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
RENDERED_AGAIN = 2
"""How often entries are rendered again at once, where their workspace is changed meanwhile, before they are put off."""
TRYING_SHARE = 0.2
"""How much of the time goes to what was put off, at most, while intake is behind with what is new."""

GROUP, CONSUMER = "workers", "intake"

BROKEN = Fault("a key of its endpoint in Redis is not of the type it should be")

log = structlog.get_logger()

Reading = asyncio.Task[list[Entry]]


class Turns(Protocol):
    """Who serves endpoints: the engine."""

    def hint(self, hints: Iterable[Hint]) -> None:
        """These have work."""

    def give_precedence(self, behind: bool) -> None:
        """Whether more waits on the queue: turns make way then."""

    def reserve(self, count: int, workspaces: Iterable[str]) -> Room:
        """Takes slots for what accept may give to this worker at once; how many, and of whom."""

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
        self._put_off = PutOff()
        self._preparer = Preparer(
            workspaces, ledger.now_ms, options or RenderOptions(), recorder, self._put_off.holds
        )
        self._token = secrets.token_hex(8)
        self._held: list[Entry] = []
        self._reread_to: str | None = "0"
        """Up to where what was read and not accepted was read again; None: all of it."""
        self._full = self._behind = False
        self._tried_at = time.monotonic()
        self._said = ""
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
                self._follow()
            except RedisFull as error:
                self._say_behind(False)
                self._say_full(error)
                await self._pause(RENEW_SECONDS)
            except RedisUnavailable as error:
                self._say_behind(False)
                self._watch.failed(error)
                self._reread_to = "0"  # the reply to a read may be lost
                await self._pause(FOLLOW_SECONDS)
            except Exception as error:  # the entries stay on the queue
                self._say_behind(False)
                self._say_fault(error)
                self._reread_to = "0"
                await self._pause(RENEW_SECONDS)
        await self._resign()

    async def _lead(self) -> None:
        """Renews the lease, then works until it is time to renew it again."""
        pending = await self._ledger.lead(self._token, LEASE_MS, full=self._full, renew=self.leading)
        self._watch.worked()
        if pending is None:
            self._follow()
            await self._pause(FOLLOW_SECONDS)
            return
        if not self.leading:
            log.info("intake.leading", pending=pending)
        self.leading = True
        until = time.monotonic() + RENEW_SECONDS
        if not pending:
            self._reread_to = None
        elif not self._put_off:  # for instance a worker that had lost the lead read them since
            self._reread_to = self._reread_to or "0"
        while (self._held or self._reread_to is not None) and self._goes_on(until):
            self._held = self._held or await self._reread()
            if self._held:
                await self._take(self._held)
                self._held = []
        while self._goes_on(until):
            await self._try_again(until)
            entries = await self._read()
            self._say_behind(self._behind and bool(entries))
            await self._take_new(entries, until)

    async def _try_again(self, until: float) -> None:
        """What was put off and is due: one workspace after the other, and with it those that have entries beside its own.

        One batch, and more as long as the share of the time allows it: new entries are read in between.
        """
        now = time.monotonic()
        until = min(until, now + (now - self._tried_at) * TRYING_SHARE / (1 - TRYING_SHARE))
        while (after := self._put_off.due()) is not None:
            entries = await self._xreadgroup(f"{after[0]}-{after[1]}", BATCH)
            last = place(entries[-1][0]) if len(entries) == BATCH else None
            trying = self._put_off.trying(after, last)
            self._held = entries  # where Redis refuses them they are taken once more: nobody died on them
            self._put_off.tried(trying, await self._take(entries, trying=trying), last)
            self._held = []
            if not self._goes_on(until):
                break
        self._tried_at = time.monotonic()

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
                    self._held = []
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

    def _say_fault(self, error: Exception) -> None:
        """Once, until a batch is taken."""
        text = f"{type(error).__name__}: {error}"
        if text != self._said:
            log.error("intake.internal_error", action="trying again", exc_info=error)
        self._said = text

    def _follow(self) -> None:
        if self.leading:
            log.warning("intake.lost_lead", held=len(self._held))
        self.leading = False
        self._say_behind(False)  # or turns would make way for ever
        self._held, self._reread_to = [], "0"
        self._put_off.clear()

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
        """New entries; waits up to a second for some, unless there were many just now, or others are to be tried again."""
        at_once = self._behind or self._put_off.due() is not None
        return await self._read_new(block_ms=None if at_once else 100 if self._put_off else 1000)

    async def _read_new(self, block_ms: int | None = None) -> list[Entry]:
        return await self._xreadgroup(">", BATCH_BEHIND if self._behind else BATCH, block_ms)

    def _is_behind(self, entries: Sequence[Entry]) -> bool:
        """Whether so many came that more will be there, and the last of them had waited for long."""
        enqueued_ms = int(entries[-1][0].partition("-")[0])
        return len(entries) >= BATCH and self._ledger.now_ms() - enqueued_ms > BEHIND_MS

    async def _reread(self) -> list[Entry]:
        """The next entries that were read but not accepted; no entries and no `_reread_to`: those were all.

        Those that were put off come together, others one at a time; one whose readers keep dying is rejected instead.
        """
        events, after = self._ledger.keys.events, self._reread_to or "0"
        with translated(self._url):
            found = await self._call("XPENDING", events, GROUP, f"({after}", "+", BATCH)
        if not found:
            self._reread_to = None
            return []
        if strange := [id_ for id_, consumer, *_ in found if consumer != CONSUMER.encode()]:  # by hand
            await self._claim(strange)
            return []
        deaths, count = found[0][3], len(list(takewhile(lambda one: one[3] == 0, found))) or 1
        if deaths >= MAX_DEATHS and not await self._set_aside(found[0][0].decode(), deaths):
            await self._pause(RENEW_SECONDS)
            return []
        self._reread_to = found[count - 1][0].decode()
        return [] if deaths >= MAX_DEATHS else await self._xreadgroup(after, count)

    async def _set_aside(self, entry_id: str, deaths: int) -> bool:
        """Rejects an entry unread; False: it could not be kept."""
        detail = f"{deaths} workers died on this entry; it was set aside unread"
        log.error("intake.poisoned", entry=entry_id, deaths=deaths)
        return not await self._ledger.reject(self._token, [(entry_id, "poisoned", detail, "", "")])

    async def _claim(self, ids: Sequence[str | bytes]) -> None:
        """Makes read entries ours, as if no reader had died on them."""
        with translated(self._url):
            await self._call(
                "XCLAIM", self._ledger.keys.events, GROUP, CONSUMER, 0, *ids, "RETRYCOUNT", 0, "JUSTID"
            )

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

    async def _take(
        self, entries: Sequence[Entry], batch: Batch | None = None, trying: Mapping[str, bool] = NOBODY
    ) -> dict[str, Later]:
        """Accepts, rejects or puts off entries; those that are put off, by workspace."""
        if batch is None or self._put_off.concerns(batch.workspaces):
            batch = await self._preparer.prepare(entries, trying)
        await self._accept(batch)
        if batch.later:  # whoever reads them again is not told that their readers died
            await self._claim([entry_id for left in batch.later.values() for entry_id in left.ids])
            self._put_off.add(batch.later)
        self._said = ""
        return batch.later

    async def _accept(self, batch: Batch, again: int = RENDERED_AGAIN) -> None:
        """Has the ledger take what it can; what stays is in `batch.later` then.

        Entries whose workspace has changed since they were rendered are rendered again, and nobody else's. What breaks a
        whole batch is looked for entry by entry.
        """
        changed: list[tuple[Entry, str]] = []
        try:
            if batch.callbacks.count or batch.skipped:
                changed = await self._accept_rendered(batch)
        except (NotLeader, RedisUnavailable):
            raise
        except Exception as error:
            await self._accept_one_by_one(batch, error)
        if batch.rejected:
            await self._reject(batch)
        self._say_room()
        if changed and again:
            entries = [entry for entry, _ in changed]
            await self._accept(await self._preparer.prepare(entries, batch.trying, batch.later), again - 1)
        else:
            for entry, workspace in changed:
                batch.put_off(workspace, entry)

    async def _accept_one_by_one(self, batch: Batch, error: Exception) -> None:
        """Each for itself, where they broke together; the last one that is left is what breaks."""
        rendered = sorted([*batch.rendered, *batch.skipped], key=lambda one: place(one[0][0]))
        if len(rendered) == 1:
            [(entry, workspace)] = rendered
            batch.broke(workspace, entry, error)
            return
        for entry, _ in rendered:
            await self._accept(await self._preparer.prepare([entry], batch.trying, batch.later))

    async def _accept_rendered(self, batch: Batch) -> list[tuple[Entry, str]]:
        """The entries whose workspace (beside them) has changed since they were rendered."""
        changed: list[tuple[Entry, str]] = []
        accepted = await self._accept_callbacks(batch)
        for entry, workspace, word in _words(batch, accepted):
            if word == "changed":
                changed.append((entry, workspace))
            elif word == "broken":
                batch.put_off(workspace, entry, BROKEN)
        for workspace in accepted.changed:
            self._workspaces.forget(workspace)
        return sorted(changed, key=lambda one: place(one[0][0]))

    async def _accept_callbacks(self, batch: Batch) -> Accepted:
        room, claims = self._turns.reserve(batch.callbacks.count, batch.workspaces), []
        skipped = [(entry[0], workspace) for entry, workspace in batch.skipped]
        try:
            accepted = await self._ledger.accept(self._token, batch.revisions, skipped, batch.callbacks, room)
            claims = accepted.claims
        finally:  # not at once: first the next batch, if there is one, goes to Redis
            asyncio.get_running_loop().call_soon(self._turns.take_up, claims, room.claims)
        self._count(batch, accepted)
        self._turns.hint(accepted.hints)
        return accepted

    def _count(self, batch: Batch, accepted: Accepted) -> None:
        self._metrics.taken.update(word for word in accepted.words if word not in LEFT_ON_THE_QUEUE)
        self._metrics.taken["no_callback"] += sum(w not in accepted.changed for _, w in batch.skipped)
        if self._recorder:
            self._recorder.count(accepted.recorded, accepted.problem)

    async def _reject(self, batch: Batch) -> None:
        """Keeps entries in `rejected`; those that could not be kept are put off."""
        left = await self._ledger.reject(
            self._token, [(e[0], r.reason, r.detail, r.workspace, r.event_id) for e, r in batch.rejected]
        )
        for entry, r in batch.rejected:
            if entry[0] in left:
                batch.put_off(r.workspace, entry, BROKEN)
                continue
            self._metrics.rejected[r.reason] += 1
            log.warning(
                "event.rejected",
                entry=entry[0],
                reason=r.reason,
                workspace=r.workspace,
                event_id=r.event_id,
            )

    def _say_full(self, error: RedisFull) -> None:
        if not self._full:
            log.error("intake.refused", problem=str(error), action="waiting for room; nothing is lost")
        self._full = True

    def _say_room(self) -> None:
        if self._full:
            log.info("intake.resumed")
        self._full = False


def _words(batch: Batch, accepted: Accepted) -> Iterator[tuple[Entry, str, str]]:
    """What became of each entry, and whose it is."""
    for (entry, workspace), word in zip(batch.rendered, accepted.words, strict=True):
        yield entry, workspace, word
    for entry, workspace in batch.skipped:
        yield entry, workspace, "changed" if workspace in accepted.changed else "skipped"
