"""Accounts for each line of the demo from three sources: queue and counters, ledger, receivers."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dispatcher.errors import InvalidInput
from dispatcher.model import StatusChange
from dispatcher.store.rejected import RejectedEntry
from dispatcher.store.stored_callback import StoredCallback
from tasks import wiring
from tasks.receiver import Received

Queued = list[tuple[str, bytes]]
"""The queue entry's id and the line, for each line."""


@dataclass
class Account:
    """The three sources at the end of the demo, and whether they agree."""

    lines: int
    events: list[StoredCallback]
    counters: Mapping[str, int]
    rejected: list[RejectedEntry]
    received: list[Received] = field(default_factory=list)

    @property
    def parts(self) -> dict[str, int]:
        """How many lines ended in which way."""
        states = Counter(event.state.value for event in self.events)
        ends = {state: states[state] for state in ("delivered", "failed", "expired")}
        return ends | {
            "duplicate": self.counters["duplicate"],
            "no callback": self.counters["noCallback"],
            "rejected": len(self.rejected),
        }

    def problems(self) -> Iterator[str]:
        """Everything that does not add up; empty if all does."""
        total = sum(self.parts.values())
        if total != self.lines:
            yield f"{self.lines} lines went in, {total} are accounted for"
        open_ = [event.event_id for event in self.events if not event.ended]
        if open_:
            yield f"{len(open_)} callbacks have not ended: {', '.join(open_)}"
        yield from self._problems_of_receivers()

    def _problems_of_receivers(self) -> Iterator[str]:
        taken = Counter(r.event_id for r in self.received if r.problem is None and r.status < 300)
        delivered = {event.event_id for event in self.events if event.state == "delivered"}
        if set(taken) != delivered:
            yield f"the receivers took {len(taken)} callbacks, the ledger says {len(delivered)}"
        if any(count > 1 for count in taken.values()):
            yield "a receiver took a callback twice"
        unverified = sum(r.problem is not None for r in self.received)
        if unverified:
            yield f"{unverified} callbacks did not verify"


async def account_of(store: wiring.Store, queued: Queued, received: list[Received]) -> Account:
    """Looks up every line: in the ledger by eventId, among the rejected entries by entry id."""
    entries = dict(queued)
    rejected = [entry for entry in await store.rejected.newest(10_000) if entry.entry in entries]
    refused = {entry.entry for entry in rejected}
    ids: dict[tuple[str, str], None] = {}
    for entry, line in queued:
        if entry not in refused:
            try:
                change = StatusChange.from_json(line)
            except InvalidInput:
                continue  # shows up as a line that is not accounted for
            ids[change.workspace, change.event_id] = None
    events = [await store.callbacks.get(*key) for key in ids]
    counters = await store.stats.day(await store.installation.now_ms())
    return Account(len(queued), [event for event in events if event], counters, rejected, received)
