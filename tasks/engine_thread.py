"""The engine of a worker, in a thread with its own event loop. Does not depend on Celery."""

import asyncio
import os
import resource
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import NoReturn

import structlog
import uvloop

from config import logs
from config.settings import Settings
from dispatcher.errors import HasGrown, InvalidInput, OtherFormat, RedisUnavailable
from dispatcher.health import Health
from dispatcher.store.check_finding import Verdict
from dispatcher.store.checks import look_at_redis
from dispatcher.store.replies import Hint
from dispatcher.worker.engine import Engine
from dispatcher.worker.hints import Publish
from dispatcher.worker.metrics import Metrics
from tasks import engine_wiring, wiring
from tasks.health import turning
from tasks.metrics_server import serve
from tasks.prometheus import WorkerCollector

EX_SOFTWARE = 70
"""Exit code after an internal error: the supervisor should restart the worker."""
EX_CONFIG = 78
"""Exit code if the data in Redis has another version's format, or a setting does not fit: a restart would not help."""

RECORD_SECONDS = 2.5
"""How long the engine may take, after the last POST's time-out, to record results."""

OTHER_DESCRIPTORS = 200
"""File descriptors kept free for everything but connections to receivers: Redis, Celery, DNS."""

log = structlog.get_logger()


class EngineThread:
    """Runs an engine in its own thread, from `start` to `stop`."""

    def __init__(self, name: str, settings: Settings, publish: Publish) -> None:
        self._name = name
        self._settings = settings
        self._publish = publish
        self.health = Health()
        self.metrics = Metrics()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Engine | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine")

    def start(self) -> None:
        """Starts the engine; returns once it accepts hints."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Stops the engine and waits for its end: POSTs in flight finish and are recorded."""
        self.ask_to_stop()
        if self._thread.ident:  # it was started
            self._thread.join()

    def ask_to_stop(self) -> None:
        """Asks the engine to stop, without waiting. Idempotent."""
        self.health.stopping = True
        if self._loop and self._engine:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._engine.stop)

    def join(self, seconds: float) -> bool:
        """Waits for the engine's end for at most `seconds`; returns whether it has ended."""
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    def endpoints_served(self) -> int:
        """How many endpoints have something in flight or not yet recorded in this worker."""
        return self._engine.turns if self._engine else 0

    def hand_over(self, hints: Sequence[Hint], probe: str = "") -> None:
        """Gives hints to the engine; returns once it has them, and raises an error that it met.

        After the engine has stopped, hints are dropped: another worker's waker sends them again.
        """
        assert self._engine
        assert self._loop
        serving = self._engine.serve(hints)
        try:
            if probe:
                self._loop.call_soon_threadsafe(self._engine.answer, probe)
            future = asyncio.run_coroutine_threadsafe(serving, self._loop)
        except RuntimeError:  # the loop is closed
            serving.close()
            return
        wait_for(future, self._thread)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                self._loop = runner.get_loop()
                runner.run(self._main())
        except BaseException as error:  # the engine could not start
            _die(error, refused=isinstance(error, InvalidInput))

    async def _main(self) -> None:
        settings = self._settings
        max_in_flight, max_connections = usable_descriptors(settings.max_in_flight, settings.max_connections)
        metrics, health = self.metrics, self.health
        engine_of = engine_wiring.engine(
            settings, self._name, max_in_flight, max_connections, metrics, health, self._publish
        )
        async with turning(health), engine_of as engine:
            self._engine = engine
            self._ready.set()
            with _shown(metrics, health, self._settings.metrics_port):
                try:
                    await asyncio.gather(engine.run(), _warn_about_redis(self._settings))
                except HasGrown as error:  # the format is ours: what is in flight is not to be sent once more
                    health.stopping = True
                    with suppress(Exception):
                        await asyncio.wait_for(
                            engine.finish(), settings.request_timeout_seconds + RECORD_SECONDS
                        )
                    _die(error)
                except BaseException as error:
                    # Exit at once: closing the rest may wait for a task that missed its cancellation.
                    _die(error)


def wait_for(future: Future[None], thread: threading.Thread) -> None:
    """Waits for what a thread does, until that or the thread has ended; raises its error."""
    while thread.is_alive() and not future.done():
        wait((future,), timeout=1)
    if future.done() and not future.cancelled():
        future.result()


def _die(error: BaseException, *, refused: bool = False) -> NoReturn:
    """Ends the process: a worker without its engine would consume hints and do nothing.

    `refused`: a setting does not fit this machine.
    """
    refused = refused or isinstance(error, OtherFormat)
    try:
        if refused:
            log.critical("worker.refused", problem=str(error))
        else:
            action = f"ending the worker with exit code {EX_SOFTWARE}"
            log.critical("engine.died", action=action, exc_info=error)
        logs.flush()
    finally:
        os._exit(EX_CONFIG if refused else EX_SOFTWARE)


@contextmanager
def _shown(metrics: Metrics, health: Health, port: int) -> Iterator[None]:
    """Serves metrics and health while the block runs. A port in use is only logged: it must not stop callbacks."""
    end: Callable[[], None] = lambda: None  # noqa: E731
    if port:
        try:
            end, _ = serve(port, WorkerCollector(metrics), health)
            log.info("metrics.shown", port=port)
        except OSError as error:
            log.error(
                "metrics.not_shown",
                port=port,
                problem=str(error),
                action="choose another DISPATCHER_METRICS_PORT",
            )
    try:
        yield
    finally:
        end()


async def _warn_about_redis(settings: Settings) -> None:
    """Logs whatever in this Redis's configuration would lose data; `dispatcher check` shows more. Never ends the worker."""
    try:
        async with wiring.store(settings) as store:
            for finding in [one for of in store.nodes for one in await look_at_redis(*of)]:
                if finding.verdict is Verdict.BAD:
                    log.warning("redis.unsafe", problem=finding.detail, action=finding.advice)
    except (RedisUnavailable, OtherFormat):
        pass  # the engine reports it
    except Exception:
        log.exception("redis.not_looked_at", action="see `dispatcher check`; callbacks go on")


def usable_descriptors(max_in_flight: int, max_connections: int) -> tuple[int, int]:
    """Raises the soft limit of open files; returns how many POSTs in flight, and how many connections, fit into it."""
    wanted = max(max_in_flight, max_connections) + OTHER_DESCRIPTORS
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= wanted:
        return max_in_flight, max_connections
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    usable = max(1, limit - OTHER_DESCRIPTORS)
    if usable < max_in_flight:
        log.warning("worker.few_descriptors", limit=limit, max_in_flight=usable, action="raise `ulimit -Hn`")
    return min(max_in_flight, usable), min(max_connections, usable)
