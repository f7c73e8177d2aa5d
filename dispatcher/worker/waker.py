"""Finds endpoints that are due, hints that were lost and leases that ran out."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from dispatcher.errors import OtherFormat, RedisUnavailable
from dispatcher.store.format import require_format
from dispatcher.worker.heartbeat import Heartbeat
from dispatcher.worker.intake import Intake
from dispatcher.worker.lost_leases import LostLeases
from dispatcher.worker.turn import TurnParts
from dispatcher.worker.turns import Turns

WAKE_LIMIT, EXPIRE_LIMIT = 8, 64
"""Most endpoints that one wake looks at, and callbacks that one `expire` does: Redis does nothing else meanwhile."""
LONGER_PAUSE_SECONDS = 0.005
"""Up to this long the pause before the next wake is longer the more workers there are."""
CROWDED_PAUSE_SECONDS = 0.05
"""The pause before the next wake while many endpoints wait here for a turn; the longest one if there is more to find.

It does not delay a workspace with few endpoints much, since wakes take workspaces in turn.
"""
log = structlog.get_logger()


class Waker:
    """Wakes the endpoints of one partition. `agree` brings the data in Redis to this version's format.

    With one partition, every worker's waker wakes every `wake_seconds`, and with it goes the worker's `heartbeat`. With
    several there is none: a partition's owner alone wakes, when something is due.
    """

    def __init__(
        self,
        parts: TurnParts,
        turns: Turns,
        intake: Intake,
        lost_leases: LostLeases,
        agree: Callable[[], Awaitable[None]],
        heartbeat: Heartbeat | None = None,
        *,
        wake_seconds: float = 0.25,
    ) -> None:
        self._parts = parts
        self._turns = turns
        self._intake = intake
        self._lost_leases = lost_leases
        self._agree = agree
        self._heartbeat = heartbeat
        self._wake_seconds = wake_seconds

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping`; survives failures of Redis and internal errors. Raises OtherFormat."""
        while not stopping.is_set():
            if not self._heartbeat:
                await self._intake.something_due()
                if stopping.is_set():
                    return
            began = time.monotonic()
            more = await self._look()
            pause = self._pause_before_next(time.monotonic() - began) if more else self._wake_seconds
            if self._heartbeat:
                self._heartbeat.load.look_in(pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)

    async def _look(self) -> bool:
        """Measures the load, then wakes; returns whether there is more to find."""
        try:
            if self._heartbeat:
                self._heartbeat.measure(int(self._intake.leading))
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

    def _pause_before_next(self, took_seconds: float) -> float:
        """If there is more to find: as long as the last wake took; with several workers longer, but not beyond 5 ms.

        Endpoints that went down together are due together, and must not hold up those that are being served. So there is
        time for all else: in Redis, and in this worker, where a wake takes longer if it is busy.
        """
        wakers = 1
        if self._heartbeat:
            wakers = self._turns.workers
        else:
            self._intake.note_due(0)
        pause = max(took_seconds, min(wakers * took_seconds, LONGER_PAUSE_SECONDS))
        return CROWDED_PAUSE_SECONDS if self._turns.are_crowded else min(pause, CROWDED_PAUSE_SECONDS)

    async def wake(self) -> bool:
        """Ends expired callbacks, hints endpoints that are due or whose hint was lost, settles leases that ran out.

        Takes a limited number of each; returns whether there is more. Raises RedisUnavailable, OtherFormat.
        """
        more = await self._expire()
        name = text = ""
        if self._heartbeat:
            name, text = (
                self._heartbeat.name,
                self._heartbeat.if_due(leads=self._intake.leading, watched=self._parts.tail.watched),
            )
        woken = await self._parts.ledger.wake(WAKE_LIMIT, name, text)
        require_format(woken.format, archives=self._parts.ledger.options.archives)
        if not woken.format:  # Redis was emptied
            await self._agree()
        if self._heartbeat:
            self._turns.workers = woken.workers
        self._turns.hint(woken.hints)
        self._lost_leases.settle(woken.lost)
        if self._heartbeat:
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

    async def end(self) -> None:
        """Call after `run`: ends the heartbeat, and waits until the lost leases that were found are settled."""
        if self._heartbeat:
            try:
                await self._parts.ledger.leave(self._heartbeat.name)
            except RedisUnavailable:
                pass  # then the heartbeat expires by itself
            except Exception:  # so it does: turns are still to end
                log.exception("waker.internal_error")
        await self._lost_leases.ended()
