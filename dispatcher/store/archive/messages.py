"""What every archive does with messages."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from dispatcher.store.archive.archived_message import ArchivedMessage

EVER_MS = 9_999_999_999_999
"""Later than any message: the latest time that a record can have."""
Place = tuple[int, str]
"""When a message was sent (ms since 1970), and its uuid: where a page ends."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Messages of a workspace that were sent between two times, both inclusive, in order of that and of their uuids."""

    workspace: str
    key: str
    """As ArchivedMessage.keys has it."""
    from_ms: int = 0
    to_ms: int = EVER_MS
    latest_first: bool = False


class Counted(NamedTuple):
    """How many messages of a campaign have each status, by its letter; and when the first of them was sent."""

    by_status: Mapping[str, int]
    started_ms: int


def counted(rows: Sequence[tuple[str, int, int]]) -> Counted | None:
    """From a row for each status: its letter, how many, and when the first was sent."""
    if not rows:
        return None
    return Counted({letter: count for letter, count, _ in rows}, min(sent_ms for *_, sent_ms in rows))


class ArchivedMessages(Protocol):
    """Keeps messages. Every method raises ArchiveUnavailable."""

    async def put(self, messages: Sequence[ArchivedMessage]) -> None:
        """Adds messages, all or none, but for those that were erased. One that it has is put together with what it has.

        Raises InvalidInput if one of them cannot be kept.
        """

    async def get(self, workspace: str, uuids: Collection[str]) -> list[ArchivedMessage]:
        """What it has of messages, in no order; of one it may have several rows (archived_message.whole)."""

    async def listed(
        self, wanted: Wanted, after: Place | None, count: int, skip: int = 0
    ) -> list[ArchivedMessage]:
        """The next messages, at most so many.

        after: where the page before ended; None: the first page
        skip: how many to leave out first; it reads these
        """

    async def latest(self, workspace: str, keys: Collection[str]) -> dict[str, list[str]]:
        """The uuids of the messages with each of these keys, that first which was over last; those that no message has are missing."""

    async def campaign(self, workspace: str, campaign: str) -> Counted | None:
        """A campaign's counts; None if it has no message of it. What this reads grows with the campaign."""

    async def erase(self, workspace: str, uuids: Collection[str], day: int) -> int:
        """Takes messages out for good: `put` leaves them out from now on. Returns how many it had.

        Of their ids a fingerprint stays, with the day (its number since 1970, UTC).
        """

    async def count(self, workspace: str) -> int:
        """How many messages of a workspace it has. What this reads grows with that."""

    async def some(self, workspace: str, count: int) -> list[str]:
        """The uuids of any messages of a workspace, at most so many."""
