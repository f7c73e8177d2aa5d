"""Looks at the archive: whether it answers, and how far it is behind."""

import asyncio

from dispatcher.errors import ArchiveUnavailable, OtherFormat
from dispatcher.store.check_finding import Finding, Verdict
from tasks import wiring

LATE_MS = 60_000
"""What ended longer ago should be in the archive."""
ANSWER_SECONDS = 3.0
NAME = "archive"
ADVICE = "callbacks go on, and what ended waits in Redis until it answers; watch Redis's memory"


async def look_at_archive(store: wiring.Store) -> list[Finding]:
    """What is found; nothing without an archive."""
    if store.archive is None:
        return []
    backlog, now_ms = await store.installation.to_archive(), await store.installation.now_ms()
    behind = f"{backlog.count:,} ended callbacks are not in it yet"
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            version = await store.archive.version()
    except TimeoutError:
        return [Finding(NAME, Verdict.BAD, f"no answer within {ANSWER_SECONDS:g} s; {behind}", ADVICE)]
    except ArchiveUnavailable as error:
        return [Finding(NAME, Verdict.BAD, f"{error}; {behind}", ADVICE)]
    except OtherFormat as error:
        return [Finding(NAME, Verdict.BAD, str(error), "the same version of this program everywhere")]
    if not version:
        advice = "start a worker with this setting, or run `dispatcher archive migrate`"
        return [Finding(NAME, Verdict.WARNING, f"it has no tables yet; {behind}", advice)]
    if now_ms - backlog.oldest_ms > LATE_MS:
        late = f"{behind}, the first for {(now_ms - backlog.oldest_ms) // 1000:,} s"
        return [
            Finding(NAME, Verdict.WARNING, late, "is a worker alive? its log says `archive.away` and why")
        ]
    return [Finding(NAME, Verdict.OK, f"it answers; {behind}")]
