"""Keeps a Health up to date, by tasks in the event loop that it reports on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from config.settings import Settings
from dispatcher.errors import OtherFormat, RedisUnavailable
from dispatcher.health import Health
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
async def looking(health: Health, settings: Settings) -> AsyncIterator[None]:
    """As `turning`, and also records whether Redis answers."""
    async with turning(health):
        task = asyncio.create_task(_look(health, settings))
        try:
            yield
        finally:
            task.cancel()


async def _turn(health: Health) -> None:
    while True:
        health.turned()
        await asyncio.sleep(TURN_SECONDS)


async def _look(health: Health, settings: Settings) -> None:
    while not health.stopping:  # redis-py may lose the cancellation, see `console._interruptible`
        try:
            async with wiring.store(settings):  # asks Redis for its format number
                health.answered()
        except RedisUnavailable:
            health.failed()
        except OtherFormat:
            health.refused("Redis holds data of another version's format")
        except Exception:
            log.exception("health.internal_error")
        await asyncio.sleep(0 if health.stopping else LOOK_SECONDS)
