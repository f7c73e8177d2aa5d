"""Puts rejected queue entries back on the queue, or removes them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dispatcher.store.rejected import RejectedEntry
from tasks import wiring
from tasks.actions.partly import Partly

KEPT = 10_000
"""How many rejected entries are kept at most."""
REQUEUED_AT_ONCE = 50
NOT_USABLE = ("poisoned", "no_event_field")
"""Reasons to requeue only if named: a poisoned entry killed its readers, the other has no `event` field to read."""


@dataclass(frozen=True)
class Choice:
    """Selects rejected entries: one, or all of a reason, a workspace, or both."""

    entry: str | None = None
    reason: str | None = None
    workspace: str | None = None

    def has(self, one: RejectedEntry) -> bool:
        """Whether an entry is selected."""
        return (
            self.entry in (None, one.entry)
            and self.reason in (None, one.reason)
            and self.workspace in (None, one.workspace)
        )

    def requeues(self, one: RejectedEntry) -> bool:
        """Whether an entry is selected for requeuing; those of NOT_USABLE only by entry or reason."""
        is_named = self.entry is not None or self.reason is not None
        return self.has(one) and (is_named or one.reason not in NOT_USABLE)


@dataclass(frozen=True)
class Requeued:
    """The result of requeuing."""

    entries: int
    """How many were selected."""
    requeued: int = 0
    left: int = 0
    """How many were not requeued: stored only in part, or gone meanwhile."""


async def to_requeue(store: wiring.Store, choice: Choice) -> list[str]:
    """The ids of the entries that would be requeued."""
    return [one.id for one in await store.rejected.newest(KEPT, choice.requeues)]


async def requeue(
    store: wiring.Store,
    choice: Choice,
    ids: Sequence[str],
    progress: Callable[[Sequence[Sequence[str]]], Iterable[Sequence[str]]] = lambda some: some,
) -> Requeued:
    """Puts entries back on the queue unchanged, in batches wrapped by `progress`; `choice` goes into the audit entry."""
    requeued = left = 0
    about = {"entry": choice.entry, "reason": choice.reason}
    async with store.audit.steps("rejected.requeue", choice.workspace or "", **about) as done:
        step, partly = REQUEUED_AT_ONCE, Partly()
        for some in progress([ids[first : first + step] for first in range(0, len(ids), step)]):
            there, gone = await partly.of(store.ledger.requeue(some))
            requeued, left = requeued + there, left + gone
            done["requeued"] = requeued
        partly.raise_problem()
    return Requeued(len(ids), requeued, left)


async def remove(store: wiring.Store, choice: Choice, ids: Sequence[str]) -> int:
    """Deletes entries; returns how many were still there. `choice` goes into the audit entry."""
    partly = Partly()
    removed = await partly.of(store.rejected.remove(ids))
    await store.audit.add("rejected.purge", after={"reason": choice.reason, "removed": removed})
    partly.raise_problem()
    return removed
