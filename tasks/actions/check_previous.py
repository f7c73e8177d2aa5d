"""What `check` finds in the previous Redis of an installation that has grown."""

from typing import Any

from config.settings import Settings
from dispatcher.errors import RedisUnavailable
from dispatcher.model import iso
from dispatcher.store.check_finding import Finding, Verdict
from dispatcher.store.connection import connect_async, translated
from dispatcher.store.installation import Installation
from dispatcher.store.keys import Keys
from tasks import tables, wiring

MAX_TTL_SECONDS = 604_800
"""The longest ttlSeconds of a status change."""


async def look_at_previous(settings: Settings) -> list[Finding]:
    """What waits there, and until when it is to be kept; nothing if there is no previous Redis."""
    if settings.previous_redis_url is None:
        return []
    url, keys = wiring.previous_url(settings), Keys(settings.key_prefix, settings.partitions)
    client: Any = connect_async(url)
    installation = Installation(client, keys, url)
    try:
        queued, waiting = await installation.waiting()
        now_ms = await installation.now_ms()
        with translated(url):
            newest = await client.zrange(
                keys.endpoints, "(inf", "-inf", desc=True, byscore=True, offset=0, num=1, withscores=True
            )
    except RedisUnavailable as error:
        return [Finding("previous", Verdict.BAD, f"status changes wait for it: {error}", "bring it back")]
    finally:
        await client.aclose()
    retention = max(settings.ledger_retention_seconds, settings.status_retention_seconds)
    over_ms = (newest[0][1] if newest else 0) + (MAX_TTL_SECONDS + retention) * 1000
    if not (queued or waiting) and over_ms < now_ms:
        return [
            Finding(
                "previous", Verdict.OK, "all that the previous Redis knew is over: `dispatcher grow --end`"
            )
        ]
    there = f"{tables.counted(queued, 'status change', 'status changes')} on its queue, {tables.counted(waiting, 'callback waits', 'callbacks wait')}"
    until = (
        f"; it knows eventIds and messages until {iso(round(over_ms))}, if nothing comes to them"
        if newest
        else ""
    )
    return [
        Finding("previous", Verdict.OK, f"partition {settings.partitions}, the Redis before: {there}{until}")
    ]
