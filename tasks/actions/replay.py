"""Replays ended callbacks."""

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from dispatcher.store.stored_callback import StoredCallback
from tasks import wiring
from tasks.actions.events import Filter

REPLAYED = "replayed"
"""The ledger's word for a callback that was replayed."""


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

    @property
    def count(self) -> int:
        """How many were selected."""
        return self.by_endpoint.total()


def counted(events: Sequence[StoredCallback]) -> Replayed:
    """How many would be replayed, by endpoint."""
    return Replayed(Counter(f"{event.workspace} {event.endpoint}" for event in events))


async def replay_one(store: wiring.Store, workspace: str, event_id: str, how: How) -> tuple[str, str]:
    """Replays one callback; returns the ledger's word for the result, and the eventId it is sent with."""
    word, id_ = await _replay(store, workspace, event_id, how, in_ms=0)
    if word == REPLAYED:
        about = {"eventId": event_id} | ({"as": id_} if how.as_new else {})
        await store.audit.add("event.replay", workspace, after=about)
    return word, id_


async def replay_all(
    store: wiring.Store,
    asked: Filter,
    events: Sequence[StoredCallback],
    how: How,
    progress: Callable[[Sequence[StoredCallback]], Iterable[StoredCallback]],
) -> Replayed:
    """Replays callbacks, each due 1/rate seconds after the one before, so that live traffic does not wait behind them.

    Stops when an endpoint is full. `asked` goes into the audit entry; `progress` wraps the loop.
    """
    words: Counter[str] = Counter()
    about = {
        "state": asked.state,
        "endpoint": asked.origin,
        "error": asked.error,
        "since": asked.since,
        "until": asked.until,
    }
    async with store.audit.steps("event.replay", asked.workspace or "", **about) as done:
        for number, event in enumerate(progress(events)):
            in_ms = round(number * 1000 / how.rate)
            word, _ = await _replay(store, event.workspace, event.event_id, how, in_ms)
            words[word] += 1
            done["replayed"] = words[REPLAYED]
            if word == "full":
                break
    return Replayed(counted(events).by_endpoint, words)


async def _replay(
    store: wiring.Store, workspace: str, event_id: str, how: How, in_ms: int
) -> tuple[str, str]:
    copy = f"replay_{secrets.token_hex(12)}" if how.as_new else ""
    ttl_ms = how.expiry_seconds * 1000
    word = await store.ledger.replay(workspace, event_id, copy=copy, in_ms=in_ms, ttl_ms=ttl_ms)
    return word, copy or event_id
