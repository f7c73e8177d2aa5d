"""Logs once that Redis is away or refuses us, again if the reason changes, and once that it is back."""

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
