"""The runs of `make bench-tls`: what is measured of a sender, over http and https in turn."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from bench.receiver import Group
from bench.report import Progress, percentile
from bench.senders import GROUP, Place, Sender, bare, bare_burst, worker, worker_burst

Figures = dict[str, float]
"""Of one run, by name."""
Found = dict[str, dict[str, list[float]]]
"""Of one row, by contender and name: the figures of all rounds."""


@dataclass(frozen=True)
class Size:
    """How long a run is."""

    rounds: int
    waiting: int
    seconds: float
    before_seconds: float
    """How long endpoints are posted to at the row's rate, unmeasured, before the last part."""


@dataclass(frozen=True)
class Row:
    """Callbacks at a steady rate to so many endpoints."""

    endpoints: int
    per_second: int
    cold: bool = False
    """Whether the warm-up, one POST to each endpoint, is measured too."""
    first_per_second: int = 0
    """The rate of that, and of learning how long connections last: twice more (0: the row's)."""
    bare: bool = False
    """Whether the bare loop is measured too."""


def title(row: Row, phase: str = "") -> str:
    """What a row is, and a phase of it."""
    if not row.per_second:
        return f"{row.endpoints:,} endpoints, all callbacks waiting"
    if phase == "cold":
        rate = row.first_per_second or row.per_second
        return f"{row.endpoints:,} endpoints, the first POST to each, at {rate:,}/s"
    return f"{row.endpoints:,} endpoints at {row.per_second:,}/s{', later' if phase == 'warm' else ''}"


class Bench:
    """Runs rows over http and https."""

    def __init__(self, places: dict[str, Place], size: Size, progress: Progress) -> None:
        self._places = places
        self._size = size
        self._progress = progress

    def run(self, row: Row) -> dict[str, Found]:
        """All rounds of a row: what was found, by phase (waiting, cold, warm)."""
        found: dict[str, Found] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        for _ in range(self._size.rounds):
            for contender in ("worker", "bare") if row.bare else ("worker",):
                for scheme, place in self._places.items():
                    self._progress.start(f"{title(row)}: {contender}, {scheme}")
                    for phase, figures in self._once(row, contender, place):
                        for name, value in figures.items():
                            found[phase][f"{contender} {scheme}"][name].append(value)
        return found

    def _once(self, row: Row, contender: str, place: Place) -> Iterator[tuple[str, Figures]]:
        if not row.per_second:
            burst = worker_burst if contender == "worker" else bare_burst
            yield "waiting", self._waiting(burst, row, place)
            return
        with (worker if contender == "worker" else bare)(place, row.endpoints) as sender:
            if row.cold:
                first = replace(row, per_second=row.first_per_second or row.per_second)
                seconds = row.endpoints / first.per_second
                yield "cold", self._steady(sender, first, place, seconds, in_turn=True)
                if row.first_per_second:
                    self._steady(sender, first, place, 2 * seconds, in_turn=True)
                self._steady(sender, row, place, self._size.before_seconds)
            else:
                count = 2 * row.endpoints
                sender.load.burst(GROUP, sender.customers, count)
                sender.finish(count)
                place.receivers.take(GROUP)
            yield "warm", self._steady(sender, row, place, self._size.seconds)

    def _waiting(self, burst: Callable[[Place, int, int], float], row: Row, place: Place) -> Figures:
        """Callbacks that all wait when the sender starts."""
        before = Counters.of(place)
        cpu = burst(place, row.endpoints, self._size.waiting)
        after, arrived = Counters.of(place), place.receivers.take(GROUP)
        seconds = arrived.last_at - arrived.first_at
        rate = {"rate": (arrived.distinct - 1) / seconds}
        return rate | _costs(arrived, cpu, before, after, seconds)

    def _steady(
        self, sender: Sender, row: Row, place: Place, seconds: float, *, in_turn: bool = False
    ) -> Figures:
        """Callbacks at the row's rate."""
        before, retries = Counters.of(place), sender.retries()
        cpu, began = sender.cpu(), time.monotonic()
        groups = {GROUP: sender.customers}
        sent = sender.load.steady(row.per_second, seconds, groups, in_turn=in_turn, tell=self._progress.part)
        sender.finish(sent[GROUP])
        cpu, seconds = sender.cpu() - cpu, time.monotonic() - began
        after, arrived = Counters.of(place), place.receivers.take(GROUP)
        more = {"retries": sender.retries() - retries}
        return _latencies(arrived) | _costs(arrived, cpu, before, after, seconds) | more


@dataclass(frozen=True)
class Counters:
    """What the receivers have counted so far."""

    opened: int
    resumed: int
    cpu: float

    @classmethod
    def of(cls, place: Place) -> "Counters":
        """The counters now."""
        receivers = place.receivers
        return cls(receivers.opened(), receivers.resumed(), receivers.cpu_seconds())


def _costs(arrived: Group, cpu: float, before: Counters, after: Counters, seconds: float) -> Figures:
    """Figures of each POST, and the receiver's share of a core over `seconds`."""
    opened = after.opened - before.opened
    return {
        "cpu": cpu / arrived.posts * 1000,
        "connections": opened / arrived.posts,
        "resumed": (after.resumed - before.resumed) / opened if opened else 0.0,
        "posts": arrived.posts / arrived.distinct,
        "receiver": (after.cpu - before.cpu) / seconds * 100,
    }


def _latencies(arrived: Group) -> Figures:
    shares = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    return {name: percentile(arrived.latencies_us, share) / 1000 for name, share in shares}
