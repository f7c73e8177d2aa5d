"""Putting rejected queue entries back on the queue, and removing them."""

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.store.rejected import RejectedEntry
from tasks import wiring

KEPT = 10_000
"""How many are kept at most."""
REQUEUED_AT_ONCE = 50
NOT_USABLE = ("poisoned", "no_event_field")
"""Reasons that are requeued only by name: the first killed its readers, the second has nothing to read."""


@dataclass(frozen=True)
class Choice:
    """Which rejected entries: one, or all of a reason, of a workspace, or of both."""

    entry: str | None = None
    reason: str | None = None
    workspace: str | None = None

    def has(self, one: RejectedEntry) -> bool:
        """Whether it is one of them."""
        return (
            self.entry in (None, one.entry)
            and self.reason in (None, one.reason)
            and self.workspace in (None, one.workspace)
        )

    def requeues(self, one: RejectedEntry) -> bool:
        """Whether it is one of them, and can be of use on the queue as far as is known."""
        is_named = self.entry is not None or self.reason is not None
        return self.has(one) and (is_named or one.reason not in NOT_USABLE)


@dataclass(frozen=True)
class Requeued:
    """What became of many."""

    entries: int
    """How many were chosen."""
    requeued: int = 0
    left: int = 0
    """How many stay: kept only in part, or gone meanwhile."""


async def to_requeue(store: wiring.Store, choice: Choice) -> list[str]:
    """The ids of the entries that would be requeued."""
    return [one.id for one in await store.rejected.newest(KEPT, choice.requeues)]


async def requeue(store: wiring.Store, choice: Choice, ids: Sequence[str]) -> Requeued:
    """Puts them back on the queue as they came; `choice` is what the audit says of them."""
    requeued = left = 0
    about = {"entry": choice.entry, "reason": choice.reason}
    async with store.audit.steps("rejected.requeue", choice.workspace or "", **about) as done:
        for first in range(0, len(ids), REQUEUED_AT_ONCE):
            there, gone = await store.ledger.requeue(ids[first : first + REQUEUED_AT_ONCE])
            requeued, left = requeued + there, left + gone
            done["requeued"] = requeued
    return Requeued(len(ids), requeued, left)


async def remove(store: wiring.Store, choice: Choice, ids: Sequence[str]) -> None:
    """Removes entries for good; `choice` is what the audit says of them."""
    await store.rejected.remove(ids)
    await store.audit.add("rejected.purge", after={"reason": choice.reason, "removed": len(ids)})
