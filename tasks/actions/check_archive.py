"""Looks at the archive: whether it answers, and how far it is behind."""

import asyncio

from dispatcher.errors import ArchiveUnavailable, OtherFormat
from dispatcher.model import iso
from dispatcher.store.archive.archive import VERSION
from dispatcher.store.check_finding import Finding, Verdict
from tasks import tables, wiring

LATE_MS = 60_000
"""What should have gone there longer ago is late."""
ANSWER_SECONDS = 3.0
NAME = "archive"
ADVICE = "callbacks go on, and what ended waits in Redis until it answers; watch Redis's memory"


async def look_at_archive(store: wiring.Store, after_seconds: int) -> list[Finding]:
    """What is found; nothing without an archive. `after_seconds`: how long what has ended stays in Redis first."""
    if store.archive is None:
        return []
    callbacks, messages = (
        await store.installation.to_archive(),
        await store.installation.messages_to_archive(),
    )
    oldest = max(callbacks, messages, key=lambda one: one.age_ms)
    waits = " and ".join(
        [
            tables.counted(callbacks.count, "ended callback", "ended callbacks"),
            tables.counted(
                messages.count, "message has not gone there yet", "messages have not gone there yet"
            ),
        ]
    )
    behind = (
        f"{waits}, the first since {iso(oldest.oldest_ms)}" if callbacks.count or messages.count else waits
    )
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            version, flaw = await store.archive.version(), await store.archive.flaw()
    except TimeoutError:
        return [Finding(NAME, Verdict.BAD, f"no answer within {ANSWER_SECONDS:g} s; {behind}", ADVICE)]
    except ArchiveUnavailable as error:
        return [Finding(NAME, Verdict.BAD, f"{error}; {behind}", ADVICE)]
    except OtherFormat as error:
        return [Finding(NAME, Verdict.BAD, str(error), "the same version of this program everywhere")]
    if not version and await store.installation.fingerprints_until():
        found = f"Redis knows callbacks by an archive alone, and this one has no tables; {behind}"
        advice = (
            "is DISPATCHER_ARCHIVE_URL right? with an empty archive a repeated eventId would be sent again"
        )
        return [Finding(NAME, Verdict.BAD, found, advice)]
    if flaw:
        advice = "what has such a character is not kept (`archive.refused`, or `archive.away` without tables): move the archive to another database"
        return [Finding(NAME, Verdict.WARNING if version else Verdict.BAD, f"{flaw}; {behind}", advice)]
    if not version:
        advice = "start a worker with this setting, or run `dispatcher archive migrate`"
        return [Finding(NAME, Verdict.WARNING, f"it has no tables yet; {behind}", advice)]
    if version < VERSION:
        found = f"its tables have version {version}, and this program needs {VERSION}; {behind}"
        advice = "upgrade workers and `dispatcher archiver`, or run `dispatcher archive migrate`; until then the status API refuses some questions (503)"
        return [Finding(NAME, Verdict.WARNING, found, advice)]
    if oldest.age_ms > LATE_MS + after_seconds * 1000:
        advice = "is a worker alive? its log says `archive.away` and why"
        return [Finding(NAME, Verdict.WARNING, behind, advice)]
    return [Finding(NAME, Verdict.OK, f"it answers; {behind}")]
