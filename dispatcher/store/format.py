"""The format number of the data in Redis. Every process checks it, so that two versions never write side by side.

1 (no number stored): one schedule for all endpoints. 2: one schedule per workspace, digests of 12 bytes. 3: the same, and
some workspace has subscriptions, which earlier versions do not know: the first one that is added makes it so. 4: the same,
and some subscription has a client certificate or takes tokens from a server. 5: the same, and
some callbacks are known by their fingerprints alone, as they are in the archive. 6: the same, and some messages too. Any
change of what keys hold, or of how scripts use them, takes a new number and a step in lua/migrate.lua.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from dispatcher.errors import HasGrown, OtherFormat, OtherSettings, PreviousUnavailable
from dispatcher.store.arguments import WITH_ARCHIVE, WITH_MESSAGES
from dispatcher.store.installation import Installation
from dispatcher.store.keys import GROWN_INTO
from dispatcher.store.ledger import Ledger

FORMAT, WITH_SUBSCRIPTIONS, WITH_CREDENTIALS, *_ = FORMATS = (2, 3, 4, WITH_ARCHIVE, WITH_MESSAGES)
"""What this version writes: without subscriptions, with them, with credentials that not all versions with them know, with
callbacks that only the archive has, and with such messages."""
LATER = {
    WITH_SUBSCRIPTIONS: ("subscriptions", "subscriptions.md"),
    WITH_CREDENTIALS: ("client certificates and oauth2", "subscriptions.md"),
    WITH_ARCHIVE: ("archives", "archive.md"),
    WITH_MESSAGES: ("messages in archives", "archive.md"),
}
"""What came with each format, and the document about it."""
AT_ONCE = 1000
"""Endpoints moved per call: Redis does nothing else meanwhile."""
LOOK_SECONDS = 1.0
OLDER_SECONDS = 20.0
"""How long a starting worker waits for workers of an older version to end: their heartbeats last 15 s."""

log = structlog.get_logger()

Workers = Callable[[], Awaitable[Mapping[str, Any]]]
"""Reads the heartbeats of live workers, by name."""


def require_format(found: str, *, archives: bool = False) -> None:
    """Raises OtherFormat for the number of another format, and HasGrown for what has grown; empty text (no number stored) passes.

    `archives`: this process has an archive. Raises OtherSettings if it has none, and callbacks are known by the archive alone.
    """
    if into := found.partition(GROWN_INTO)[2]:
        raise HasGrown(
            f"this Redis held an installation that has grown into {into} partitions: set DISPATCHER_REDIS_URL to the servers that "
            "hold these, DISPATCHER_PARTITIONS to their number, and DISPATCHER_PREVIOUS_REDIS_URL to this one (docs/partitions.md)"
        )
    if found and found not in map(str, FORMATS):
        raise OtherFormat(
            f"Redis holds data of format {found}, and this version writes format {FORMAT}: run one version at a time "
            "(docs/operations.md, Upgrading)"
        )
    if found and int(found) >= WITH_ARCHIVE and not archives:
        raise OtherSettings(
            "this installation has an archive, which alone knows some callbacks and messages: set DISPATCHER_ARCHIVE_URL as it is for its "
            "workers (docs/archive.md)"
        )


def require_previous(stored: str, partitions: int) -> None:
    """Checks that a Redis is the one that has grown into so many partitions; `stored` is its format, whole.

    Raises PreviousUnavailable if there is none: it is empty. OtherSettings if it is another installation's.
    """
    if stored.partition(GROWN_INTO)[2] == str(partitions):
        return
    if not stored:
        raise PreviousUnavailable(
            "the previous Redis holds nothing of this installation. Is DISPATCHER_PREVIOUS_REDIS_URL right? If it is, and all that it "
            "knew is lost, `dispatcher grow --end --force` ends it"
        )
    raise OtherSettings(
        "DISPATCHER_PREVIOUS_REDIS_URL leads to the Redis of an installation that has not grown into these partitions: set it to the "
        f"one that has. If this is it, restored from a backup, have the key `format` there end in '{GROWN_INTO}{partitions}' "
        "(docs/partitions.md, From one Redis)"
    )


async def agree(ledger: Ledger, found: str, workers: Workers, wait_seconds: float = 0.0) -> None:
    """Makes sure that the data in Redis has this format; migrates it from an older one.

    `found` is the stored number. Before a migration, waits up to `wait_seconds` for workers of an older version to end.
    Raises OtherFormat if they do not end or the data has another format, or RedisUnavailable.
    """
    require_format(found, archives=ledger.options.archives)
    if found:
        return
    await _wait_for_older(workers, wait_seconds)
    left = 1
    while left:
        left, found = await ledger.migrate(AT_ONCE, FORMAT)
    require_format(found, archives=ledger.options.archives)
    log.debug("redis.format", format=found)


async def require_known(
    installation: Installation, number: int = WITH_SUBSCRIPTIONS, workers: Workers | None = None
) -> None:
    """Call before something is stored that is of a later format: workers of versions that do not know it end, and none starts.

    `workers` reads the heartbeats, if the installation's own do not say all. Raises OtherFormat, having changed nothing, while one is alive; or RedisUnavailable.
    """
    known = await installation.format()
    if known.isdigit() and int(known) >= number:
        return
    for name, heartbeat in (await (workers or installation.workers)()).items():
        if number not in heartbeat.get("formats", ()):
            what, document = LATER[number]
            raise OtherFormat(
                f"worker {name} is of a version that does not know {what}: upgrade all workers first, nothing was "
                f"changed (docs/{document}, Upgrading)"
            )
    await installation.raise_format(number)


async def _wait_for_older(workers: Workers, seconds: float) -> None:
    deadline, told = time.monotonic() + seconds, False
    while older := [
        name for name, heartbeat in (await workers()).items() if heartbeat.get("format") != FORMAT
    ]:
        if time.monotonic() >= deadline:
            raise OtherFormat(
                f"a worker of another version is alive: {older[0]}; end it first (it counts as alive for 15 s after that), "
                "nothing was changed (docs/operations.md, Upgrading)"
            )
        if not told:
            log.warning("worker.waits", reason="workers of another version are alive", workers=older)
            told = True
        await asyncio.sleep(LOOK_SECONDS)
