"""Logs of several partitions which are refused or not answered: one line for a server when that begins, one when it is over.

What one partition meets says nothing of another: a server may be well and refuse one (a slot on the move). And a partition may
go to another server meanwhile (a fail-over). So it is noted by partition what was met, and logged by server.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from dispatcher.errors import RedisUnavailable
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.redis_watch import ACTION, RedisWatch

GATHER_SECONDS = 0.5
"""How long the first line waits, to name all partitions that meet the same."""
STEADY_SECONDS = 5.0
"""A partition is back when it has not failed for this long."""
RECENT_SECONDS, FLAPPING_STEADY_SECONDS = 600.0, 120.0
"""A server that was away this recently has to be well for longer: so what flaps has two lines in two minutes."""
MAX_REASONS = 5
"""Most reasons that are logged of one outage."""
UNKNOWN = "unknown"
"""The name of the server of a partition of which none is known."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Outage:
    """What partitions of one server meet, from the first failure until all are back."""

    began: float
    steady_seconds: float
    failed_at: dict[int, float] = field(default_factory=dict)
    """When each partition that is not back failed last, in monotonic seconds."""
    partitions: set[int] = field(default_factory=set)
    """All that failed."""
    reasons: dict[str, str] = field(default_factory=dict)
    """The reasons that were met, and the first error of each."""
    logged: int = 0
    """How many reasons were logged."""


class Outages:
    """What the calls for all partitions of a worker met; `server_of` names a partition's server, without a password."""

    def __init__(
        self,
        server_of: Callable[[int], str],
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        begins: str = "redis.away",
        ends: str = "redis.back",
        action: str = ACTION,
        level: int = logging.WARNING,
    ) -> None:
        """`begins`, logged with `action` at `level`, and `ends` are the events of the log."""
        self._server_of = server_of
        self._metrics = metrics or Metrics()
        self._clock = clock
        self._begins, self._ends, self._action, self._level = begins, ends, action, level
        self._outages: dict[str, _Outage] = {}
        self._worked_at: dict[int, float] = {}
        self._ended_at: dict[str, float] = {}
        self._known: dict[int, str] = {}

    def watch(self, partition: int) -> "PartitionWatch":
        """A watch of one partition."""
        return PartitionWatch(self, partition)

    def away(self) -> frozenset[int]:
        """The partitions that are not back."""
        return frozenset[int]().union(*(outage.failed_at for outage in self._outages.values()))

    def failed(self, partition: int, error: RedisUnavailable) -> None:
        """A call for a partition failed."""
        self._metrics.redis_errors += 1
        now = self._clock()
        outage = self._of(partition, now)
        outage.failed_at[partition] = now
        outage.partitions.add(partition)
        if len(outage.reasons) < MAX_REASONS:
            outage.reasons.setdefault(error.why, str(error))
        self.look()

    def worked(self, partition: int) -> None:
        """A call for a partition succeeded, or its server answered."""
        if any(partition in outage.failed_at for outage in self._outages.values()):
            self._worked_at[partition] = self._clock()
            self.look()

    def left(self, partition: int) -> None:
        """Nothing is called for a partition here any more: that says nothing of its server, so it is not said to be over."""
        for server, outage in list(self._outages.items()):
            if outage.failed_at.pop(partition, None) is not None and not outage.failed_at:
                del self._outages[server]

    def _of(self, partition: int, now: float) -> _Outage:
        """The outage that a partition is in; else that of its server."""
        for outage in self._outages.values():
            if partition in outage.failed_at:
                return outage
        server = self._server(partition)
        if server not in self._outages:
            flaps = now - self._ended_at.get(server, -RECENT_SECONDS) < RECENT_SECONDS
            self._outages[server] = _Outage(now, FLAPPING_STEADY_SECONDS if flaps else STEADY_SECONDS)
        return self._outages[server]

    def _server(self, partition: int) -> str:
        """The name of the server that has a partition, or had it last."""
        with suppress(RedisUnavailable):  # a cluster has none for it now
            self._known[partition] = self._server_of(partition)
        return self._known.get(partition, UNKNOWN)

    def look(self) -> None:
        """Logs what has begun and what is over; to be called now and then."""
        now = self._clock()
        for server, outage in list(self._outages.items()):
            if now - outage.began >= GATHER_SECONDS:
                self._log_new(server, outage)
            for partition, failed_at in list(outage.failed_at.items()):
                has_worked = self._worked_at.get(partition, failed_at) > failed_at
                if has_worked and now - failed_at >= outage.steady_seconds:
                    del outage.failed_at[partition]
            if not outage.failed_at:
                log.info(self._ends, **_about(server, outage))
                self._ended_at[server] = now
                del self._outages[server]
        if not self._outages:
            self._worked_at.clear()

    def _log_new(self, server: str, outage: _Outage) -> None:
        """Logs the reasons that were not logged yet."""
        for problem in list(outage.reasons.values())[outage.logged :]:
            log.log(self._level, self._begins, problem=problem, action=self._action, **_about(server, outage))
        outage.logged = len(outage.reasons)


def _about(server: str, outage: _Outage) -> Mapping[str, object]:
    return {"server": server, "partitions": sorted(outage.partitions)}


class PartitionWatch(RedisWatch):
    """What the calls for one of several partitions met. One server that is away does not make a worker unready."""

    def __init__(self, outages: Outages, partition: int) -> None:
        super().__init__()
        self._outages = outages
        self._partition = partition

    def failed(self, error: RedisUnavailable) -> None:
        """A call for the partition failed."""
        self._outages.failed(self._partition, error)

    def worked(self) -> None:
        """A call for the partition succeeded."""
        self._outages.worked(self._partition)

    def left(self) -> None:
        """As Outages'."""
        self._outages.left(self._partition)

    def look(self) -> None:
        """As Outages'."""
        self._outages.look()
