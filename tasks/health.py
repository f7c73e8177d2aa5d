"""Keeps a Health true: by a task in the loop that it is about."""

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
"""How often Redis is asked, where nothing else asks it."""

log = structlog.get_logger()


@asynccontextmanager
async def turning(health: Health) -> AsyncIterator[None]:
    """Tells it that the loop turns, while the block runs; then that the process ends."""
    task = asyncio.create_task(_turn(health))
    try:
        yield
    finally:
        health.stopping = True
        task.cancel()


@asynccontextmanager
async def looking(health: Health, settings: Settings) -> AsyncIterator[None]:
    """The same, and tells it whether Redis answers."""
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
    while not health.stopping:  # its cancellation may get lost in redis-py, see `console._interruptible`
        try:
            async with wiring.store(settings):  # asks for the format
                health.answered()
        except RedisUnavailable:
            health.failed()
        except OtherFormat:
            health.refused("Redis holds data of another version's format")
        except Exception:
            log.exception("health.internal_error")
        await asyncio.sleep(0 if health.stopping else LOOK_SECONDS)
