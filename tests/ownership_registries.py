"""The registries of a simulated installation: what each knows, and which of them a worker reads, as in store/members.py."""

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from dispatcher.rules.ownership import Member, alive, suffices

REGISTRIES = 3
KNOWN_MS = 15_000
"""For how long a registry knows a heartbeat."""
NEVER = -1_000_000_000

Found = Mapping[str, tuple[int, Member]]
"""When the heartbeat of each worker was written, and what it says."""


class Registry:
    """The heartbeats that one registry knows."""

    def __init__(self) -> None:
        self._written: dict[str, list[tuple[int, Member | None]]] = {}

    def write(self, worker: str, now: int, heartbeat: Member | None) -> int:
        """Stores a worker's heartbeat; None: it leaves. Returns how many workers are known."""
        self._written.setdefault(worker, []).append((now, heartbeat))
        del self._written[worker][:-20]
        return sum(self.read(name, now) is not None for name in self._written)

    def read(self, worker: str, as_of: int) -> tuple[int, Member] | None:
        """A worker's heartbeat as it was then, and when it was written; None: it was not known."""
        at, heartbeat = next(
            ((at, one) for at, one in reversed(self._written[worker]) if at <= as_of), (NEVER, None)
        )
        return (at, heartbeat) if heartbeat and as_of - at < KNOWN_MS else None

    def workers(self) -> list[str]:
        """All that ever wrote."""
        return list(self._written)


@dataclass
class Reader:
    """A worker's way to the registries."""

    worker: str
    order: tuple[int, ...]
    """Of the registries, as it reads them."""
    answered: tuple[int, ...] = ()
    """Those that stored its last heartbeat."""
    most: int = 0
    """How many workers one of these knew then, at most."""
    alive: set[str] = field(default_factory=set)
    """The workers that it found alive last."""


class Registries:
    """All registries. `stalest_ms` is how old what is read of a heartbeat may be."""

    def __init__(self, chance: random.Random, stalest_ms: int, step_ms: int) -> None:
        self._all = [Registry() for _ in range(REGISTRIES)]
        self._chance = chance
        self._ages_ms = range(0, stalest_ms + 1, step_ms)

    def reader(self, worker: str, number: int) -> Reader:
        """A new worker's."""
        order = tuple((number + one) % REGISTRIES for one in range(REGISTRIES))
        return Reader(worker, order, alive={worker})

    def forget(self, registry: int) -> None:
        """A registry comes back empty."""
        self._all[registry % REGISTRIES] = Registry()

    def read(self, reader: Reader, now: int, reaches: Callable[[int], bool]) -> list[Member] | None:
        """The heartbeats of the other workers that are alive; None if no registry is reached."""
        reached = [one for one in reader.order if reaches(one)]
        answer = [one for one in reader.answered if one in reached]
        found = self._newest(reader.worker, now, [one for one in reader.answered[:1] if one in reached])
        if not suffices({name: now - at for name, (at, _) in found.items()}, reader.alive, reader.most):
            found = self._newest(reader.worker, now, answer or reached)
        if not reached:
            reader.answered = ()
            return None
        reader.alive = {reader.worker} | alive({name: at for name, (at, _) in found.items()}, now)
        return [found[name][1] for name in reader.alive - {reader.worker}]

    def write(
        self, reader: Reader, now: int, reaches: Callable[[int], bool], heartbeat: Member | None
    ) -> None:
        """Stores a worker's heartbeat in all that it reaches; None: it leaves."""
        reader.answered = tuple(one for one in reader.order if reaches(one))
        known = [self._all[one].write(reader.worker, now, heartbeat) for one in reader.answered]
        reader.most = max(known, default=0)

    def _newest(self, reader: str, now: int, registries: Collection[int]) -> Found:
        """The newest heartbeat of each worker, each read as it was a while ago, but the reader's own."""
        newest: dict[str, tuple[int, Member]] = {}
        for registry in (self._all[one] for one in registries):
            for name in registry.workers():
                age = 0 if name == reader else self._chance.choice(self._ages_ms)
                one = registry.read(name, now - age)
                if one and (name not in newest or one[0] > newest[name][0]):
                    newest[name] = one
        return newest
