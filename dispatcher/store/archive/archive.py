"""What every archive does."""

import struct
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol

from dispatcher.errors import OtherFormat
from dispatcher.model import LETTERS
from dispatcher.rules.outcomes import ENDS
from dispatcher.store.archive.archived_callback import ArchivedCallback, Id
from dispatcher.store.archive.messages import ArchivedMessages
from dispatcher.store.archive.which import Which

_CASES = " ".join(f"WHEN '{letter}' THEN '{one.value}'" for one, letter in LETTERS.items())
STATUS = f"CASE status {_CASES} END"
"""A status as SQL, from its letter."""
STATES = tuple(sorted(ENDS))
"""In which a callback may be kept."""
VERSION = 3
"""Of the tables that this program makes."""
NO_TABLES = "it has no tables, or those of an older version; is DISPATCHER_ARCHIVE_URL right? `dispatcher archive migrate` makes them"
NO_VALUE = (OverflowError, UnicodeError, struct.error)
"""What a database's driver raises for a value that no column can have, such as a number of 30 digits."""
After = tuple[int, str, str]
"""When a callback ended (ms since 1970), its workspace and id: where a page ends."""


class Page(NamedTuple):
    """What was found among the callbacks that were looked at."""

    found: list[ArchivedCallback]
    end: After | None
    """Where the next page begins; None: there is nothing more."""


class Archive(Protocol):
    """Keeps callbacks that have ended, and messages. Every method raises ArchiveUnavailable."""

    @property
    def messages(self) -> ArchivedMessages:
        """Its messages."""

    async def version(self) -> int:
        """The number of its schema; 0: it has no tables. Raises OtherFormat if it is newer than this program."""

    async def migrate(self) -> int:
        """Makes its tables, or brings them to the newest version; returns that. Raises OtherFormat if they are newer."""

    async def flaw(self) -> str:
        """Why it cannot keep all that there may be; empty if it can. `migrate` makes no tables then."""

    async def put(self, callbacks: Sequence[ArchivedCallback]) -> None:
        """Adds callbacks, all or none. Those that it has stay as they are, so it may be told the same again;
        but one that was replayed, and ended again, takes the place of its earlier end.

        Raises InvalidInput if one of them cannot be kept.
        """

    async def get(self, ids: Collection[Id], days: Collection[int] = ()) -> list[ArchivedCallback]:
        """Callbacks by their ids; looks only at the days in which they ended, if these are known.

        One that ended more than once (Redis was restored from a copy) may come as often, its last end last.

        days: numbers of days since 1970, UTC
        """

    async def digests(self, ids: Collection[Id]) -> dict[Id, str]:
        """The digests of callbacks, by their ids; those that it does not have are missing."""

    async def of_message(self, workspace: str, message: str) -> list[ArchivedCallback]:
        """The callbacks of a message, in order of acceptance."""

    async def ended(self, which: Which, after: After | None, look: int) -> Page:
        """Those that match of the next `look` callbacks, latest end first; what it reads does not grow with what it keeps.

        after: the end of the page before; None: the first page
        """

    async def remove(self, ids: Collection[Id]) -> int:
        """Takes callbacks out; returns how many it had."""

    async def erase(self, ids: Collection[Id], day: int) -> int:
        """Takes callbacks out for good: `put` leaves them out from now on, whatever it is told. Returns how many it had.

        Of their ids a fingerprint stays, with the day (its number since 1970, UTC).
        """

    async def erased(self, ids: Collection[Id]) -> set[Id]:
        """Those of the ids that were erased."""

    async def drop_days(self, before: int) -> int:
        """Forgets what ended, or was erased, before a day (its number since 1970, UTC).

        Returns how many callbacks and messages, or days with these, that were.
        """

    async def aclose(self) -> None:
        """Closes all connections."""


def known_version(found: int, known: int) -> int:
    """A schema's number, if this program knows it. Raises OtherFormat if it is newer."""
    if found > known:
        raise OtherFormat(
            f"the archive has version {found}, and this program knows {known}: upgrade the program"
        )
    return found


def page(rows: Sequence[tuple[Any, ...]], look: int) -> Page:
    """A page from rows of a callback's fields, its place among those that were looked at, and whether it matches."""
    kept = [ArchivedCallback(*row[:-2]) for row in rows]
    end = (kept[-1].ended_ms, *kept[-1].key) if rows and rows[-1][-2] == look else None
    found = [one for one, row in zip(kept, rows, strict=True) if row[-1]]
    return Page(found, end)
