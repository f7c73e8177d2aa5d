"""Repairs what nothing else finds: unfinished callbacks in no lane, lease or chain, and keys overwritten by hand.

The worker that leads intake scans the ledger slowly, over and over. A script that breaks off is completed when it is
repeated, so only damage from outside needs such repairs.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from itertools import count

import structlog

from dispatcher.errors import RedisUnavailable
from dispatcher.store.endpoints import Endpoints
from dispatcher.store.ledger import Ledger

SWEEP_SECONDS = 1.0
KEYS_AT_ONCE = 500
"""Keys that one call looks at, which takes Redis a fraction of a millisecond."""
MENDED_AT_ONCE = 1000
"""Most endpoints whose keys are checked together; the sweep finds the rest."""

log = structlog.get_logger()


class Sweeper:
    """Sweeps while this worker leads intake; in any worker, repairs at once the keys that a script failed on."""

    def __init__(self, endpoints: Endpoints, ledger: Ledger) -> None:
        self._endpoints = endpoints
        self._ledger = ledger
        ledger.on_broken = self.broken
        self._broken = asyncio.Event()
        self._suspects: set[str] = set()
        self._said = ""
        self._cursor = "0"

    def broken(self, problem: str, endpoints: Sequence[str]) -> None:
        """A script met a key of the wrong type, maybe one of these endpoints'."""
        self._suspects.update(endpoints)
        if problem != self._said:
            log.error("redis.wrong_type", problem=problem, action="setting the key aside")
        self._said = problem
        self._broken.set()

    async def run(self, leads: Callable[[], bool], stopping: asyncio.Event) -> None:
        """Runs until it is cancelled or `stopping`: redis-py may lose a cancellation. Survives failures of Redis.

        `leads` says whether this worker leads intake.
        """
        while not stopping.is_set():
            try:
                await asyncio.wait_for(self._broken.wait(), SWEEP_SECONDS)
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(SWEEP_SECONDS / 10)  # one repair for all scripts that meet the key
            try:
                if self._broken.is_set() or leads():
                    await self.step()
            except RedisUnavailable:
                continue  # the waker logs it
            except Exception:
                log.exception("sweeper.internal_error")

    async def step(self) -> bool:
        """Repairs what scripts failed on, then looks at some keys; returns whether that completes a scan."""
        if self._broken.is_set():
            self._broken.clear()
            suspects, self._suspects = self._suspects, set()
            mended = await self._ledger.mend(sorted(suspects)[:MENDED_AT_ONCE])
            self._say_aside(mended)
            self._cursor = "0" if mended else self._cursor
        swept = await self._ledger.sweep(self._cursor, KEYS_AT_ONCE)
        self._cursor = swept.cursor
        self._say_aside(swept.set_aside)
        for workspace, event_id in swept.put_back:
            log.error(
                "callback.put_back", workspace=workspace, event_id=event_id, reason="pending and nowhere"
            )
        for endpoint, callback in swept.nameless:
            workspace, _, event_id = callback.partition(":")
            now_ms, retention_ms = self._ledger.now_ms(), self._ledger.options.retention_ms
            await self._endpoints.restore(endpoint, workspace, event_id, now_ms, retention_ms)
        if self._cursor == "0":
            self._said = ""
        return self._cursor == "0"

    @property
    def is_needed(self) -> bool:
        """Whether a script failed on a key that is not repaired yet."""
        return self._broken.is_set()

    def _say_aside(self, keys: list[str]) -> None:
        for key in keys:
            log.error("redis.key_set_aside", key=key, action="its place is taken by a new one")


class Sweepers:
    """The sweepers of all partitions. Of several, one sweeps at a time: what a worker leads is swept in turn."""

    def __init__(self, sweepers: Sequence[Sweeper]) -> None:
        self._sweepers = sweepers

    async def run(self, owned: Callable[[], Collection[int]], stopping: asyncio.Event) -> None:
        """Runs until it is cancelled or `stopping`. Survives failures of Redis. `owned` says which partitions this worker leads."""
        if len(self._sweepers) == 1:
            await self._sweepers[0].run(lambda: bool(owned()), stopping)
            return
        for turn in count():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), SWEEP_SECONDS)
            if stopping.is_set():
                return
            due = [one for one in self._sweepers if one.is_needed]
            if mine := sorted(owned()):
                due.append(self._sweepers[mine[turn % len(mine)]])
            for sweeper in due:
                await self._step(sweeper)

    @staticmethod
    async def _step(sweeper: Sweeper) -> None:
        try:
            await sweeper.step()
        except RedisUnavailable:
            return  # intake logs it
        except Exception:
            log.exception("sweeper.internal_error")
