"""What the archive says of eventIds whose callbacks Redis has retired. It is asked in the background: it may be slow or away."""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from dispatcher.errors import ArchiveUnavailable
from dispatcher.store.archive.archive import Archive
from dispatcher.store.arguments import ERASED, NOT_ARCHIVED, Id
from dispatcher.worker.batch import Fault

ASKED_AT_ONCE = 500
"""EventIds in one call of the archive."""
MOST_REMEMBERED = 20_000
"""Most eventIds that are asked for, or whose answer has not been used yet; others are asked for when their entry is tried again."""
ANSWER_LASTS_SECONDS = 60.0
"""How long an answer counts: it must not be older than the shortest time from acceptance to retirement."""

ROUTE = "(archive)"
"""What entries that wait for the archive are put off by, in place of a workspace: no others wait behind them."""
ASKING = Fault("the archive is asked whether an eventId was accepted before", is_soon_over=True, seconds=0.1)


class RetiredCallbacks:
    """Asks one archive on behalf of one intake."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._wanted: dict[Id, None] = {}
        self._said: dict[Id, tuple[float, str]] = {}
        """When an answer came, and what it was."""
        self._task: asyncio.Task[None] | None = None
        self._fault = ASKING

    def said(self, ids: Sequence[Id]) -> Mapping[Id, str] | Fault:
        """The digest of each callback, or NOT_ARCHIVED; or why these are not known now. Then they are asked for."""
        now = time.monotonic()
        found = {id_: self._said[id_] for id_ in ids if id_ in self._said}
        fresh = {id_: text for id_, (at, text) in found.items() if now - at < ANSWER_LASTS_SECONDS}
        if len(fresh) == len(set(ids)):
            return fresh
        self._ask([id_ for id_ in ids if id_ not in fresh])
        return self._fault

    def used(self, ids: Collection[Id]) -> None:
        """Forgets answers."""
        for id_ in ids:
            self._said.pop(id_, None)

    def clear(self) -> None:
        """Forgets all answers."""
        self._said.clear()

    def _ask(self, ids: Sequence[Id]) -> None:
        for id_ in ids:
            if len(self._wanted) + len(self._said) >= MOST_REMEMBERED:
                if not self._said:
                    break
                self._said.popitem()  # the newest: entries are tried in their order
            self._said.pop(id_, None)
            self._wanted[id_] = None
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """Asks until nothing is wanted; after a failure once more when entries are tried again."""
        while some := [*islice(self._wanted, ASKED_AT_ONCE)]:
            try:
                digests = await self._archive.digests(some)
                if missing := [id_ for id_ in some if id_ not in digests]:
                    digests |= dict.fromkeys(await self._archive.erased(missing), ERASED)
            except Exception as error:  # the entries stay on the queue
                self._failed(error)
                self._wanted.clear()
                return
            self._fault = ASKING
            now = time.monotonic()
            for id_ in some:
                self._wanted.pop(id_, None)
                self._said[id_] = now, digests.get(id_, NOT_ARCHIVED)

    def _failed(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        unexpected = None if isinstance(error, ArchiveUnavailable) else error
        self._fault = Fault(
            f"only the archive knows whether some eventIds were accepted before, and it does not answer: {text}",
            error=unexpected,
        )
