"""Runs the engine inside a Celery worker: the bootsteps that start and stop it."""

import gc
import os
import signal
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import Any

import structlog
from celery import bootsteps
from celery.concurrency.thread import TaskPool
from celery.exceptions import CPendingDeprecationWarning
from celery.utils.debug import cry

from config.broker import HINT_TASK
from config.settings import Settings
from dispatcher.store.replies import Hint
from tasks import garbage
from tasks.engine_thread import EX_SOFTWARE, EngineThread
from tasks.hint_message import text_of
from tasks.shutdown import Ending

log = structlog.get_logger()

_running: EngineThread | None = None


def running_engine() -> EngineThread:
    """The engine of this worker process."""
    if _running is None:
        raise RuntimeError("this task runs only in a worker: dispatcher worker, or celery -A tasks worker")
    return _running


class EngineStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Starts the engine after the pool; stops it after the consumer and before the pool."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:
        super().__init__(worker)
        if not issubclass(worker.pool_cls, TaskPool):
            raise SystemExit(
                f"the dispatcher runs in Celery's pool `threads`, not in {worker.pool_cls.__module__}: "
                "leave out -P/--pool, or say --pool threads"
            )
        # We need none of these. With kombu 5.7 gossip leaks a connection at each reconnect; mingle waits for a second.
        worker.options |= {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}

    def start(self, worker: Any) -> None:
        """Called by Celery when the worker starts."""
        global _running
        settings = Settings()
        garbage.spare()
        # At each lost connection it says that a later Celery decides for itself what config/celeryconfig.py decides.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)

        def publish(hints: Sequence[Hint]) -> None:
            """Sends one Celery message with these hints."""
            endpoints = [text_of(hint) for hint in hints]
            worker.app.send_task(HINT_TASK, (endpoints,), retry=False, ignore_result=True)

        _running = EngineThread(f"{worker.hostname}/{os.getpid()}", settings, publish)
        try:
            _running.start()
            Ending(_running, settings.request_timeout_seconds).watch()
        except RuntimeError as error:  # no thread is to be had: Celery would end and leave the engine running
            action = "ending the worker: raise its limits of memory and processes"
            log.critical("worker.not_started", problem=str(error), action=action)
            _running.stop()
            raise SystemExit(EX_SOFTWARE) from None
        signal.signal(signal.SIGUSR1, _log_stacks)  # Celery's own handler bypasses the log

    def stop(self, worker: Any) -> None:
        """Called by Celery when the worker stops."""
        if _running:
            _running.stop()


def _log_stacks(_number: int, _frame: FrameType | None) -> None:
    log.warning("worker.stacks", stacks=cry())


class LostConnectionStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Frees broken connections to the broker, and notes whether there is one.

    kombu 5.7 leaves each one's callback in Celery's event loop: some 100 objects and a call at every turn of the
    loop, for as long as the worker lives. Its sockets are in reference cycles.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, consumer: Any) -> None:
        """Called by Celery when it has connected."""
        running_engine().metrics.broker_connected = True
        gc.collect()  # what existed when the engine started is frozen; some 5 us for each endpoint met since

    def stop(self, consumer: Any) -> None:
        """Called by Celery when the connection broke; the next connection registers its own callback."""
        running_engine().metrics.broker_connected = False
        consumer.hub.on_tick.clear()
