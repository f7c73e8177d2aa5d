"""Endpoints for other workers to serve, published as Celery messages, one at a time, from a separate thread."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice

import structlog

from dispatcher.store.replies import Hint
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.ready import Ready

HINT_ENDPOINTS = 16
"""Endpoints in one Celery message."""
AWAY_SECONDS = 10.0
"""How long after a failure nothing is published: an attempt with the broker away takes seconds."""
LAST_SECONDS = 1.0
"""How long `end` waits for the last hints, since the broker may not answer."""

log = structlog.get_logger()

Publish = Callable[[Sequence[Hint]], None]


class Hints:
    """A queue of endpoints for other workers, workspaces in turn. `publish` sends a few of them, in a thread."""

    def __init__(self, publish: Publish, metrics: Metrics | None = None) -> None:
        self._publish = publish
        self._metrics = metrics or Metrics()
        self._waiting = Ready()
        self._changed = asyncio.Event()
        """Set when a hint is added, and when `run` is to end."""
        self._ending = False
        self._ended = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "hints")  # kombu's producers are not thread-safe
        self._fails = self._is_publishing = False
        self._away_until = 0.0
        """In seconds of the loop's clock."""
        self._serve: Callable[[Sequence[Hint]], None] | None = None

    def add(self, hint: Hint) -> None:
        """Queues an endpoint, which is published soon; serves it here at once while the broker is away."""
        if self._serve and self._is_away():
            self._serve([hint])
            return
        self._waiting.add(hint)
        self._changed.set()

    def _is_away(self) -> bool:
        """Whether the last attempt failed, and the next one has not succeeded or is not due yet."""
        return self._fails and (self._is_publishing or asyncio.get_running_loop().time() < self._away_until)

    async def run(self, serve: Callable[[Sequence[Hint]], None], stopping: asyncio.Event) -> None:
        """Publishes until `end`.

        If that fails, all that wait go to `serve`, and those that are added within AWAY_SECONDS. While `stopping` they
        are dropped instead, and the waker of another worker finds them.
        """

        def serve_here(hints: Sequence[Hint]) -> None:
            if not stopping.is_set():
                serve(hints)

        self._serve = serve_here
        try:
            while self._waiting or not self._ending:
                await self._changed.wait()
                self._changed.clear()
                while self._waiting:
                    batch = list(islice(iter(self._waiting.take, None), HINT_ENDPOINTS))
                    if not await self._published(batch, stopping):
                        serve_here(batch + self._waiting.take_all())
        finally:
            self._ended.set()

    async def end(self) -> None:
        """Ends `run` once all waiting hints are published; waits for at most LAST_SECONDS."""
        self._ending = True
        self._changed.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), LAST_SECONDS)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _published(self, batch: Sequence[Hint], stopping: asyncio.Event) -> bool:
        loop = asyncio.get_running_loop()
        self._is_publishing = True
        try:
            await loop.run_in_executor(self._thread, self._publish, batch)
        except Exception as error:
            if stopping.is_set() and isinstance(error, RuntimeError):
                return False  # the interpreter ends, and no thread takes anything any more: the broker is not at fault
            if not self._fails:
                log.warning("hints.unpublished", problem=str(error), action="serving the endpoints here")
            self._fails = True
            self._metrics.hints_unpublished += 1
            self._away_until = loop.time() + AWAY_SECONDS
            return False
        finally:
            self._is_publishing = False
        self._fails = False
        return True
