"""Finds what nothing else would: callbacks that are pending and nowhere, keys that were written over by hand.

The worker that leads intake looks through the ledger, slowly and for ever. A script that breaks off is completed when it
is repeated, so only damage from outside leaves such things.
"""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from dispatcher.errors import RedisUnavailable
from dispatcher.store.endpoints import Endpoints
from dispatcher.store.ledger import Ledger

SWEEP_SECONDS = 1.0
KEYS_AT_ONCE = 500
"""Redis looks at so many keys for one answer, in a fraction of a millisecond."""
MENDED_AT_ONCE = 1000
"""Endpoints whose keys are looked at together; of more than that the sweep finds the rest."""

log = structlog.get_logger()


class Sweeper:
    """Sweeps while this worker leads intake; mends at once what a script of its ledger met."""

    def __init__(self, endpoints: Endpoints, ledger: Ledger) -> None:
        self._endpoints = endpoints
        self._ledger = ledger
        ledger.on_broken = self.broken
        self._broken = asyncio.Event()
        self._suspects: set[str] = set()
        self._said = ""
        self._cursor = "0"

    def broken(self, problem: str, endpoints: Sequence[str]) -> None:
        """A script met a key that is not of the type it should be, maybe one of these endpoints'."""
        self._suspects.update(endpoints)
        if problem != self._said:
            log.error("redis.wrong_type", problem=problem, action="setting the key aside")
        self._said = problem
        self._broken.set()

    async def run(self, leads: Callable[[], bool], stopping: asyncio.Event) -> None:
        """Runs until it is cancelled, and not on when `stopping`: redis-py may lose a cancellation. Survives Redis.

        `leads` says whether this worker leads intake.
        """
        while not stopping.is_set():
            try:
                await asyncio.wait_for(self._broken.wait(), SWEEP_SECONDS)
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(SWEEP_SECONDS / 10)  # one mending for all that met it
            try:
                if self._broken.is_set() or leads():
                    await self.step()
            except RedisUnavailable:
                continue  # the waker says so
            except Exception:
                log.exception("sweeper.internal_error")

    async def step(self) -> bool:
        """Mends what was met, and looks at some keys; whether all of them were looked at by now."""
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
            await self._endpoints.restore(endpoint, workspace, event_id, self._ledger.now_ms())
        if self._cursor == "0":
            self._said = ""
        return self._cursor == "0"

    def _say_aside(self, keys: list[str]) -> None:
        for key in keys:
            log.error("redis.key_set_aside", key=key, action="its place is taken by a new one")
