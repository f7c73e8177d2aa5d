"""From the signal that ends a worker to its end: within a deadline, whatever Redis, the broker and Celery do.

The ordinary way is Celery's: the consumer stops, then the engine, then the pool. Celery waits for its broker on that
way, without a bound where the broker is silent; so a thread watches it.
"""

import os
import signal
import time
from queue import SimpleQueue
from threading import Thread
from types import FrameType
from typing import TYPE_CHECKING

import structlog

from config import logs

if TYPE_CHECKING:
    from tasks.worker import EngineThread

CONSUMER_SECONDS = 1.0
"""What Celery has to stop taking hints; then the engine ends all the same."""
RECORD_SECONDS = 2.5
"""What the engine has, after the last POST's time-out, to record what came of it."""
CELERY_SECONDS = 2.5
"""What Celery has to end once the engine has."""

log = structlog.get_logger()


class Ending:
    """Waits for TERM, INT or QUIT; then sees to it that the process ends."""

    def __init__(self, engine: "EngineThread", request_timeout_seconds: float) -> None:
        self._engine = engine
        self._engine_seconds = request_timeout_seconds + RECORD_SECONDS
        self._begun: SimpleQueue[None] = SimpleQueue()  # its `put` may be interrupted by itself

    def watch(self) -> None:
        """Watches from now on; call it in the main thread, after Celery has set its handlers."""
        Thread(target=self._see_to_it, name="ending", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self._watch_for(number)

    def _watch_for(self, number: signal.Signals) -> None:
        celerys = signal.getsignal(number)

        def handle(number: int, frame: FrameType | None) -> None:
            self._begun.put(None)
            if callable(celerys):
                celerys(number, frame)

        signal.signal(number, handle)

    def _see_to_it(self) -> None:
        self._begun.get()
        deadline = time.monotonic() + self._engine_seconds
        self._engine.join(CONSUMER_SECONDS)
        self._engine.ask_to_stop()
        try:
            if self._engine.join(deadline - time.monotonic()):
                time.sleep(CELERY_SECONDS)  # the process ends meanwhile, and this thread with it
            else:
                log.warning(
                    "worker.cut_short",
                    endpoints=self._engine.endpoints_served(),
                    consequence="results that are not recorded: sent again after their lease",
                )
            logs.flush(0.5)
        finally:
            os._exit(0)
