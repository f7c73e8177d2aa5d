"""`dispatcher archiver`: takes what has ended to the archive, in a process of its own."""

import asyncio
from contextlib import suppress

from config.settings import Settings
from dispatcher.errors import InvalidInput, RedisUnavailable
from dispatcher.health import Health
from tasks import archiver_wiring, terminal, wiring
from tasks.health import looking


def archiver() -> None:
    """Take what has ended to the archive, in place of workers, until Ctrl-C.

    Workers do this beside their other work, each for the partitions that it leads, so this is not needed. Where it runs, they leave it to
    it: for a database that only one machine may reach, or to keep that work off the workers. If it ends, they go on within a minute. It
    takes the workers' settings.
    """
    settings = terminal.service_settings()
    terminal.run_service(_run(settings))


async def _run(settings: Settings) -> None:
    async with looking(Health(), settings, writes=True):
        await _agree(settings)
        terminal.say("taking what ends to the archive; Ctrl-C ends it")
        await archiver_wiring.run(settings)


async def _agree(settings: Settings) -> None:
    """Waits for Redis. Raises InvalidInput, or OtherFormat if this is not its installation, or of another version."""
    if settings.archive_url is None:
        raise InvalidInput("there is no archive: DISPATCHER_ARCHIVE_URL names it (docs/archive.md)")
    while True:
        with suppress(RedisUnavailable):
            async with wiring.store(settings):
                return
        await asyncio.sleep(1)
