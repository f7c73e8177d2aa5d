"""What every archive does."""

from collections.abc import Collection, Sequence
from typing import Protocol

from dispatcher.errors import OtherFormat
from dispatcher.model import LETTERS
from dispatcher.store.archive.archived_callback import ArchivedCallback, Id

_CASES = " ".join(f"WHEN '{letter}' THEN '{one.value}'" for one, letter in LETTERS.items())
STATUS = f"CASE status {_CASES} END"
"""A status as SQL, from its letter."""
After = tuple[int, str, str]
"""When a callback ended (ms since 1970), its workspace and id: where a page ends."""


class Archive(Protocol):
    """Keeps callbacks that have ended. Every method raises ArchiveUnavailable."""

    async def version(self) -> int:
        """The number of its schema; 0: it has no tables. Raises OtherFormat if it is newer than this program."""

    async def migrate(self) -> int:
        """Makes its tables, or brings them to the newest version; returns that. Raises OtherFormat if they are newer."""

    async def put(self, callbacks: Sequence[ArchivedCallback]) -> None:
        """Adds callbacks, all or none. Those that it has stay as they are, so it may be told the same again;
        but one that was replayed, and ended again, takes the place of its earlier end.

        Raises InvalidInput if one of them cannot be kept.
        """

    async def get(self, ids: Collection[Id], days: Collection[int] = ()) -> list[ArchivedCallback]:
        """Callbacks by their ids, in no order; looks only at the days in which they ended, if these are known.

        days: numbers of days since 1970, UTC
        """

    async def digests(self, ids: Collection[Id]) -> dict[Id, str]:
        """The digests of callbacks, by their ids; those that it does not have are missing."""

    async def of_message(self, workspace: str, message: str) -> list[ArchivedCallback]:
        """The callbacks of a message, in order of acceptance."""

    async def ended(
        self,
        workspaces: Collection[str] | None,
        state: str,
        since_ms: int,
        until_ms: int,
        after: After | None,
        limit: int,
    ) -> list[ArchivedCallback]:
        """Callbacks of workspaces (None: of all) that ended in a state (empty: any) between two times, latest first; at most `limit`.

        after: the last callback of the page before; None: the first page
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

        Returns how many callbacks, or days with callbacks, that were.
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
