"""Replays ended callbacks."""

import asyncio
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from dispatcher.errors import NotFound
from dispatcher.rules.endpoint_name import EndpointName, callback_id, subscription_of
from dispatcher.rules.outcomes import State
from dispatcher.rules.subscription import ACTIVE
from dispatcher.rules.workspace import Workspace
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.stored_callback import OfSubscription, StoredCallback
from dispatcher.store.subscriptions import found
from tasks import wiring
from tasks.actions.events import Filter, chosen

SUBSCRIPTION_REMOVED = "subscription_removed"
"""In place of the ledger's word: its subscription is gone, also where one of the same name was added since."""

WORKSPACE_REMOVED = "workspace_removed"
"""In place of the ledger's word: its workspace is gone, and what was replayed would end at once."""

NOT_RENDERED = "not_rendered"
"""In place of the ledger's word: it has no body, since its subscription's terms allowed none."""

UNKNOWN = "unknown"
"""The ledger's word for a callback that Redis does not have."""
REPLAYED = "replayed"
"""The ledger's word for a callback that was replayed."""

AT_A_STRETCH = 1000
"""Of very many callbacks so many are looked at, then other tasks run."""


@dataclass(frozen=True, slots=True)
class ToReplay(OfSubscription):
    """What replaying a callback needs of it: of very many, all of each would be gigabytes."""

    workspace: str
    event_id: str
    endpoint: str
    error: str | None
    accepted_ms: int
    ended_ms: int | None

    @classmethod
    def of(cls, event: StoredCallback) -> "ToReplay":
        """That of a callback; names that many have are kept once."""
        workspace, endpoint = sys.intern(event.workspace), sys.intern(event.endpoint)
        error = event.error and sys.intern(event.error)
        return cls(workspace, event.event_id, endpoint, error, event.accepted_ms, event.ended_ms)


@dataclass(frozen=True)
class How:
    """How callbacks are replayed."""

    expiry_seconds: int
    as_new: bool = False
    """Use a fresh eventId."""
    rate: float = 50
    """Callbacks a second, if many are replayed."""


@dataclass(frozen=True)
class Replayed:
    """The result of replaying many."""

    by_endpoint: Counter[str]
    """How many were selected, by `workspace origin`."""
    words: Counter[str] = field(default_factory=Counter)
    """How many by the ledger's word for the result; empty if they were only counted."""
    held: Sequence[Endpoint] = ()
    """Endpoints that are stopped or paused: what goes there waits."""

    @property
    def count(self) -> int:
        """How many were selected."""
        return self.by_endpoint.total()


async def counted(store: wiring.Store, events: Sequence[ToReplay]) -> Replayed:
    """How many would be replayed, by endpoint; and by word those of which it is known already that they would not."""
    refused = await refusals(store, events)
    words = Counter(refused.values())
    by_endpoint = Counter[EndpointName]()
    for number, event in enumerate(events):
        if _id(event) not in refused:
            by_endpoint[event.endpoint_name] += 1
        if number % AT_A_STRETCH == 0:
            await asyncio.sleep(0)
    return Replayed(
        Counter({str(name): count for name, count in by_endpoint.items()}),
        words,
        held=await held(store, by_endpoint),
    )


def _id(event: ToReplay) -> tuple[str, str]:
    return event.workspace, event.event_id


async def refusals(store: wiring.Store, events: Iterable[ToReplay]) -> dict[tuple[str, str], str]:
    """Those that are not replayed, whatever the ledger says, each with the word for why."""
    known: dict[str, Workspace | None] = {}
    found: dict[tuple[str, str], str] = {}
    for number, event in enumerate(events):
        if number % AT_A_STRETCH == 0:
            await asyncio.sleep(0)
        if event.workspace not in known:
            known[event.workspace] = await store.workspaces.find(event.workspace)
        if event.error == NOT_RENDERED:
            found[_id(event)] = NOT_RENDERED
        elif known[event.workspace] is None:
            found[_id(event)] = WORKSPACE_REMOVED
        elif is_of_removed(event, known[event.workspace]):
            found[_id(event)] = SUBSCRIPTION_REMOVED
    return found


async def replayable(
    store: wiring.Store, asked: Filter, counted: Callable[[int], None] = lambda number: None
) -> list[ToReplay]:
    """The matching callbacks that were not replayed under a new eventId, latest end first. Raises NotFound, InvalidInput.

    counted: is told how many there are so far
    """
    once: dict[tuple[str, str], ToReplay] = {}
    async for event in chosen(store, asked):
        if not event.replayed_as:
            one = ToReplay.of(event)
            once[_id(one)] = one
            counted(len(once))
    return list(once.values())


async def replay_one(store: wiring.Store, workspace: str, event_id: str, how: How) -> tuple[str, str]:
    """Replays one callback; returns the ledger's word for the result, and the eventId it is sent with.

    Raises NotFound for an unknown workspace.
    """
    event = await store.history.get(workspace, event_id)
    refused = await refusals(store, [ToReplay.of(event)] if event else [])
    if refused:
        return refused[workspace, event_id], event_id
    word, id_ = await _replay(store, workspace, event_id, how, in_ms=0, ended_ms=0)
    if word == UNKNOWN:
        await store.workspaces.require(workspace)
    if word == REPLAYED:
        about = {"eventId": event_id} | ({"as": id_} if how.as_new else {})
        await store.audit.add("event.replay", workspace, after=about)
    return word, id_


def is_of_removed(event: StoredCallback | ToReplay, workspace: Workspace | None) -> bool:
    """Whether a callback's subscription was removed since it was accepted; one of the same name is another."""
    if not event.subscription or workspace is None or workspace.is_damaged:
        return False
    now = workspace.subscriptions.get(event.subscription)
    return now is None or event.accepted_ms < now.created_ms


async def held(store: wiring.Store, names: Iterable[EndpointName]) -> list[Endpoint]:
    """Those of the endpoints that are stopped or paused, or whose subscription is no more active.

    What is replayed waits until that ends, or ends failed.
    """
    found = [await store.endpoints.get(name) for name in names]
    return [
        one
        for one in found
        if one and (one.state in ("stopped", "paused") or one.subscription_state != ACTIVE)
    ]


async def replay_all(
    store: wiring.Store,
    asked: Filter,
    events: Sequence[ToReplay],
    how: How,
    progress: Callable[[Sequence[ToReplay]], Iterable[ToReplay]],
) -> Replayed:
    """Replays callbacks, each due 1/rate seconds after the one before, so that live traffic does not wait behind them.

    What was replayed by others since it was selected is left out. Stops when an endpoint is full. `asked` goes into the audit entry; `progress` wraps the loop.
    """
    words: Counter[str] = Counter()
    asked_for = 0
    refused = await refusals(store, events)
    about = {
        "state": asked.state,
        "subscription": asked.subscription,
        "endpoint": asked.origin,
        "error": asked.error,
        "since": asked.since,
        "until": asked.until,
    }
    async with store.audit.steps("event.replay", asked.workspace or "", **about) as done:
        for event in progress(events):
            if why := refused.get(_id(event)):
                words[why] += 1
                continue
            in_ms = round(asked_for * 1000 / how.rate)
            asked_for += 1
            word, _ = await _replay(store, event.workspace, event.event_id, how, in_ms, event.ended_ms or 0)
            words[word] += 1
            done["replayed"] = words[REPLAYED]
            if word == "full":
                break
    return replace(await counted(store, events), words=words)


def failed_since(workspace: str, subscription: str, since: str) -> Filter:
    """Selects a subscription's callbacks that ended failed since then. Raises InvalidInput."""
    return Filter(State.FAILED.value, workspace, since=since, subscription=subscription)


async def replay_failed(store: wiring.Store, asked: Filter, how: How) -> Replayed:
    """Replays what `failed_since` selects and went to the server of the subscription's URL: each keeps its own URL."""
    if asked.subscription and asked.workspace:
        known = await store.workspaces.require(asked.workspace)
        asked = replace(asked, endpoint=found(known, asked.subscription).callback_url or None)
    try:
        events = await replayable(store, asked)
    except NotFound:  # nothing was ever accepted for that URL
        events = []
    return await replay_all(store, asked, events, how, lambda found: found)


async def _replay(
    store: wiring.Store, workspace: str, event_id: str, how: How, in_ms: int, ended_ms: int
) -> tuple[str, str]:
    copy = callback_id(f"replay_{secrets.token_hex(12)}", subscription_of(event_id)) if how.as_new else ""
    ttl_ms = how.expiry_seconds * 1000
    tries = 3 if store.archive else 1  # what was put back may just have gone to the archive again
    for left in reversed(range(tries)):
        word = await store.ledger.replay(
            workspace, event_id, copy=copy, in_ms=in_ms, ttl_ms=ttl_ms, ended_ms=ended_ms
        )
        if word != UNKNOWN or not left or not await _restored(store, workspace, event_id):
            break
    return word, copy or event_id


async def _restored(store: wiring.Store, workspace: str, event_id: str) -> bool:
    """Puts a callback back into Redis that only the archive has; returns whether it has it."""
    found = await store.archive.get([(workspace, event_id)]) if store.archive else []
    for one in found[-1:]:  # its last end
        await store.ledger.restore(one)
    return bool(found)
