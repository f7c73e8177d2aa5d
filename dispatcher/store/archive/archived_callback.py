"""A callback as the archive keeps it: the ledger's entry, taken apart into columns without a loss."""

from dataclasses import dataclass

import msgspec

from dispatcher.errors import InvalidInput, visible
from dispatcher.store.entry import read_entry

Id = tuple[str, str]
"""Workspace, and eventId or `eventId.subscription`."""


class ArchivedCallback(msgspec.Struct, frozen=True):
    """One callback that has ended. Times are ms since 1970."""

    workspace: str
    id: str
    """`eventId`, or `eventId.subscription`."""
    endpoint: str
    """The endpoint's id."""
    endpoint_name: str
    """As EndpointName writes it; empty if it is not known any more."""
    message: str
    event_type: str
    status: str
    """Its letter (dispatcher/model.py)."""
    state: str
    accepted_ms: int
    ended_ms: int
    life_ms: int
    """From acceptance to expiry."""
    claims: int
    digest: str
    attempts: int
    """Number of `records`."""
    http_status: int | None
    """Of the last attempt; None if no answer was read, or none was made."""
    error: str | None
    """Of the last attempt."""
    records: str
    """A line for each attempt, as in the entry."""
    extra: str
    """Rare fields as `name=value`, separated by blanks, as in the entry."""
    answer: bytes | None
    """First bytes of the last answer that was no success."""
    body: bytes | None
    """What was POSTed, as the ledger keeps it, where it was kept."""

    @property
    def key(self) -> Id:
        """What it is known by."""
        return self.workspace, self.id

    def entry(self) -> bytes:
        """The entry, byte for byte as it was in Redis."""
        state = "d" if self.state == "delivered" else self.state
        head = [
            self.digest, self.event_type, self.status, self.accepted_ms, state, self.claims, self.endpoint, self.message,
            self.life_ms, self.ended_ms - self.accepted_ms, *([self.extra] if self.extra else []),
        ]  # fmt: skip
        return (" ".join(map(str, head)) + ("\n" + self.records if self.records else "")).encode()


@dataclass(frozen=True, slots=True)
class Kept:
    """What Redis has of a callback."""

    workspace: str
    id: str
    entry: bytes
    endpoint_name: str = ""
    answer: bytes | None = None
    body: bytes | None = None

    @property
    def key(self) -> Id:
        """What it is known by."""
        return self.workspace, self.id

    def archived(self) -> ArchivedCallback:
        """The same as the archive keeps it. Raises InvalidInput if the entry is none that has ended, or that can be read."""
        try:
            if not read_entry(self.entry).ended:
                raise ValueError("it has not ended")
            head, _, records = self.entry.decode().partition("\n")
            words = head.split(" ", 10)
            digest, event_type, status, accepted, state, claims, endpoint, message, life, ended = words[:10]
            last = records.rpartition("\n")[2].split(" ") if records else []
            return ArchivedCallback(
                self.workspace,
                self.id,
                endpoint,
                self.endpoint_name,
                message,
                event_type,
                status,
                "delivered" if state == "d" else state,
                int(accepted),
                int(accepted) + int(ended),
                int(life),
                int(claims),
                digest,
                records.count("\n") + 1 if records else 0,
                int(last[2]) if last and last[2] != "-" else None,
                last[3] if len(last) > 3 else None,
                records,
                words[10] if len(words) > 10 else "",
                self.answer,
                self.body,
            )
        except (ValueError, IndexError):
            shown = visible(self.entry[:80].decode(errors="replace"))
            raise InvalidInput(f"not an entry of a callback that has ended: {shown!r}") from None
