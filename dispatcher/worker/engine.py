"""Starts and stops the parts of a worker, each of which has a file of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Protocol

import structlog

from dispatcher.errors import RedisUnavailable
from dispatcher.store.replies import Hint
from dispatcher.worker.alert_loop import AlertLoop
from dispatcher.worker.heartbeat import Heartbeat
from dispatcher.worker.hints import Hints
from dispatcher.worker.sweeper import Sweepers
from dispatcher.worker.turn import TurnParts
from dispatcher.worker.turns import Turns

AGREE_SECONDS = 0.5
"""How often a starting worker checks whether Redis is available."""
CANCEL_SECONDS = 1.0
"""How long a part may take to end once it is cancelled."""

log = structlog.get_logger()


class Owner(Protocol):
    """Leads partitions: the only one (Tenure), or those that are this worker's of several (PartitionOwner)."""

    def owned(self) -> Collection[int]:
        """The partitions that this worker leads now."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping`, and ends in order. Raises OtherFormat."""


class Engine:
    """One worker's engine. `agree` brings the data in Redis to this version's format, or raises OtherFormat."""

    def __init__(
        self,
        parts: Sequence[TurnParts],
        hints: Hints,
        turns: Turns,
        owner: Owner,
        heartbeat: Heartbeat,
        sweeper: Sweepers,
        alert_loop: AlertLoop,
        agree: Callable[[], Awaitable[None]],
    ) -> None:
        self._parts = parts
        self._hints = hints
        self._turns = turns
        self._owner = owner
        self._heartbeat = heartbeat
        self._sweeper = sweeper
        self._alert_loop = alert_loop
        self._agree = agree
        self._stopping = asyncio.Event()
        self._agreed = False
        self._early: dict[Hint, None] = {}
        """Hints that came before the format was agreed on."""

    async def run(self) -> None:
        """Runs until `stop`; then ends in order: intake, turns with their POSTs, hints. Raises OtherFormat."""
        log.info("engine.started", worker=self._heartbeat.name, max_in_flight=self._parts[0].slots.limit)
        if await self._agree_on_format():
            self._agreed = True
            self._turns.serve(self._early)
            await self._run_parts()
        log.info("engine.stopped", worker=self._heartbeat.name)

    async def _run_parts(self) -> None:
        """Runs the parts until `stop`, then ends them."""
        hints = asyncio.create_task(self._hints.run(self._turns.serve, self._stopping))
        owner = asyncio.create_task(self._owner.run(self._stopping))
        sweeper = asyncio.create_task(self._sweeper.run(self._owner.owned, self._stopping))
        alerts = asyncio.create_task(self._alert_loop.run(self._owner.owned, self._stopping))
        await self._stopped_or_broken({hints, owner, sweeper, alerts})

        await owner
        await self._turns.ended()
        for parts in self._parts:
            if parts.disabler:
                await parts.disabler.ended()
        await self._hints.end()
        for task in (hints, sweeper, alerts):
            task.cancel()
        await asyncio.wait({hints, sweeper, alerts}, timeout=CANCEL_SECONDS)  # keeps alerts for `end`
        await self._alert_loop.end()

    async def finish(self) -> None:
        """Waits until POSTs in flight have ended and are recorded; for after `run` has raised HasGrown. Begins no more."""
        self.stop()
        await self._turns.ended()

    async def _agree_on_format(self) -> bool:
        """Calls `agree`, and waits for Redis if it is not available. False if `stop` came first. Raises OtherFormat."""
        while not self._stopping.is_set():
            try:
                await self._agree()
                return True
            except RedisUnavailable as error:
                self._parts[0].watch.failed(error)
                await asyncio.sleep(AGREE_SECONDS)
        return False

    async def _stopped_or_broken(self, tasks: set[asyncio.Task[None]]) -> None:
        """Waits for `stop`; if a task ends before, raises its error."""
        stopped = asyncio.ensure_future(self._stopping.wait())
        done, _ = await asyncio.wait({*tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            task.result()

    def stop(self) -> None:
        """Ends `run`; call it on the loop. May be called again."""
        self._stopping.set()
        self._turns.close()

    @property
    def turns(self) -> int:
        """Number of endpoints that are being served."""
        return len(self._turns)

    async def serve(self, hints: Iterable[Hint]) -> None:
        """Serves endpoints that a Celery message names, once the format is agreed on: another worker hinted them.

        What names a partition that there is not is dropped: nobody of this installation can have sent it.
        """
        hints = [hint for hint in hints if hint.partition < len(self._parts)]
        if self._agreed:
            self._turns.serve(hints)
        else:
            self._early.update(dict.fromkeys(hints))

    def answer(self, probe: str) -> None:
        """Shows `check --live` that a hint reached this engine through Celery."""
        self._heartbeat.answer(probe)
