"""Everything about one callback: what happened to it, those beside it, and what happens next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dispatcher.errors import ArchiveUnavailable, NotFound
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import State
from dispatcher.rules.subscription import DEFAULT
from dispatcher.store.archive.history import Away
from dispatcher.store.holds import Schedule, next_step
from dispatcher.store.stored_callback import StoredCallback
from tasks import wiring

States = Mapping[EndpointName, str]
"""States of subscriptions, by the endpoints that are theirs."""


@dataclass(frozen=True)
class Story:
    """A callback and what surrounds it."""

    event: StoredCallback
    others: Sequence[StoredCallback]
    """Its status change's callbacks for other subscriptions."""
    next_step: str
    now_ms: int
    schedule: Schedule
    states: States


async def story(
    store: wiring.Store, workspace: str, event_id: str, max_attempts: int, away: Away
) -> Story | None:
    """The story of an event; None if nothing is known of it.

    max_attempts: the setting
    away: called where the archive does not answer
    Raises NotFound for an unknown workspace, and for an event that was erased.
    """
    history = store.history_so_far(away)
    event = await history.get(workspace, event_id)
    is_erased = (
        event.state is State.ERASED if event else await _only_archive_erased(store, workspace, event_id, away)
    )
    if is_erased:
        raise NotFound(f"event {event_id} of workspace {workspace} was erased: nothing else is known of it")
    if event is None:
        await store.workspaces.require(workspace)  # raises NotFound for an unknown workspace
        return None
    others = await history.others(event)
    by = await _schedule(store, event, max_attempts)
    next_, states = await _next_step(store, event, by, away), await states_of(store, [event, *others])
    return Story(event, others, next_, await store.installation.now_ms(), by, states)


async def states_of(store: wiring.Store, found: Sequence[StoredCallback]) -> States:
    """The states of the subscriptions for which some of the callbacks wait."""
    return await store.endpoints.states(event.endpoint_name for event in found if not event.ended)


async def _only_archive_erased(store: wiring.Store, workspace: str, event_id: str, away: Away) -> bool:
    """Whether the archive knows that an event was erased of which Redis knows nothing (any more)."""
    if store.archive is None:
        return False
    try:
        return bool(await store.archive.erased([(workspace, event_id)]))
    except ArchiveUnavailable as error:
        away(error)
        return False


async def _schedule(store: wiring.Store, event: StoredCallback, max_attempts: int) -> Schedule:
    workspace = await store.workspaces.find(event.workspace)
    receiver = workspace and workspace.receiver(event.subscription)
    delays = receiver.retry_schedule if receiver else ()
    return Schedule(len(delays) or max_attempts, delays, event.subscription or DEFAULT)


async def _next_step(store: wiring.Store, event: StoredCallback, schedule: Schedule, away: Away) -> str:
    if event.state is State.FANNED_OUT:
        return "nothing: the default subscription does not want it"
    endpoint = await store.endpoints.get(event.endpoint_name)
    if endpoint is None:
        raise NotFound(f"endpoint {event.endpoint} of workspace {event.workspace} is gone from Redis")
    before = await store.callbacks.before(event, endpoint)
    has_body = await store.history_so_far(away).has_body(event)
    return next_step(event, endpoint, before, has_body=has_body, schedule=schedule)
