"""The engine inside a Celery worker: a bootstep that runs its event loop in a thread."""

import asyncio
import gc
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import structlog
import uvloop
from celery import bootsteps
from celery.concurrency.thread import TaskPool
from celery.utils.debug import cry

from config import logs
from config.broker import HINT_TASK
from config.settings import Settings
from dispatcher.errors import OtherFormat, RedisUnavailable
from dispatcher.health import Health
from dispatcher.store.checks import Verdict, look_at_redis
from dispatcher.store.replies import Hint
from dispatcher.worker.engine import Engine
from dispatcher.worker.hints import Publish
from dispatcher.worker.metrics import Metrics
from tasks import engine_wiring, wiring
from tasks.ending import EX_SOFTWARE, Ending
from tasks.health import turning
from tasks.metrics import WorkerCollector, serve

EX_CONFIG = 78
"""Exit code where what is in Redis is of another version's format."""

GARBAGE_THRESHOLDS = 10_000, 20, 50

OTHER_DESCRIPTORS = 200
"""What a worker opens beside its POSTs: Redis, Celery, DNS, idle connections."""

log = structlog.get_logger()


class EngineThread:
    """Runs an engine in a thread of its own, from `start` to `stop`."""

    def __init__(self, name: str, settings: Settings, publish: Publish) -> None:
        self._name = name
        self._settings = settings
        self._publish = publish
        self.health = Health()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Engine | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine")

    def start(self) -> None:
        """Starts the engine; returns when it takes hints."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Ends the engine: POSTs in flight end and are recorded."""
        self.ask_to_stop()
        self._thread.join()

    def ask_to_stop(self) -> None:
        """Has the engine end; may be called again."""
        self.health.stopping = True
        if self._loop and self._engine:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._engine.stop)

    def join(self, seconds: float) -> bool:
        """Waits for the engine's end, at most so long; whether it has ended."""
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    def endpoints_served(self) -> int:
        """How many endpoints have something in flight, or not recorded, here."""
        return self._engine.turns if self._engine else 0

    def hand_over(self, endpoints: list[str], probe: str = "") -> None:
        """Gives endpoints to the engine; waits only while it is at its limit.

        Once the engine has stopped the hint is dropped: a waker hints again.
        """
        assert self._engine
        assert self._loop
        serving = self._engine.serve(hint_of(one) for one in endpoints)
        try:
            if probe:
                self._loop.call_soon_threadsafe(self._engine.answer, probe)
            future = asyncio.run_coroutine_threadsafe(serving, self._loop)
        except RuntimeError:  # the loop is closed
            serving.close()
            return
        while self._thread.is_alive() and not future.done():
            wait((future,), timeout=1)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                self._loop = runner.get_loop()
                runner.run(self._main())
        except OtherFormat as refused:
            try:
                log.critical("worker.refused", problem=str(refused))
                logs.flush()
            finally:
                os._exit(EX_CONFIG)
        except BaseException:
            try:
                log.critical(
                    "engine.died", action=f"ending the worker with exit code {EX_SOFTWARE}", exc_info=True
                )
                logs.flush()
            finally:
                os._exit(EX_SOFTWARE)  # a worker without its engine would take hints and do nothing

    async def _main(self) -> None:
        max_in_flight = usable_descriptors(self._settings.max_in_flight)
        metrics = Metrics()
        health = self.health
        engine_of = engine_wiring.engine(
            self._settings, self._name, max_in_flight, metrics, health, self._publish
        )
        async with turning(health), engine_of as engine:
            self._engine = engine
            self._ready.set()
            with _shown(metrics, health, self._settings.metrics_port):
                await asyncio.gather(engine.run(), _warn_about_redis(self._settings))


@contextmanager
def _shown(metrics: Metrics, health: Health, port: int) -> Iterator[None]:
    """Shows metrics and health at a port while the block runs; a port that is taken must not stop callbacks."""
    end: Callable[[], None] = lambda: None  # noqa: E731
    if port:
        try:
            end, _ = serve(port, WorkerCollector(metrics), health)
            log.info("metrics.shown", port=port)
        except OSError as error:
            log.error(
                "metrics.not_shown", port=port, problem=str(error), action="choose another METRICS_PORT"
            )
    try:
        yield
    finally:
        end()


async def _warn_about_redis(settings: Settings) -> None:
    """Says what about this Redis would lose data; `dispatcher check` says more. Never ends the worker."""
    try:
        async with wiring.store(settings) as store:
            for finding in await look_at_redis(store.client, wiring.redis_url(settings)):
                if finding.verdict is Verdict.BAD:
                    log.warning("redis.unsafe", problem=finding.detail, action=finding.advice)
    except (RedisUnavailable, OtherFormat):
        pass  # the engine says so
    except Exception:
        log.exception("redis.not_looked_at", action="see `dispatcher check`; callbacks go on")


def hint_of(text: str) -> Hint:
    """`endpoint workspace`, as it is in a Celery message; older versions say the endpoint alone."""
    endpoint, _, workspace = text.partition(" ")
    return Hint(endpoint, workspace)


_running: EngineThread | None = None


def running_engine() -> EngineThread:
    """The engine of this worker process."""
    if _running is None:
        raise RuntimeError("this task runs only in a worker: dispatcher worker, or celery -A tasks worker")
    return _running


class EngineStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Starts the engine after the pool, and ends it after the consumer and before the pool."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:
        super().__init__(worker)
        if not issubclass(worker.pool_cls, TaskPool):
            raise SystemExit(
                f"the dispatcher runs in Celery's pool `threads`, not in {worker.pool_cls.__module__}: "
                "leave out -P/--pool, or say --pool threads"
            )
        # We need none of them; kombu 5.7 loses a connection of gossip's with each that breaks, mingle waits for a second.
        worker.options |= {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}

    def start(self, worker: Any) -> None:
        """Called by Celery when the worker starts."""
        global _running
        settings = Settings()
        gc.freeze()  # what is there by now stays: looking through it again and again took a tenth of the time
        gc.set_threshold(*GARBAGE_THRESHOLDS)

        def publish(hints: Sequence[Hint]) -> None:
            """Sends a hint: `endpoint workspace` of each."""
            endpoints = [" ".join(hint).rstrip() for hint in hints]
            worker.app.send_task(HINT_TASK, (endpoints,), retry=False, ignore_result=True)

        _running = EngineThread(f"{worker.hostname}/{os.getpid()}", settings, publish)
        _running.start()
        Ending(_running, settings.request_timeout_seconds).watch()
        signal.signal(signal.SIGUSR1, _log_stacks)  # Celery's writes past the log

    def stop(self, worker: Any) -> None:
        """Called by Celery when the worker stops."""
        if _running:
            _running.stop()


def _log_stacks(_number: int, _frame: FrameType | None) -> None:
    log.warning("worker.stacks", stacks=cry())


class LostConnectionStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Lets go of connections to the broker that broke.

    kombu 5.7 leaves each one's callback in Celery's event loop: some 100 objects and a call at every turn of the
    loop, for as long as the worker lives. Its sockets are in reference cycles.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, consumer: Any) -> None:
        """Called by Celery when it has connected."""
        gc.collect()  # looks through little: what was there when the engine started is frozen

    def stop(self, consumer: Any) -> None:
        """Called by Celery when the connection broke; the next one brings its own callback."""
        consumer.hub.on_tick.clear()


def usable_descriptors(max_in_flight: int) -> int:
    """Raises the soft limit of open files; returns how many POSTs in flight it leaves room for."""
    wanted = max_in_flight + OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return max_in_flight
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    usable = max(1, limit - OTHER_DESCRIPTORS)
    if usable < max_in_flight:
        log.warning("worker.few_descriptors", limit=limit, max_in_flight=usable, action="raise `ulimit -Hn`")
    return usable
