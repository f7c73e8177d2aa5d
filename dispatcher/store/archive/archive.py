"""What every archive does."""

from collections.abc import Collection, Sequence
from typing import Protocol

from dispatcher.store.archive.archived_callback import ArchivedCallback, Id


class Archive(Protocol):
    """Keeps callbacks that have ended. Every method raises ArchiveUnavailable."""

    async def version(self) -> int:
        """The number of its schema; 0: it has no tables."""

    async def migrate(self) -> int:
        """Makes its tables, or brings them to the newest version; returns that. Raises OtherFormat if they are newer."""

    async def put(self, callbacks: Sequence[ArchivedCallback]) -> None:
        """Adds callbacks, all or none. Those that it has stay as they are, so it may be told the same again."""

    async def get(self, ids: Collection[Id], days: Collection[int] = ()) -> list[ArchivedCallback]:
        """Callbacks by their ids, in no order; looks only at the days in which they ended, if these are known.

        days: numbers of days since 1970, UTC
        """

    async def of_message(self, workspace: str, message: str) -> list[ArchivedCallback]:
        """The callbacks of a message, in order of acceptance."""

    async def remove(self, ids: Collection[Id]) -> int:
        """Takes callbacks out; returns how many it had."""

    async def drop_days(self, before: int) -> int:
        """Forgets what ended before a day (its number since 1970, UTC); returns how many callbacks, or days, that were."""

    async def aclose(self) -> None:
        """Closes all connections."""
