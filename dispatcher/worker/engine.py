"""The loop that holds it all: intake, waker, turns and the publisher of hints of one worker."""

import asyncio
import json
import os
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby, islice
from operator import attrgetter

import structlog

from dispatcher.errors import OtherFormat, RedisUnavailable
from dispatcher.model import iso
from dispatcher.rules.decide import decide_lost
from dispatcher.rules.outcomes import Attempt
from dispatcher.store.arguments import Room
from dispatcher.store.format import FORMAT, require_format
from dispatcher.store.ledger import Ledger
from dispatcher.store.replies import Claim, Hint, Lost, Settlement
from dispatcher.store.stats import Stats
from dispatcher.worker.admission import Admission
from dispatcher.worker.alerts import ALERT_SECONDS
from dispatcher.worker.intake import BATCH_BEHIND, Intake
from dispatcher.worker.ready import Ready
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.sweeper import Sweeper
from dispatcher.worker.turn import Turn, TurnParts

HINT_ENDPOINTS = 16
"""Endpoints in one Celery message."""
WAKE_LIMIT, WAKE_PAUSE_SECONDS, EXPIRE_LIMIT = 8, 0.005, 64
"""Endpoints that are woken, and callbacks that are ended, at once, with a pause before the next: many that are due together
(they went down together) would hold up those that are served."""
READY, CROWDED_PAUSE_SECONDS = 64, 0.05
"""Endpoints that wait to be served, from which on the waker takes its time, and others may have them: it goes round by
workspace, so who has few that are due is still found."""
OF_ONE = 16
"""Callbacks of one workspace that accept gives at once, and endpoints that it hints, while others want slots."""
AGREE_SECONDS = 0.5
"""How often a worker that starts looks whether Redis is there."""
SIGN_SECONDS, LOOK_SECONDS = 1.0, 0.2
LAST_SECONDS = 1.0
"""What the last alerts, and the last hints, have at the end."""
ACCEPTED_FOR_ONE = 16
BUSY = 0.7
"""Share of a core above which a worker leaves endpoints to others, if there are any."""

log = structlog.get_logger()

Publish = Callable[[Sequence[Hint]], None]


class Engine:
    """One worker's engine. `publish` (called in a thread) sends a hint to some worker, maybe this one.

    `agree` sees to it that what is in Redis has this version's format.
    """

    def __init__(
        self,
        name: str,
        parts: TurnParts,
        make_intake: Callable[["Engine"], Intake],
        sweeper: Sweeper,
        agree: Callable[[], Awaitable[None]],
        watch: RedisWatch,
        publish: Publish,
        stats: Stats,
        *,
        wake_seconds: float = 0.25,
    ) -> None:
        self.name = name
        self._ledger: Ledger = parts.ledger
        self._parts = parts
        self._intake = make_intake(self)
        self._sweeper = sweeper
        self._agree = agree
        self._watch = watch
        self._publish = publish
        self._stats = stats
        self._slots = parts.slots
        self._slots.on_free = self._serve_others
        self._serves_others = False
        """Whether the loop will look for an endpoint that slots became free for."""
        self._wake_seconds = wake_seconds
        self._turns: dict[str, Turn] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._settling_lost: set[str] = set()
        """Endpoints of which lost leases are being settled."""
        self._hints = Ready()
        """For other workers."""
        self._admission = Admission(self._slots)
        self._hinted = asyncio.Event()
        self._stopping = asyncio.Event()
        self._publisher = ThreadPoolExecutor(1, "hints")  # kombu's producers are not thread-safe
        self._publishing_fails = False
        self._started_ms = round(time.time() * 1000)
        self._next_sign = 0.0
        self._workers = 1
        self._share_of_core = 0.0
        self._looked = time.thread_time(), time.monotonic()
        self._planned = time.monotonic()
        """When the waker is to look next."""
        self._probes: deque[str] = deque(maxlen=20)

    async def run(self) -> None:
        """Runs until `stop`; then ends in order: intake, turns with their POSTs, hints."""
        log.info("engine.started", worker=self.name, max_in_flight=self._slots.limit)
        await self._agree_on_format()
        waker = asyncio.create_task(self._wake_loop())
        publisher = asyncio.create_task(self._publish_loop())
        intake = asyncio.create_task(self._intake.run())
        alerts = asyncio.create_task(self._alert_loop())
        sweeper = asyncio.create_task(self._sweeper.run(lambda: self._intake.leading, self._stopping))
        stopped = asyncio.create_task(self._stopping.wait())
        done, _ = await asyncio.wait(
            {waker, publisher, intake, alerts, sweeper, stopped}, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done - {stopped}:
            task.result()  # raises: none of them ends by itself
        self._intake.stop()
        await intake
        await waker
        with suppress(RedisUnavailable):  # then its sign of life ends by itself
            await self._ledger.leave(self.name)
        while self._tasks:
            await asyncio.wait(self._tasks)
        for task in (publisher, alerts, sweeper):
            task.cancel()
        for last in (self._send_alerts(), self._publish_rest()):
            with suppress(TimeoutError):
                await asyncio.wait_for(last, LAST_SECONDS)
        self._publisher.shutdown(wait=False, cancel_futures=True)  # its call may wait for a silent broker
        log.info("engine.stopped", worker=self.name)

    @property
    def turns(self) -> int:
        """Endpoints that are served now."""
        return len(self._turns)

    async def _agree_on_format(self) -> None:
        """Waits for Redis, if need be. Raises OtherFormat."""
        while not self._stopping.is_set():
            try:
                await self._agree()
                return
            except RedisUnavailable as error:
                self._watch.failed(error)
                await asyncio.sleep(AGREE_SECONDS)

    def stop(self) -> None:
        """Ends `run`; call it on the loop."""
        self._stopping.set()
        self._slots.close()
        self.hint(self._admission.take_all())
        for turn in self._turns.values():
            turn.nudge()  # it may wait for a token of its endpoint's rate

    def hint(self, hints: Iterable[Hint]) -> None:
        """Has endpoints served soon: here, or by some worker where this one has its hands full."""
        for hint in hints:
            alone = self._workers < 2
            if self._stopping.is_set() or not (alone or self._has_time(hint)):
                self._hints.add(hint)
                self._hinted.set()
            else:
                self._serve_soon(hint)

    def _has_time(self, hint: Hint) -> bool:
        return self._share_of_core < BUSY and len(self._admission) < READY and self._slots.free(*hint) > 0

    def reserve(self, count: int, workspaces: Iterable[str]) -> Room:
        """Takes slots for what accept may give to this worker at once; how many, and of whom."""
        busy = self._workers > 1 and self._share_of_core > BUSY
        claims = 0 if busy or self._stopping.is_set() else self._slots.reserve(count)
        if not self._slots.are_shared():
            return Room(claims)
        return Room(claims, {one: min(OF_ONE, self._slots.free("", one)) for one in workspaces}, OF_ONE)

    def take_up(self, claims: Sequence[tuple[str, Claim]], reserved: int) -> None:
        """Serves what accept gave; `reserved` slots were taken for it."""
        self._slots.release(reserved, sum(len(claim.callbacks) for _, claim in claims))
        for endpoint, claim in claims:
            turn = self._turns.get(endpoint)
            self._slots.hold(endpoint, turn.workspace if turn else claim.workspace, len(claim.callbacks))
            if turn:
                turn.take(claim)
            else:
                self._begin(Turn(Hint(endpoint, claim.workspace), self._parts, claim))

    def give_precedence(self, behind: bool) -> None:
        """While intake is behind, only one callback starts for so many that are accepted."""
        self._slots.ration(BATCH_BEHIND // ACCEPTED_FOR_ONE if behind else None)
        self._serve_next()

    def _begin(self, turn: Turn, quota: str | None = None) -> None:
        """Starts a turn; `quota` is what its first claim counts in."""
        self._turns[turn.endpoint] = turn
        self._start(self._serve_turn(turn, quota))

    async def serve(self, hints: Iterable[Hint]) -> None:
        """Serves endpoints that another worker hinted. While stopping, they go back to the queue."""
        if self._stopping.is_set():
            self.hint(hints)
            return
        for hint in hints:
            self._serve_soon(hint)

    def _serve_soon(self, hint: Hint) -> None:
        """Starts a turn, as soon as it is the endpoint's workspace's turn and there is room."""
        if hint.endpoint in self._turns:
            self._turns[hint.endpoint].nudge()
        else:
            self._admission.add(hint)
            self._serve_next()

    def _serve_next(self) -> None:
        """Starts turns for endpoints that wait, as far as there is room."""
        self._serves_others = False
        while admitted := self._admission.next():
            hint, quota = admitted
            if hint.endpoint in self._turns:
                self._admission.begun(quota)
                self._turns[hint.endpoint].nudge()
            else:
                self._begin(Turn(hint, self._parts), quota)

    def _serve_others(self) -> None:
        """Slots became free: whoever waits may have them, once for all that become free now."""
        if len(self._admission) and not self._serves_others:
            self._serves_others = True
            asyncio.get_running_loop().call_soon(self._serve_next)

    def answer(self, probe: str) -> None:
        """Shows `check --live` that a hint came through Celery to this engine: the next sign of life names it."""
        self._probes.append(probe)
        self._next_sign = 0.0

    def _start(self, coroutine: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_turn(self, turn: Turn, quota: str | None) -> None:
        try:
            if quota is not None:
                try:
                    await turn.begin()
                finally:
                    self._admission.begun(quota)
                    self._serve_next()
            more = await turn.run()
        finally:
            del self._turns[turn.endpoint]
            self._serve_next()
        if more:
            self.hint([Hint(turn.endpoint, turn.workspace)])

    async def _wake_loop(self) -> None:
        while not self._stopping.is_set():
            more = False
            try:
                self._look_at_the_clock()
                more = await self._wake()
                self._watch.worked()
            except RedisUnavailable as error:
                self._watch.failed(error)
            except OtherFormat:
                raise
            except Exception:
                log.exception("waker.internal_error")
            crowded = len(self._admission) >= READY
            pause = (CROWDED_PAUSE_SECONDS if crowded else WAKE_PAUSE_SECONDS) if more else self._wake_seconds
            self._planned = time.monotonic() + pause
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    def _look_at_the_clock(self) -> None:
        """How late the loop is; and how much of its core it used since the last look, some time ago."""
        used, now = time.thread_time(), time.monotonic()
        metrics = self._parts.metrics
        metrics.loop_lag_seconds = max(0.0, now - self._planned)
        metrics.turns, metrics.in_flight = len(self._turns), self._slots.taken
        metrics.leads_intake = self._intake.leading
        if now - self._looked[1] >= LOOK_SECONDS:
            self._share_of_core = (used - self._looked[0]) / (now - self._looked[1])
            self._looked = used, now

    async def _wake(self) -> bool:
        """Ends some of what expired, hints some of what is due or was forgotten, settles leases that ran out; whether there is more."""
        more = False
        try:
            more = await self._ledger.expire(EXPIRE_LIMIT) == EXPIRE_LIMIT
        except RedisUnavailable:
            raise
        except Exception:  # nobody waits for those that are over
            log.exception("waker.internal_error")
        woken = await self._ledger.wake(WAKE_LIMIT, self.name, self._sign_of_life())
        require_format(woken.format)
        if not woken.format:  # somebody emptied Redis
            await self._agree()
        self._workers = woken.workers
        self.hint(woken.hints)
        for endpoint, group in groupby(woken.lost, attrgetter("endpoint")):
            if endpoint not in self._settling_lost:  # beside the waker, which one endpoint must not hold up
                self._settling_lost.add(endpoint)
                self._start(self._settle_lost(endpoint, list(group)))
        await self._parts.tail.publish(watched=woken.watched)
        return more or woken.more

    async def _alert_loop(self) -> None:
        """Tells the operator what was gathered; the worker that leads intake looks at success rates too."""
        while not self._stopping.is_set():
            await asyncio.sleep(ALERT_SECONDS)
            try:
                if self._intake.leading:
                    self._parts.alerts.rates(await self._stats.workspaces(self._ledger.now_ms(), 2))
            except RedisUnavailable:
                continue  # the waker says so
            except Exception:
                log.exception("alerts.internal_error")
            await self._send_alerts()

    async def _send_alerts(self) -> None:
        try:
            await self._parts.alerts.send(round(time.time() * 1000))
        except Exception:
            log.exception("alerts.internal_error")

    async def _settle_lost(self, endpoint: str, lost: Sequence[Lost]) -> None:
        """Their worker died (or stalled): counts as an attempt, because a POST may have been made."""
        try:
            settlements = [self._settlement_of(callback) for callback in lost]
            settled = await self._parts.settler.settle(endpoint, settlements)
        except RedisUnavailable as error:  # they are found again
            self._watch.failed(error)
            return
        except Exception:
            log.exception("waker.internal_error", endpoint=endpoint)
            return
        finally:
            self._settling_lost.discard(endpoint)
        for callback, ok in zip(lost, settled.counted, strict=True):
            if ok:
                log.warning(
                    "callback.worker_lost", event_id=callback.event_id, endpoint=callback.endpoint_name
                )
        if settled.more:
            self.hint([Hint(endpoint, lost[0].endpoint_name.partition(" ")[0])])

    def _settlement_of(self, lost: Lost) -> Settlement:
        now_ms = self._ledger.now_ms()
        outcome = decide_lost(
            lost.attempt,
            lost.lost_before,
            now_ms=now_ms,
            expires_ms=lost.expires_ms,
            policy=self._parts.policy,
            rng=random.random(),
        )
        attempt = Attempt(now_ms, 0, error="worker_lost")
        return Settlement(lost.event_id, lost.claim, outcome, attempt, losses=lost.lost_before + 1)

    def _is_sign_due(self) -> bool:
        return time.monotonic() >= self._next_sign

    def _sign_of_life(self) -> str:
        """What others see of this worker; at most once a second."""
        if not self._is_sign_due():
            return ""
        self._next_sign = time.monotonic() + SIGN_SECONDS
        return json.dumps(
            {
                "pid": os.getpid(),
                "format": FORMAT,
                "startedAt": iso(self._started_ms),
                "leadsIntake": self._intake.leading,
                "turns": len(self._turns),
                "inFlight": self._slots.taken,
                "probes": list(self._probes),
            }
        )

    async def _publish_loop(self) -> None:
        while True:
            await self._hinted.wait()
            self._hinted.clear()
            while self._hints:
                batch = self._next_hints()
                if not await self._published(batch) and not self._stopping.is_set():
                    self._start(self.serve(batch))

    async def _publish_rest(self) -> None:
        while self._hints and await self._published(self._next_hints()):
            pass

    def _next_hints(self) -> list[Hint]:
        return list(islice(iter(self._hints.take, None), HINT_ENDPOINTS))

    async def _published(self, batch: Sequence[Hint]) -> bool:
        try:
            await asyncio.get_running_loop().run_in_executor(self._publisher, self._publish, batch)
        except Exception as error:
            if not self._publishing_fails:
                log.warning("hints.unpublished", problem=str(error), action="serving the endpoints here")
            self._publishing_fails = True
            return False
        self._publishing_fails = False
        return True
