"""Endpoints for other workers to serve, published as Celery messages, one at a time, from a separate thread."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice

import structlog

from dispatcher.store.replies import Hint
from dispatcher.worker.ready import Ready

HINT_ENDPOINTS = 16
"""Endpoints in one Celery message."""
LAST_SECONDS = 1.0
"""How long `end` waits for the last hints, since the broker may not answer."""

log = structlog.get_logger()

Publish = Callable[[Sequence[Hint]], None]


class Hints:
    """A queue of endpoints for other workers, workspaces in turn. `publish` sends a few of them, in a thread."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._waiting = Ready()
        self._changed = asyncio.Event()
        """Set when a hint is added, and when `run` is to end."""
        self._ending = False
        self._ended = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "hints")  # kombu's producers are not thread-safe
        self._fails = False

    def add(self, hint: Hint) -> None:
        """Queues an endpoint, which is published soon."""
        self._waiting.add(hint)
        self._changed.set()

    async def run(self, serve: Callable[[Sequence[Hint]], None], stopping: asyncio.Event) -> None:
        """Publishes until `end`.

        Endpoints that cannot be published go to `serve`. While `stopping` they are dropped instead, and the waker of
        another worker finds them.
        """
        try:
            while self._waiting or not self._ending:
                await self._changed.wait()
                self._changed.clear()
                while self._waiting:
                    batch = list(islice(iter(self._waiting.take, None), HINT_ENDPOINTS))
                    if not await self._published(batch) and not stopping.is_set():
                        serve(batch)
        finally:
            self._ended.set()

    async def end(self) -> None:
        """Ends `run` once all waiting hints are published; waits for at most LAST_SECONDS."""
        self._ending = True
        self._changed.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), LAST_SECONDS)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _published(self, batch: Sequence[Hint]) -> bool:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._publish, batch)
        except Exception as error:
            if not self._fails:
                log.warning("hints.unpublished", problem=str(error), action="serving the endpoints here")
            self._fails = True
            return False
        self._fails = False
        return True
