"""Compares what was accepted, what the receiver got and what the ledger says."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from aiohttp import web

from dispatcher.rules.outcomes import ENDS
from dispatcher.store.entry import Entry
from tasks.receiver import Received
from tests.faults.ledgers import Ledgers


class Recorder:
    """The receiving end: answers as `status_of` says, and notes whether two POSTs of one callback are under way at once."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.times: list[float] = []
        self.at_once: list[str] = []
        self.most_at_once = 0
        self._under_way: defaultdict[str, list[web.Request]] = defaultdict(list)

    def begin(self, request: web.Request) -> None:
        """A POST came in."""
        event_id = request.headers["webhook-id"]
        alive = [r for r in self._under_way[event_id] if r.transport and not r.transport.is_closing()]
        if alive:
            self.at_once.append(event_id)
        self._under_way[event_id] = [*alive, request]
        self.most_at_once = max(self.most_at_once, len(self._under_way))

    def end(self, request: web.Request) -> None:
        """It is to be answered."""
        event_id = request.headers["webhook-id"]
        self._under_way[event_id].remove(request)
        if not self._under_way[event_id]:
            del self._under_way[event_id]

    def is_under_way(self, event_id: str) -> bool:
        """Whether a POST of this callback has come in and was not answered."""
        return event_id in self._under_way

    def note(self, received: Received) -> None:
        """It was answered."""
        self.received.append(received)
        self.times.append(time.monotonic())


@dataclass
class Counts:
    """What became of the status changes of one run."""

    accepted: int = 0
    forgotten: int = 0
    """Redis was told, and has lost it: it is neither on the queue nor in the ledger nor in `rejected`."""
    lost: int = 0
    """Redis has it, and it has not come to an end."""
    posts: int = 0
    duplicates: int = 0
    """POSTs of a callback after one that was answered with a 2xx."""
    ends: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    """Other promises that were broken."""
    seconds: float = 0.0
    """From the fault's end until everything had come to its end."""


def pending(ledgers: Ledgers, event_ids: Iterable[tuple[str, str]]) -> int:
    """How many of (workspace, eventId) have not come to an end; those that the ledger does not know are none."""
    return sum(entry is not None and entry.state not in ENDS for entry in ledgers.entries(event_ids))


def check(ledgers: Ledgers, event_ids: list[tuple[str, str]], recorder: Recorder) -> Counts:
    """Counts, and looks for whatever breaks a promise (FAULTS: P1 to P5)."""
    counts = Counts(accepted=len(event_ids), posts=len(recorder.received))
    by_id: defaultdict[str, list[Received]] = defaultdict(list)
    for received in recorder.received:
        by_id[received.event_id].append(received)
    queued, rejected = ledgers.queued(), ledgers.rejected()
    for (_, event_id), entry in zip(event_ids, ledgers.entries(event_ids), strict=True):
        got = by_id[event_id]
        good = sum(200 <= one.status < 300 for one in got)
        if entry is None:
            if event_id in rejected:
                counts.ends["rejected"] += 1
            elif any(event_id.encode() in raw for raw in queued):
                counts.lost += 1
            else:
                counts.forgotten += 1
        elif entry.state not in ENDS:
            counts.lost += 1
        else:
            counts.ends[entry.state.value] += 1
        if entry and entry.state == "delivered" and not good:
            counts.problems.append(f"{event_id} is delivered, but no 2xx was given")
        first = next((n for n, one in enumerate(got) if 200 <= one.status < 300), len(got))
        counts.duplicates += len(got[first + 1 :])
        if len({one.body for one in got}) > 1:
            counts.problems.append(f"{event_id} had several bodies")
        counts.problems += [f"{event_id}: {one.problem}" for one in got if one.problem]
        counts.problems += [f"{event_id} was attempted after its expiry"] * _late_attempts(entry)
    known = {event_id for _, event_id in event_ids}
    counts.problems += [f"{one} was never accepted" for one in by_id if one not in known]
    counts.problems += [f"{one} was under way twice at once" for one in recorder.at_once]
    if not counts.lost:
        counts.problems += [f"left over: {one}" for one in ledgers.leftovers()]
    return counts


def out_of_order(
    ledgers: Ledgers, messages: Iterable[list[tuple[str, str]]], recorder: Recorder
) -> list[str]:
    """Messages whose callbacks were not first attempted in the order in which they were enqueued.

    An attempt that was lost with its worker counts as one and may never have come in: such messages are left out.
    """
    first: dict[str, int] = {}
    for place, one in enumerate(recorder.received):
        first.setdefault(one.event_id, place)
    problems = []
    for message in messages:
        came = [first[event_id] for _, event_id in message if event_id in first]
        if came != sorted(came) and not any(map(_has_lost_attempts, ledgers.entries(message))):
            problems.append(f"first attempts out of order: {[event_id for _, event_id in message]}")
    return problems


def _has_lost_attempts(entry: Entry | None) -> bool:
    return entry is not None and any(one.error == "worker_lost" for one in entry.attempts)


def _late_attempts(entry: Entry | None) -> int:
    if entry is None:
        return 0
    return sum(one.error != "worker_lost" and one.started_at_ms >= entry.expires_ms for one in entry.attempts)
