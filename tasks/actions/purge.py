"""Cancels waiting callbacks, and removes ended ones."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TypeVar

from dispatcher.rules.outcomes import State
from dispatcher.store.archive.ends import ends
from dispatcher.store.archive.which import Which
from dispatcher.store.stored_callback import Pending, StoredCallback, Waiting
from tasks import wiring
from tasks.actions.partly import Partly

BATCH = 500

T = TypeVar("T")

Batch = tuple[str, list[Waiting]]
"""An endpoint, and callbacks to it."""


async def cancel(
    store: wiring.Store,
    workspace: str,
    origin: str | None,
    found: Sequence[Pending],
    progress: Callable[[Sequence[Batch]], Iterable[Batch]],
    **about: str | None,
) -> int:
    """Ends waiting callbacks as failed (cancelled), in batches wrapped by `progress`; returns how many still waited.

    `about` goes into the audit entry.
    """
    by_endpoint = groupby(sorted(found, key=attrgetter("endpoint")), attrgetter("endpoint"))
    batches = [(to, some) for to, group in by_endpoint for some in _batched([one.waiting for one in group])]
    count = 0
    async with store.audit.steps("callbacks.cancel", workspace, endpoint=origin, **about) as done:
        partly = Partly()
        for to, some in progress(batches):
            count += await partly.of(store.ledger.cancel(to, some))
            done["cancelled"] = count
        partly.raise_problem()
    return count


async def ended(
    store: wiring.Store, workspace: str, state: State | None, message: str | None
) -> list[StoredCallback]:
    """A workspace's ended callbacks, by state, or by message if `state` is None; the archive's too. Raises NotFound."""
    await store.workspaces.require(workspace)
    if state is None:
        return [event for event in await store.history.of_message(workspace, message or "") if event.ended]
    found = ends(store.callbacks, store.archive, [workspace], Which(workspace, (state.value,)))
    return [event async for _, event in found if event]


async def forget(
    store: wiring.Store, workspace: str, events: Sequence[StoredCallback], **about: str | None
) -> tuple[int, int]:
    """Removes callbacks from the ledger, and then from the archive; returns how many each had. `about` goes into the audit entry."""
    count = archived = 0
    async with store.audit.steps("callbacks.forget", workspace, **about) as done:
        partly = Partly()
        for ids in _batched([event.event_id for event in events]):
            count += await partly.of(store.ledger.forget(workspace, ids))
            done["forgotten"] = count
            if store.archive and not partly.problem:  # later, once Redis has none of them
                archived += await store.archive.remove([(workspace, one) for one in ids])
                done["archived"] = archived
        partly.raise_problem()
    return count, archived


def _batched(values: list[T]) -> list[list[T]]:
    return [values[first : first + BATCH] for first in range(0, len(values), BATCH)]
