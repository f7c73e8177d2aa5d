"""`python -m bench.capacity`: what numbers of callbacks a day need, by arithmetic from measured costs. `make docs` runs it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.report import put_between_marks, table

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "capacity.md"
MILLIONS = (10, 100, 1_000, 10_000)
PEAK = 5
"""The peak's rate ÷ the average."""
RETENTION_DAYS = 7

# Measured; docs/capacity.md and docs/performance.md name the commands.
WORKER_RATE = 2_000
"""Callbacks a second: 80 % of a worker on the slow machine."""
REDIS_MS = 0.3
"""CPU of Redis for a callback, on the slow machine."""
DELIVERED_BYTES, BODY_BYTES, WAITING_BYTES = 500, 450, 1_200
BODY_DAYS = 1 / 24
FILE_BYTES = 2_500
"""What a callback appends to the file, and sends to each replica."""
API_RATE = 2_400
"""Status changes a second, one a request: 80 % of a process on a core three times as slow as the one measured."""
PRODUCER_RATE = 38_000
"""Of `enqueue_many`, on the slow machine."""
REGISTRIES = 3
"""Each worker writes its heartbeat to all, and reads one, once a second."""
BEAT_BYTES = 435
STORE_MS = 0.15
"""CPU of Redis to store a heartbeat."""
BEAT_MS_EACH = 0.006
"""CPU of Redis for one heartbeat in one reading of a registry."""
SEND_MS = 0.2
"""CPU of a worker to have a registry store its heartbeat."""
READ_MS_EACH = 0.013
"""CPU of a worker for one heartbeat in one reading of a registry."""
DECIDE_MS_EACH = 0.01
"""CPU of a worker, once a second, to take one heartbeat into account, where it says the same as before."""

# Chosen.
NODE_BYTES = 64e9
"""Data of a node: as much again is free, for rewriting the file and for what waits in an outage."""
FULL = 0.8
"""The share of a core that a node uses at the peak."""
CLUSTER_NODES = 1_000
"""Most nodes of a cluster: what its specification is made for."""
MOST_PARTITIONS = 1_024


@dataclass(frozen=True)
class Plan:
    """What an installation needs."""

    a_day: float

    @property
    def average(self) -> float:
        """Callbacks a second."""
        return self.a_day / 86_400

    @property
    def peak(self) -> float:
        """Callbacks a second at the peak."""
        return self.average * PEAK

    @property
    def workers(self) -> int:
        """One more than are needed, so that one can be replaced."""
        return math.ceil(self.peak / WORKER_RATE) + 1

    @property
    def memory(self) -> float:
        """Bytes of data, without what waits."""
        return self.a_day * (RETENTION_DAYS * DELIVERED_BYTES + BODY_DAYS * BODY_BYTES)

    @property
    def waiting(self) -> float:
        """Bytes of what waits after an hour in which no endpoint answers."""
        return self.a_day / 24 * WAITING_BYTES

    @property
    def cores(self) -> float:
        """Cores of Redis at the peak."""
        return self.peak * REDIS_MS / 1000

    @property
    def primaries(self) -> int:
        """As many as memory or speed needs; one Redis, or three of a cluster, which needs three to elect a replica."""
        needed = math.ceil(max(self.memory / NODE_BYTES, self.cores / FULL))
        return 1 if needed == 1 else max(3, needed)

    @property
    def partitions(self) -> int:
        """256 for a cluster, and four for each node at least, as far as they go."""
        wanted = next((one for one in (256, 512) if one >= 4 * self.primaries), MOST_PARTITIONS)
        return 1 if self.primaries == 1 else wanted

    @property
    def api_processes(self) -> int:
        """If backends enqueue over HTTP."""
        return math.ceil(self.peak / API_RATE)

    @property
    def producers(self) -> int:
        """Cores of backends that enqueue by `enqueue_many`."""
        return math.ceil(self.peak / PRODUCER_RATE)

    @property
    def file_mb(self) -> float:
        """MB that each primary writes a second at the peak, and sends to its replica."""
        return self.peak * FILE_BYTES / self.primaries / 1e6

    @property
    def registry_core(self) -> float:
        """Share of a core that heartbeats take of each registry's node."""
        return self.workers * (STORE_MS + self.workers / REGISTRIES * BEAT_MS_EACH) / 1000

    @property
    def registry_mb(self) -> float:
        """MB of heartbeats that each registry's node sends a second."""
        return self.workers**2 / REGISTRIES * BEAT_BYTES / 1e6

    @property
    def reading_core(self) -> float:
        """Share of a core that each worker needs to send its heartbeat, to read those of all, and to decide."""
        return (REGISTRIES * SEND_MS + self.workers * (READ_MS_EACH + DECIDE_MS_EACH)) / 1000


def written() -> str:
    """The tables of the document."""
    plans = [Plan(millions * 1e6) for millions in MILLIONS]
    columns = [(f"{millions:,} million", plan) for millions, plan in zip(MILLIONS, plans, strict=True)]
    rows: dict[str, Callable[[Plan], str]] = {
        "average, peak /s": lambda p: f"{_short(p.average)}, {_short(p.peak)}",
        "workers": lambda p: f"{p.workers:,}",
        "data in Redis": lambda p: _size(p.memory),
        "waits after an hour without any endpoint": lambda p: _size(p.waiting),
        "cores of Redis at the peak": lambda p: f"{p.cores:,.1f}",
        "primaries, and as many replicas": lambda p: f"{p.primaries:,}",
        "partitions": lambda p: f"{p.partitions:,}",
        "data of a partition": lambda p: _size(p.memory / p.partitions),
        "peak of a partition /s": lambda p: _short(p.peak / p.partitions),
        "file, and to the replica, of a primary, MB/s": lambda p: f"{p.file_mb:.1f}",
        "API processes, if backends use HTTP": lambda p: f"{p.api_processes:,}",
        "or cores of producers, `enqueue_many`": lambda p: f"{p.producers:,}",
        "heartbeats: core of each registry's node": lambda p: _of_cluster(p, f"{p.registry_core:.1%}"),
        "heartbeats: MB/s of each registry's node": lambda p: _of_cluster(p, f"{p.registry_mb:,.1f}"),
        "heartbeats: core of each worker": lambda p: _of_cluster(p, f"{p.reading_core:.1%}"),
    }
    head = ["callbacks a day", *(name for name, _ in columns)]
    return table(head, [[name, *(show(plan) for _, plan in columns)] for name, show in rows.items()])


def _of_cluster(plan: Plan, text: str) -> str:
    """Heartbeats are read by each worker only where there are several partitions."""
    return text if plan.partitions > 1 else "-"


def _short(value: float) -> str:
    """A number with two or three digits that count."""
    step = 10 ** max(0, math.floor(math.log10(value)) - 1) if value >= 1 else 1
    return f"{round(value / step) * step:,.0f}"


def _size(value: float) -> str:
    return f"{value / 1e12:,.1f} TB" if value >= 1e12 else f"{value / 1e9:,.1f} GB"


if __name__ == "__main__":
    put_between_marks(DOCUMENT, "capacity", written())
