"""Enqueues the status changes of one call of the HTTP API, which may be of workspaces in several partitions."""

from collections.abc import Iterable
from typing import Protocol

from dispatcher.errors import EnqueueInterrupted, RedisUnavailable
from dispatcher.store.across.queue_writer import QueueWriterAcross


class Change(Protocol):
    """A status change that was looked at, as it goes onto the queue."""

    @property
    def event_id(self) -> str: ...
    @property
    def workspace(self) -> str: ...
    @property
    def raw(self) -> bytes: ...


class ProducerAcross:
    """Has those methods of AsyncDispatcher that the API calls."""

    def __init__(self, queue: QueueWriterAcross, max_queued: int) -> None:
        self._queue = queue
        self._max_queued = max_queued

    async def queued(self) -> int:
        """0: each status change is held against the queue of its own partition when it is enqueued."""
        return 0

    async def unknown_workspaces(self, workspaces: Iterable[str]) -> list[str]:
        """Those of the workspaces that do not exist; without those whose partition does not answer.

        Raises RedisUnavailable if no partition answers.
        """
        asked = sorted(set(workspaces))
        return sorted((await self._queue.look({}, asked)).unknown) if asked else []

    async def enqueue_ready(self, changes: Iterable[Change]) -> list[str]:
        """Enqueues status changes; returns their eventIds.

        Raises EnqueueInterrupted if a partition does not answer, or has more than `max_queued` on its queue: `confirmed` are
        the others. Raises RedisUnavailable if nothing is on the queue.
        """
        given = list(changes)
        if not given:
            return []
        look = await self._queue.look({}, sorted({one.workspace for one in given}))
        going = [
            one
            for one in given
            if one.workspace not in look.away and not self._is_full(look.queued_for(one.workspace))
        ]
        errors = await self._queue.add([one.raw for one in going], [one.workspace for one in going])
        confirmed = [one.event_id for one, error in zip(going, errors, strict=True) if error is None]
        if len(confirmed) == len(given):
            return confirmed
        first = next((error for error in (*errors, *look.away.values()) if error), None)
        if first and not (confirmed and isinstance(first, RedisUnavailable)):
            raise first
        why = (
            str(first)
            if first
            else f"more than {self._max_queued:,} status changes are on the queue of their partition"
        )
        raise EnqueueInterrupted(
            f"{len(given) - len(confirmed)} of {len(given)} status changes are not enqueued: {why}", confirmed
        )

    def _is_full(self, queued: int) -> bool:
        return queued > self._max_queued
