"""Finds endpoints that are due, hints that were lost and leases that ran out; keeps this worker's heartbeat."""

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
from dispatcher.store.format import FORMAT, FORMATS, require_format
from dispatcher.worker.intake import Intake
from dispatcher.worker.load import Load
from dispatcher.worker.lost_leases import LostLeases
from dispatcher.worker.turn import TurnParts
from dispatcher.worker.turns import Turns

WAKE_LIMIT, EXPIRE_LIMIT = 8, 64
"""Most endpoints that one wake looks at, and callbacks that one `expire` does: Redis does nothing else meanwhile."""
PAUSE_SECONDS, CROWDED_PAUSE_SECONDS = 0.005, 0.05
"""The pause before the next wake if there is more to find, and while many endpoints wait here for a turn.

Endpoints that went down together are due together, and without a pause would hold up those that are being served. The
longer pause does not delay a workspace with few endpoints much, since wakes take workspaces in turn.
"""
HEARTBEAT_SECONDS = 1.0
PROBES = 20
"""Most probes of `check --live` that a heartbeat names, the latest ones."""

log = structlog.get_logger()


class Waker:
    """One worker's waker: it wakes every `wake_seconds`. `agree` brings the data in Redis to this version's format."""

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
        """Runs until `stopping`; survives failures of Redis and internal errors. Raises OtherFormat."""
        while not stopping.is_set():
            pause = self._pause_before_next(await self._look())
            self._load.look_in(pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)

    async def _look(self) -> bool:
        """Measures the load, then wakes; returns whether there is more to find."""
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
        """Ends expired callbacks, hints endpoints that are due or whose hint was lost, settles leases that ran out.

        Takes a limited number of each; returns whether there is more. Raises RedisUnavailable, OtherFormat.
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
        """Ends some of the expired callbacks; returns whether there may be more."""
        try:
            return await self._parts.ledger.expire(EXPIRE_LIMIT) == EXPIRE_LIMIT
        except RedisUnavailable:
            raise
        except Exception:  # wake all the same: nothing waits for expired callbacks
            log.exception("waker.internal_error")
            return False

    def answer(self, probe: str) -> None:
        """Shows `check --live` that a hint reached this worker through Celery: the next heartbeat names the probe."""
        self._probes.append(probe)
        self._next_heartbeat = 0.0

    def _heartbeat_if_due(self) -> str:
        """The heartbeat as JSON if one is due (every second, and after a probe); else empty."""
        if time.monotonic() < self._next_heartbeat:
            return ""
        self._next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS
        return json.dumps(
            {
                "pid": os.getpid(),
                "format": FORMAT,
                "formats": FORMATS,
                "startedAt": iso(self._started_ms),
                "leadsIntake": self._intake.leading,
                "turns": len(self._turns),
                "inFlight": self._parts.slots.taken,
                "probes": list(self._probes),
            }
        )

    async def end(self) -> None:
        """Call after `run`: ends the heartbeat, and waits until the lost leases that were found are settled."""
        with suppress(RedisUnavailable):  # then the heartbeat expires by itself
            await self._parts.ledger.leave(self._name)
        await self._lost_leases.ended()
