"""Keeps a Health up to date, by tasks in the event loop that it reports on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from config.settings import Settings
from dispatcher.errors import GrowthHasEnded, OtherFormat, OtherSettings, RedisFull, RedisUnavailable
from dispatcher.health import Health
from dispatcher.worker.redis_watch import RedisWatch
from tasks import wiring

TURN_SECONDS = 0.5
LOOK_SECONDS = 2.0
"""How often Redis is asked, in a process where nothing else asks it."""

log = structlog.get_logger()


@asynccontextmanager
async def turning(health: Health) -> AsyncIterator[None]:
    """Records that the loop runs, for as long as the block does; then marks the process as stopping."""
    task = asyncio.create_task(_turn(health))
    try:
        yield
    finally:
        health.stopping = True
        task.cancel()


@asynccontextmanager
async def looking(health: Health, settings: Settings, *, writes: bool) -> AsyncIterator[None]:
    """As `turning`, and also records whether Redis answers, and with `writes` whether it accepts writes."""
    async with turning(health):
        task = asyncio.create_task(_look(health, settings, writes))
        try:
            yield
        finally:
            task.cancel()


async def _turn(health: Health) -> None:
    while True:
        health.turned()
        await asyncio.sleep(TURN_SECONDS)


async def _look(health: Health, settings: Settings, writes: bool) -> None:
    watch, refused = RedisWatch(health=health), ""
    while not health.stopping:  # redis-py may lose the cancellation, see `console._interruptible`
        try:
            async with wiring.store(settings) as store:  # asks Redis for its format number
                if writes:
                    await store.installation.require_writable(some=True)
                watch.worked()
                refused = ""
        except RedisFull:  # it answers, and what wants to write logs that it cannot
            watch.worked()
        except RedisUnavailable as error:
            watch.failed(error)
        except OtherFormat as error:
            if isinstance(
                error, OtherSettings
            ):  # what it would answer or change mostly belongs elsewhere now
                health.refused(str(error), serves=isinstance(error, GrowthHasEnded))
            else:
                health.refused("Redis holds data of another version's format")
            if refused != str(error):
                log.error("redis.other_format", problem=str(error))
            refused = str(error)
        except Exception:
            log.exception("health.internal_error")
        await asyncio.sleep(0 if health.stopping else LOOK_SECONDS)
