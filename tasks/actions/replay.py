"""Sending once more what has ended."""

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from dispatcher.store.stored_callback import StoredCallback
from tasks import wiring
from tasks.actions.events import Filter

REPLAYED = "replayed"
"""The ledger's word for what was done."""


@dataclass(frozen=True)
class How:
    """How callbacks are replayed."""

    expiry_seconds: int
    as_new: bool = False
    """With a fresh eventId."""
    rate: float = 50
    """Of many: how many a second."""


@dataclass(frozen=True)
class Replayed:
    """What became of many."""

    by_endpoint: Counter[str]
    """How many were chosen, by `workspace origin`."""
    words: Counter[str] = field(default_factory=Counter)
    """How many of them have which word of the ledger's; none where they were only counted."""

    @property
    def count(self) -> int:
        """How many were chosen."""
        return self.by_endpoint.total()


def counted(events: Sequence[StoredCallback]) -> Replayed:
    """How many would be replayed, and to where."""
    return Replayed(Counter(f"{event.workspace} {event.endpoint}" for event in events))


async def replay_one(store: wiring.Store, workspace: str, event_id: str, how: How) -> tuple[str, str]:
    """The ledger's word, and the eventId that it is sent as."""
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
    """Each is due a little later than the one before it: what is due now goes first, so live traffic does not wait.

    Stops where an endpoint is full. `asked` is what the audit says of them; they pass through `progress` as they are replayed.
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
