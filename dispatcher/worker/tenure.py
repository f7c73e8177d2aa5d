"""What a worker runs for a partition that it owns: its intake and its waker."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from dispatcher.errors import OtherFormat, RedisUnavailable
from dispatcher.worker.archiver import Archiver
from dispatcher.worker.intake import Intake
from dispatcher.worker.waker import Waker

AGREE_SECONDS = 0.5
"""How often an owner of a partition looks whether its server is available."""

log = structlog.get_logger()


class Tenure:
    """From when a worker is to own a partition until it has handed it over.

    The intake takes the partition's lease as soon as it is free. With one partition every worker has a tenure of it, from start to
    end, and waits for the lease.
    """

    def __init__(
        self,
        partition: int,
        intake: Intake,
        waker: Waker,
        agree: Callable[[], Awaitable[None]] | None = None,
        archiver: Archiver | None = None,
    ) -> None:
        """`agree` brings the partition's data to this version's format first; None: it has been.

        `archiver` takes what has ended to the archive, if there is one.
        """
        self.partition = partition
        self.intake = intake
        self._waker = waker
        self._agree = agree
        self._archiver = archiver

    def owned(self) -> frozenset[int]:
        """The partition, if this worker has its lease; else nothing."""
        return frozenset((self.partition,) if self.intake.has_lease else ())

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping`; then lets intake's batch be accepted, gives up the lease, and ends the waker. Raises OtherFormat."""
        if not await self._agree_on_format(stopping):
            return
        intake = asyncio.create_task(self.intake.run())
        waker = asyncio.create_task(self._waker.run(stopping))
        archiver = asyncio.create_task(self._archiver.run(stopping)) if self._archiver else None
        stopped = asyncio.ensure_future(stopping.wait())
        try:
            done, _ = await asyncio.wait({intake, waker, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()
            self.intake.stop()
            await intake
            await waker
        finally:
            for task in (intake, waker, stopped, *([archiver] if archiver else ())):
                task.cancel()
        await self._waker.end()

    async def _agree_on_format(self, stopping: asyncio.Event) -> bool:
        """Calls `agree` until that succeeds. False if `stopping` came first. Raises OtherFormat."""
        while self._agree and not stopping.is_set():
            try:
                await self._agree()
                break
            except RedisUnavailable as error:
                self.intake.note_failure(error)
            except OtherFormat:
                raise
            except (
                Exception
            ):  # one partition must not end the worker, and the next one that tries, and the next
                log.exception("tenure.internal_error", partition=self.partition, action="trying again")
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), AGREE_SECONDS)
        return not stopping.is_set()
