"""Logs once that Redis is away or refuses us, again if the reason changes, and once that it is back."""

from collections.abc import Callable

import structlog

from dispatcher.errors import RedisFull, RedisUnavailable
from dispatcher.health import Health
from dispatcher.worker.metrics import Metrics

log = structlog.get_logger()


class RedisWatch:
    """Shared by everything in a worker that talks to Redis."""

    def __init__(self, metrics: Metrics | None = None, health: Health | None = None) -> None:
        self.problem: str | None = None
        self._told: set[str] = set()
        """Reasons that were logged since Redis was away: several parts meet different ones, in turn."""
        self._metrics = metrics or Metrics()
        self._health = health or Health()

    def failed(self, error: RedisUnavailable) -> None:
        """A call to Redis failed."""
        self._metrics.redis_errors += 1
        if not isinstance(error, RedisFull):  # a full Redis answers, and serves what waits
            self._health.failed(error.why)
        if error.why not in self._told:
            log.warning("redis.away", problem=str(error), action="waiting; going on when it is back")
        self.problem = str(error)
        self._told.add(error.why)

    def worked(self) -> None:
        """A call to Redis succeeded."""
        self._health.answered()
        if self.problem is not None:
            log.info("redis.back")
        self.problem = None
        self._told.clear()


class RedisWatches:
    """One watch for each server, if there are several: each is away or back for itself."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._watches: dict[str, RedisWatch] = {}

    def of(self, server: str) -> RedisWatch:
        """The watch of a server, by its name."""
        if server not in self._watches:
            self._watches[server] = RedisWatch(self._metrics)
        return self._watches[server]


class PartitionWatch(RedisWatch):
    """The watch of whichever server holds a partition. One server that is away does not make a worker unready."""

    def __init__(self, watches: RedisWatches, server: Callable[[], str]) -> None:
        super().__init__()
        self._watches = watches
        self._server = server

    def failed(self, error: RedisUnavailable) -> None:
        """A call to the partition's server failed."""
        self._watch().failed(error)

    def worked(self) -> None:
        """A call to the partition's server succeeded."""
        self._watch().worked()

    def _watch(self) -> RedisWatch:
        try:
            return self._watches.of(self._server())
        except RedisUnavailable:
            return self._watches.of("")
