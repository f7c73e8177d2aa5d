"""Workers that share partitions, simulated in steps of 100 ms: leases, registries, what goes wrong, and what must hold."""

import math
import random
from dataclasses import dataclass, field
from functools import partial

from dispatcher.rules.ownership import Candidate, Member
from tests.ownership_registries import NEVER, REGISTRIES, Reader, Registries

STEP_MS = 100
SECOND_MS = 1000
AGAIN_MS = 500
"""How long after its decision a worker tries once more to take what it did not get."""
LEASE_MS = 5000
STALEST_MS = 1000
"""How old what is read of a heartbeat may be."""
QUIET_MS = 10_000


class Leases:
    """The lease of each partition, by the rules of lead.lua and accept.lua."""

    def __init__(self, partitions: int) -> None:
        self._leases: list[tuple[str | None, int]] = [(None, NEVER)] * partitions

    def holder(self, partition: int, now: int) -> str | None:
        holder, until = self._leases[partition]
        return holder if now < until else None

    def lead(
        self, partition: int, worker: str, now: int, *, lease_ms: int = LEASE_MS, renews: bool = False
    ) -> bool:
        """Takes or renews a lease; 0 ms give it up."""
        holder = self.holder(partition, now)
        if holder not in (None, worker) or (holder is None and renews):
            return False
        self._leases[partition] = (worker, now + lease_ms)
        return lease_ms > 0

    def accept(self, partition: int, worker: str, now: int) -> bool:
        return self.holder(partition, now) == worker


@dataclass
class Worker:
    name: str
    acts_at: int
    """At which ms of a second it acts."""
    candidate: Candidate
    reader: Reader
    """Registry n is on the server of partition n."""
    leads: dict[int, int] = field(default_factory=dict)
    """The partitions that it thinks it leads, and until when at most."""
    take: frozenset[int] = frozenset()
    ends_at: float = math.inf
    """After TERM: when what it has in hand is accepted."""
    stalled_until: int = NEVER
    fit_since: dict[int, float] = field(default_factory=dict)
    """For each server that it reaches: since when it could have led its partitions all the time."""


class World:
    """All workers of an installation. Partition p lies on server p mod `servers`."""

    def __init__(
        self, partitions: int, *, seed: int = 0, servers: int = 1, stalest_ms: int = STALEST_MS
    ) -> None:
        self.now = 0
        self.partitions = range(partitions)
        self.leases = Leases(partitions)
        self.workers: dict[str, Worker] = {}
        self.refused = 0
        """How often a worker tried to accept what it led no longer."""
        self.moved = 0
        """How often a partition's lease went from one worker to another."""
        self.longest_gap_ms = 0
        """The longest time for which a partition had no lease."""
        self._servers = servers
        self._cuts: dict[tuple[str, int], int] = {}
        self._random = random.Random(seed)
        self._registries = Registries(self._random, stalest_ms, STEP_MS)
        self._last_holder: list[str | None] = [None] * partitions
        self._last_held = [0] * partitions
        self._names = 0

    # What happens.

    def join(self) -> Worker:
        self._names += 1
        name = f"w{self._names}"
        acts_at = self._random.randrange(0, SECOND_MS, STEP_MS)
        reader = self._registries.reader(name, self._names)
        self.workers[name] = Worker(name, acts_at, Candidate(self.partitions, name), reader)
        return self.workers[name]

    def kill(self, worker: Worker) -> None:
        del self.workers[worker.name]

    def term(self, worker: Worker, drain_ms: int = 0) -> None:
        """It takes this long until what it has in hand is accepted."""
        if math.isinf(worker.ends_at):
            worker.ends_at = self.now + drain_ms
            self._write(worker, None)

    def stall(self, worker: Worker, for_ms: int) -> None:
        worker.stalled_until = max(worker.stalled_until, self.now + for_ms)

    def cut(self, worker: Worker, server: int, for_ms: int) -> None:
        self._cuts[worker.name, server % self._servers] = self.now + for_ms

    def forget(self, registry: int) -> None:
        """A registry comes back empty."""
        self._registries.forget(registry)

    def run(self, ms: int) -> None:
        for _ in range(0, ms, STEP_MS):
            self.now += STEP_MS
            workers = [worker for worker in self.workers.values() if worker.stalled_until <= self.now]
            self._random.shuffle(workers)
            for worker in workers:
                self._accept(worker)
                since = (self.now - worker.acts_at) % SECOND_MS
                if not math.isinf(worker.ends_at):
                    self._end(worker)
                elif since == 0:
                    self._act(worker)
                elif since == AGAIN_MS:
                    self._take(worker)
            self._check()

    # What a worker does.

    def reaches(self, worker: Worker, partition: int) -> bool:
        return self._cuts.get((worker.name, partition % self._servers), NEVER) <= self.now

    def _act(self, worker: Worker) -> None:
        self._renew(worker)
        others = self._registries.read(worker.reader, self.now, partial(self.reaches, worker))
        if others is None:
            return
        decision = worker.candidate.decide([self._member(worker), *others])
        for partition in decision.give_up:
            self._give_up(worker, partition)
        worker.take = decision.take
        self._take(worker)
        self._write(worker, self._member(worker))

    def _member(self, worker: Worker) -> Member:
        cannot = frozenset(one for one in self.partitions if not self.reaches(worker, one))
        return Member(worker.name, frozenset(worker.leads), cannot)

    def _renew(self, worker: Worker) -> None:
        for partition, until in list(worker.leads.items()):
            if self.reaches(worker, partition):
                led = self.leases.lead(partition, worker.name, self.now, renews=True)
                until = self.now + LEASE_MS if led else NEVER
            if until <= self.now:
                del worker.leads[partition]
            else:
                worker.leads[partition] = until

    def _write(self, worker: Worker, heartbeat: Member | None) -> None:
        self._registries.write(worker.reader, self.now, partial(self.reaches, worker), heartbeat)

    def _give_up(self, worker: Worker, partition: int) -> None:
        del worker.leads[partition]
        if self.reaches(worker, partition):
            self.leases.lead(partition, worker.name, self.now, lease_ms=0)

    def _take(self, worker: Worker) -> None:
        for partition in worker.take - worker.leads.keys():
            if self.reaches(worker, partition) and self.leases.lead(partition, worker.name, self.now):
                worker.leads[partition] = self.now + LEASE_MS

    def _accept(self, worker: Worker) -> None:
        """Accepts what is on the queues of the partitions that it thinks it leads."""
        for partition in list(worker.leads):
            if self.reaches(worker, partition) and not self.leases.accept(partition, worker.name, self.now):
                self.refused += 1
                del worker.leads[partition]

    def _end(self, worker: Worker) -> None:
        if self.now >= worker.ends_at:
            for partition in list(worker.leads):
                self._give_up(worker, partition)
            del self.workers[worker.name]

    # What must hold.

    def _check(self) -> None:
        """No partition is without a lease for longer than one lasts plus a second, while some worker could have led it."""
        fit_since = self._fit_since()
        for partition in self.partitions:
            holder = self.leases.holder(partition, self.now)
            if holder is not None:
                before, self._last_holder[partition] = self._last_holder[partition], holder
                self.moved += before not in (None, holder)
                self._last_held[partition] = self.now
            else:
                gap = self.now - max(self._last_held[partition], fit_since[partition % self._servers])
                self.longest_gap_ms = max(self.longest_gap_ms, int(max(gap, 0)))
                assert gap <= LEASE_MS + SECOND_MS, (partition, self.now)

    def _fit_since(self) -> list[float]:
        """For each server: since when the same worker has been alive and reached it and a registry."""
        for worker in self.workers.values():
            for server in range(self._servers):
                fit = (
                    worker.stalled_until <= self.now
                    and math.isinf(worker.ends_at)
                    and self.reaches(worker, server)
                )
                fit = fit and any(self.reaches(worker, registry) for registry in range(REGISTRIES))
                worker.fit_since[server] = worker.fit_since.get(server, self.now) if fit else math.inf
                if fit and math.isinf(worker.fit_since[server]):
                    worker.fit_since[server] = self.now
        return [
            min((worker.fit_since[server] for worker in self.workers.values()), default=math.inf)
            for server in range(self._servers)
        ]

    def holders(self) -> list[str | None]:
        return [self.leases.holder(partition, self.now) for partition in self.partitions]

    def is_led_by_the_living(self) -> bool:
        """Whether each partition's lease is held by a worker that lives."""
        return all(holder in self.workers for holder in self.holders())

    def settle(self) -> None:
        """Nothing happens for ten seconds. After that each worker leads its share, and nothing moves any more."""
        self.run(max(self._ends(), default=0) - self.now)
        self.run(QUIET_MS)
        if not self.workers:
            return
        holders = self.holders()
        assert {one: set(worker.leads) for one, worker in self.workers.items()} == {
            one: {partition for partition in self.partitions if holders[partition] == one}
            for one in self.workers
        }, "each partition is led by a worker that lives and knows"
        shares = [len(worker.leads) for worker in self.workers.values()]
        assert max(shares) - min(shares) <= 1, shares
        moved, gap_ms, self.longest_gap_ms = self.moved, self.longest_gap_ms, 0
        self.run(3 * SECOND_MS)
        assert (moved, 0) == (self.moved, self.longest_gap_ms)
        self.longest_gap_ms = gap_ms

    def _ends(self) -> list[int]:
        """When what goes wrong now is over."""
        stalls = [worker.stalled_until for worker in self.workers.values()]
        ends = [int(worker.ends_at) for worker in self.workers.values() if not math.isinf(worker.ends_at)]
        return [*stalls, *ends, *self._cuts.values()]
