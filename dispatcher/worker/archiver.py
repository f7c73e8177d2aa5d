"""Takes what ended some minutes ago in a partition to the archive, and then out of the ledger. The archive may be slow or away:
nothing else waits for it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from dispatcher.errors import ArchiveUnavailable, InvalidInput, NotLeader, OtherFormat, RedisUnavailable
from dispatcher.store.archive.archive import NO_TABLES, Archive
from dispatcher.store.archive.archived_callback import ArchivedCallback, Id, Kept
from dispatcher.store.command_parts import in_parts
from dispatcher.store.ledger import Ledger
from dispatcher.store.to_archive import ToArchive
from dispatcher.worker.message_archiver import AT_A_STRETCH, MessageArchiver
from dispatcher.worker.metrics import Metrics

BATCH = 200
"""Callbacks that are read, and written, at once."""
RETIRED_AT_ONCE = 100
"""Callbacks that one script takes out of the ledger: Redis does nothing else meanwhile, some milliseconds."""
DAY_MS = 86_400_000
DROP_SECONDS = 3600.0
"""How often what the archive has kept for long enough is dropped."""
LOOK_SECONDS = 1.0
"""How often it is looked for what has ended."""
FIRST_SECONDS, MOST_SECONDS = 1.0, 30.0
"""Pause after a failure, at first and at most; it doubles each time."""

log = structlog.get_logger()


@dataclass
class _Trouble:
    """What keeps callbacks, or messages, from the archive."""

    what: str
    said: str = ""
    """The failure that was logged last; empty: the last batch was taken."""
    pause: float = 0.0
    until: float = 0.0
    """When to try again, in monotonic seconds; only of messages, for which nothing waits."""


class Archiver:
    """One partition's; `messages` takes its messages. `lease` gives the token of who may retire, None while that is another one; `about` names the
    partition in the log.

    `allow` makes sure that every worker knows what is retired; it raises OtherFormat while one does not. `by_archive_alone` says
    whether Redis knows callbacks of any partition by the archive alone; it raises ArchiveUnavailable where one does not answer. `after_ms`: how long what
    has ended stays in the ledger. `keep_days`: how long the archive keeps it, if this one is to drop what is older.
    """

    def __init__(
        self,
        source: ToArchive,
        ledger: Ledger,
        archive: Archive,
        lease: Callable[[], Awaitable[str | None]],
        metrics: Metrics,
        about: Mapping[str, object],
        allow: Callable[[], Awaitable[None]],
        by_archive_alone: Callable[[], Awaitable[bool]],
        after_ms: int,
        keep_days: int | None = None,
        messages: MessageArchiver | None = None,
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._archive = archive
        self._lease = lease
        self._allow = allow
        self._by_archive_alone = by_archive_alone
        self._after_ms = after_ms
        self._metrics = metrics
        self._about = about
        self._keep_days = keep_days
        self._messages = messages
        self._dropped_at = -DROP_SECONDS
        self._dropping: asyncio.Task[None] | None = None
        self._is_ready = False
        """Whether the archive has its tables."""
        self._trouble, self._message_trouble = _Trouble("callbacks"), _Trouble("messages")

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping`. What the archive was told, and was not forgotten then, it is told again, which changes nothing."""
        while not stopping.is_set():
            try:
                token = await self._lease()
                pause = 0 if token and await self._take(token) else LOOK_SECONDS
                self._trouble.pause = 0.0
            except (RedisUnavailable, NotLeader):  # intake says so
                pause = LOOK_SECONDS
            except Exception as error:  # what is noted stays noted
                pause = self._note_failure(error, self._trouble)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause)
        if self._dropping:
            self._dropping.cancel()
            await asyncio.gather(self._dropping, return_exceptions=True)

    async def _take(self, token: str) -> bool:
        """Takes a batch of callbacks, and one of messages; returns whether there may be more."""
        if not self._is_ready:
            await self._make_ready()
        now_ms = await self._source.now_ms()
        is_dropping = self._dropping and not self._dropping.done()
        is_time = time.monotonic() - self._dropped_at >= DROP_SECONDS and not is_dropping
        if self._keep_days is not None and is_time:
            self._dropped_at = time.monotonic()
            self._dropping = asyncio.create_task(self._drop(now_ms // DAY_MS - self._keep_days))
        noted = await self._take_callbacks(token, now_ms)
        return BATCH in (noted, await self._take_messages(token, now_ms))

    async def _drop(self, before: int) -> None:
        """Drops what the archive has kept for long enough, beside the archiving."""
        try:
            await self._archive.drop_days(before)
        except Exception as error:
            self._metrics.archive_errors += 1
            expected = isinstance(error, ArchiveUnavailable)
            log.error(
                "archive.not_dropped",
                problem=str(error),
                action="trying again in an hour",
                exc_info=None if expected else error,
                **self._about,
            )

    async def _take_messages(self, token: str, now_ms: int) -> int:
        """Takes one batch of messages; returns how many it looked at. What is wrong with them does not hold up callbacks."""
        trouble = self._message_trouble
        if not self._messages or time.monotonic() < trouble.until:
            return 0
        try:
            taken = await self._messages.take(token, now_ms, self._allow)
        except (RedisUnavailable, NotLeader):
            raise
        except Exception as error:
            trouble.until = time.monotonic() + self._note_failure(error, trouble)
            return 0
        if taken.put:
            self._note_success(trouble)
        return taken.looked_at

    async def _take_callbacks(self, token: str, now_ms: int) -> int:
        """Takes one batch; returns how many notes that was."""
        noted = await self._source.batch(now_ms - self._after_ms, BATCH)
        if not noted.notes:
            return 0
        await self._allow()
        kept = {one.key: one.entry for one in noted.kept}
        taken: list[ArchivedCallback] = []
        callbacks: list[ArchivedCallback] = []
        for number, one in enumerate(noted.kept):
            if number % AT_A_STRETCH == 0:
                await asyncio.sleep(0)  # let callbacks go on in between
            if found := _archived(one):
                callbacks.append(found)
        if callbacks:
            began = time.monotonic()
            taken = await self._put(callbacks)
            self._metrics.archive_seconds.add(time.monotonic() - began)
            self._metrics.archived += len(taken)
        await self._retire(token, [(one.key, kept[one.key]) for one in taken], noted.notes)
        if callbacks:
            self._note_success(self._trouble)
        return len(noted.notes)

    async def _make_ready(self) -> None:
        """Makes the archive's tables; not where Redis knows callbacks by it alone, because they are in another one then."""
        if not await self._archive.version() and await self._by_archive_alone():
            raise ArchiveUnavailable(f"Redis knows callbacks by the archive alone, and {NO_TABLES}")
        await self._archive.migrate()
        self._is_ready = True

    async def _retire(
        self, token: str, callbacks: Sequence[tuple[Id, bytes]], notes: Sequence[bytes]
    ) -> None:
        """Takes callbacks out of the ledger, and then the notes of all."""
        parts = [callbacks[at : at + RETIRED_AT_ONCE] for at in range(0, len(callbacks), RETIRED_AT_ONCE)]
        for some, of in [*((part, ()) for part in parts), *(((), part) for part in in_parts(notes))]:
            if await self._ledger.retire(token, some, of) is None:
                raise OtherFormat("the data's format has changed meanwhile: nothing leaves Redis")

    async def _put(self, callbacks: Sequence[ArchivedCallback]) -> list[ArchivedCallback]:
        """Puts callbacks into the archive; returns those that it took. Each of the others is logged: it stays in the ledger."""
        try:
            await self._archive.put(callbacks)
            return [*callbacks]
        except InvalidInput as error:
            if len(callbacks) == 1:
                [one] = callbacks
                log.error("archive.refused", workspace=one.workspace, event_id=one.id, problem=str(error))
                return []
            half = len(callbacks) // 2
            return [*await self._put(callbacks[:half]), *await self._put(callbacks[half:])]

    def _note_failure(self, error: Exception, trouble: "_Trouble") -> float:
        """Logs a failure that is not the one logged last; returns for how long to pause."""
        self._metrics.archive_errors += 1
        self._is_ready = False  # it may be another, empty database afterwards
        text = str(error) or type(error).__name__
        if text != trouble.said:
            expected = isinstance(error, ArchiveUnavailable | OtherFormat)
            log.error(
                "archive.away",
                problem=text,
                action="trying again; callbacks go on, and what ended waits in Redis",
                what=trouble.what,
                exc_info=None if expected else error,
                **self._about,
            )
        trouble.said = text
        trouble.pause = min(max(FIRST_SECONDS, trouble.pause * 2), MOST_SECONDS)
        return trouble.pause

    def _note_success(self, trouble: "_Trouble") -> None:
        if trouble.said:
            log.info("archive.back", what=trouble.what, **self._about)
        trouble.said, trouble.pause = "", 0.0


def _archived(kept: Kept) -> ArchivedCallback | None:
    """What the archive keeps; None, and logged, for an entry that no script of ours wrote."""
    try:
        return kept.archived()
    except InvalidInput as error:
        log.error("archive.unreadable", workspace=kept.workspace, event_id=kept.id, problem=str(error))
        return None
