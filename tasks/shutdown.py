"""Ends a worker within a deadline after a signal, whatever Redis, the broker and Celery do.

Celery's own shutdown stops the consumer, then the engine, then the pool. It waits for the broker without a bound
if the broker does not answer, so a thread watches it.

TERM and QUIT exit with code 0, Ctrl-C with 130. HUP ends the worker likewise and restarts it in the same process with
the same arguments, so that it reads its settings again. On a terminal HUP means that the terminal closed: the worker ends.
"""

import atexit
import os
import signal
import sys
import time
from queue import SimpleQueue
from threading import Thread
from types import FrameType
from typing import Any

import structlog
from celery.apps.worker import _reload_current_worker
from celery.signals import worker_shutting_down
from celery.worker import state

from config import logs
from tasks import interrupt
from tasks.engine_thread import EX_SOFTWARE, RECORD_SECONDS, EngineThread

CONSUMER_SECONDS = 1.0
"""How long Celery may take to stop consuming hints; after that the engine stops anyway."""
CELERY_SECONDS = 2.5
"""How long Celery may take to end once the engine has ended."""

HANGUP_IS_IGNORED = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
"""As under `nohup`; Celery sets its own handler nevertheless."""

log = structlog.get_logger()

_celerys: list[str] = []
"""Names of the signals that Celery's handlers received; Celery does not report HUP."""


@worker_shutting_down.connect  # type: ignore[untyped-decorator]  # celery ships no types
def _note(sig: str, **_: object) -> None:
    _celerys.append(sig)


class Ending:
    """Waits for TERM, INT, QUIT or HUP, then makes sure that the process ends or restarts."""

    def __init__(self, engine: EngineThread, request_timeout_seconds: float) -> None:
        self._engine = engine
        self._engine_seconds = request_timeout_seconds + RECORD_SECONDS
        self._begun: SimpleQueue[None] = SimpleQueue()  # its `put` is reentrant
        self._number: int | None = None
        """The signal that began the shutdown. The first one counts, except that any later signal overrides HUP."""

    def watch(self) -> None:
        """Starts watching. Call it in the main thread, after Celery has set its handlers."""
        Thread(target=self._see_to_it, name="ending", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self._watch_for(number, signal.getsignal(number))
        if HANGUP_IS_IGNORED:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        else:
            self._watch_for(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
        atexit.register(self._finish)
        self._catch_up()

    def _catch_up(self) -> None:
        """Handles a signal that came after Celery had set its handlers and before ours were set."""
        if self._number is not None or (state.should_stop is None and state.should_terminate is None):
            return
        atexit.unregister(
            _reload_current_worker
        )  # Celery's restart after HUP; ours runs the original command line
        if HANGUP_IS_IGNORED and not _celerys:
            state.should_stop = None
            return
        self._number = signal.Signals[_celerys[0]] if _celerys else signal.SIGHUP
        self._engine.health.stopping = True
        self._begun.put(None)

    def _watch_for(self, number: signal.Signals, celerys: Any) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            if self._number in (None, signal.SIGHUP):
                self._number = number
            self._engine.health.stopping = True
            self._begun.put(None)
            if callable(celerys):
                celerys(number, frame)

        signal.signal(number, handle)

    def _finish(self) -> None:
        """The process's last step: restarts it after HUP, sets the exit code after Ctrl-C."""
        if self._number == signal.SIGHUP and not _on_a_terminal():
            log.info("worker.restarts", reason="SIGHUP")
            logs.flush()
            try:
                os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  the same program
            except OSError as error:
                log.critical(
                    "worker.not_restarted", problem=str(error), action="ending; the supervisor starts it"
                )
                logs.flush()
                os._exit(EX_SOFTWARE)
        if self._number == signal.SIGINT:
            logs.flush()
            os._exit(interrupt.CODE)

    def _see_to_it(self) -> None:
        self._begun.get()
        deadline = time.monotonic() + self._engine_seconds
        self._engine.join(CONSUMER_SECONDS)
        self._engine.ask_to_stop()
        try:
            if self._engine.join(deadline - time.monotonic()):
                time.sleep(CELERY_SECONDS)  # the process ends during this sleep
            else:
                log.warning(
                    "worker.cut_short",
                    endpoints=self._engine.endpoints_served(),
                    consequence="results that are not recorded: sent again after their lease",
                )
            logs.flush(0.5)
            self._finish()
        finally:
            os._exit(0)


def _on_a_terminal() -> bool:
    return any(os.isatty(descriptor) for descriptor in (0, 1, 2))
