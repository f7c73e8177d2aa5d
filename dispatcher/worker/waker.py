"""Looks, four times a second, for what is due, what was forgotten and what has died; and says that this worker is alive."""

import asyncio
import json
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from dispatcher.errors import OtherFormat, RedisUnavailable
from dispatcher.model import iso
from dispatcher.store.format import FORMAT, require_format
from dispatcher.worker.intake import Intake
from dispatcher.worker.load import Load
from dispatcher.worker.lost_leases import LostLeases
from dispatcher.worker.turn import TurnParts
from dispatcher.worker.turns import Turns

WAKE_LIMIT, EXPIRE_LIMIT = 8, 64
"""Endpoints that one wake gives, and callbacks that one call ends: Redis does nothing else meanwhile."""
PAUSE_SECONDS, CROWDED_PAUSE_SECONDS = 0.005, 0.05
"""Before the next wake where there is more to find: endpoints that went down together are due together, and would hold up
those that are served. While many wait here for their turn it is longer; wakes go round by workspace, so the endpoints of
one that has few are found all the same."""
HEARTBEAT_SECONDS = 1.0
PROBES = 20
"""How many probes of `check --live` a heartbeat names: the latest."""

log = structlog.get_logger()


class Waker:
    """One worker's waker. `agree` brings what is in Redis to this version's format. Seconds between wakes: `wake_seconds`."""

    def __init__(
        self,
        name: str,
        parts: TurnParts,
        turns: Turns,
        intake: Intake,
        lost_leases: LostLeases,
        load: Load,
        agree: Callable[[], Awaitable[None]],
        *,
        wake_seconds: float = 0.25,
    ) -> None:
        self._name = name
        self._parts = parts
        self._turns = turns
        self._intake = intake
        self._lost_leases = lost_leases
        self._load = load
        self._agree = agree
        self._wake_seconds = wake_seconds
        self._started_ms = round(time.time() * 1000)
        self._next_heartbeat = 0.0
        self._probes: deque[str] = deque(maxlen=PROBES)

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping`; survives Redis, and faults of ours. Raises OtherFormat."""
        while not stopping.is_set():
            pause = self._pause_before_next(await self._look())
            self._load.look_in(pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)

    async def _look(self) -> bool:
        """Measures and wakes; returns whether there is more to find."""
        try:
            self._measure()
            more = await self.wake()
            self._parts.watch.worked()
            return more
        except RedisUnavailable as error:
            self._parts.watch.failed(error)
        except OtherFormat:
            raise
        except Exception:
            log.exception("waker.internal_error")
        return False

    def _pause_before_next(self, more: bool) -> float:
        if not more:
            return self._wake_seconds
        return CROWDED_PAUSE_SECONDS if self._turns.are_crowded else PAUSE_SECONDS

    def _measure(self) -> None:
        self._load.look()
        metrics = self._parts.metrics
        metrics.loop_lag_seconds = self._load.lag_seconds
        metrics.turns, metrics.in_flight = len(self._turns), self._parts.slots.taken
        metrics.leads_intake = self._intake.leading

    async def wake(self) -> bool:
        """Ends some of what expired, hints some of what is due or was forgotten, settles leases that ran out.

        Returns whether there is more. Raises RedisUnavailable, OtherFormat.
        """
        more = await self._expire()
        woken = await self._parts.ledger.wake(WAKE_LIMIT, self._name, self._heartbeat_if_due())
        require_format(woken.format)
        if not woken.format:  # Redis was emptied
            await self._agree()
        self._turns.workers = woken.workers
        self._turns.hint(woken.hints)
        self._lost_leases.settle(woken.lost)
        await self._parts.tail.publish(watched=woken.watched)
        return more or woken.more

    async def _expire(self) -> bool:
        """Ends some of what expired; returns whether there is more."""
        try:
            return await self._parts.ledger.expire(EXPIRE_LIMIT) == EXPIRE_LIMIT
        except RedisUnavailable:
            raise
        except Exception:  # no reason not to wake: nothing waits for those that are over
            log.exception("waker.internal_error")
            return False

    def answer(self, probe: str) -> None:
        """Shows `check --live` that a hint came through Celery to this worker: the next heartbeat names it."""
        self._probes.append(probe)
        self._next_heartbeat = 0.0

    def _heartbeat_if_due(self) -> str:
        """What others see of this worker, at most once a second; else nothing."""
        if time.monotonic() < self._next_heartbeat:
            return ""
        self._next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS
        return json.dumps(
            {
                "pid": os.getpid(),
                "format": FORMAT,
                "startedAt": iso(self._started_ms),
                "leadsIntake": self._intake.leading,
                "turns": len(self._turns),
                "inFlight": self._parts.slots.taken,
                "probes": list(self._probes),
            }
        )

    async def end(self) -> None:
        """After `run`: ends the heartbeat, and waits until the lost leases in hand are settled."""
        with suppress(RedisUnavailable):  # then the heartbeat ends by itself
            await self._parts.ledger.leave(self._name)
        await self._lost_leases.ended()
