"""What `check` finds in the previous Redis of an installation that has grown."""

import asyncio
from contextlib import suppress

from config.settings import Settings
from dispatcher.errors import PreviousUnavailable, RedisUnavailable
from dispatcher.model import iso
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.across.presence import SILENCE_SECONDS
from dispatcher.store.check_finding import Finding, Verdict
from dispatcher.store.growth import Growth, not_archived
from tasks import tables, wiring


async def look_at_previous(settings: Settings) -> list[Finding]:
    """What waits there, and until when it is to be kept; nothing if there is no previous Redis."""
    if settings.previous_redis_url is None:
        return []
    servers = wiring.servers(settings)
    growth = Growth(Partitions(servers, needs_all=True), settings.key_prefix)
    until_ms: int | None = None
    try:
        await growth.require_own()
        queued, waiting = await growth.waiting()
        unarchived = not_archived(*await growth.to_archive())
        now_ms = await growth.now_ms()
        with suppress(RedisUnavailable, TimeoutError):  # the server that knows since when may be away
            async with asyncio.timeout(SILENCE_SECONDS):
                until_ms = await growth.known_until_ms(wiring.longest_retention_seconds(settings))
    except RedisUnavailable as error:
        advice = "bring it back; if it is gone for good: `dispatcher grow --end` says what is lost, and how to go on"
        return [
            Finding(
                "previous", Verdict.BAD, f"status changes wait for {PreviousUnavailable.of(error)}", advice
            )
        ]
    finally:
        await servers.aclose()
    if not (queued or waiting or unarchived) and until_ms is not None and until_ms < now_ms:
        found = "all that the previous Redis knew is over: `dispatcher grow --end`"
        return [Finding("previous", Verdict.OK, found)]
    there = f"{tables.counted(queued, 'status change', 'status changes')} on its queue, {tables.counted(waiting, 'callback waits', 'callbacks wait')}"
    until = "" if until_ms is None else f"it knows eventIds and messages until {iso(until_ms)}"
    return [
        Finding(
            "previous",
            Verdict.OK,
            f"partition {settings.partitions}, the Redis before: {there}"
            + (until and f"; {until}, if nothing comes to them")
            + (unarchived and f"; {unarchived}"),
        )
    ]
