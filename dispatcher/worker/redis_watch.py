"""Logs once that Redis is away or refuses us, again if the reason changes, and once that it is back."""

import structlog

from dispatcher.errors import RedisFull, RedisUnavailable
from dispatcher.health import Health
from dispatcher.worker.metrics import Metrics

ACTION = "waiting; going on when it is back"

log = structlog.get_logger()


class RedisWatch:
    """Shared by everything in a worker that talks to Redis."""

    def __init__(
        self, metrics: Metrics | None = None, health: Health | None = None, server: str = ""
    ) -> None:
        """`server` is what the log calls it, without a password; empty: not named."""
        self._about = {"server": server} if server else {}
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
            log.warning("redis.away", problem=str(error), action=ACTION, **self._about)
        self.problem = str(error)
        self._told.add(error.why)

    def worked(self) -> None:
        """A call to Redis succeeded."""
        self._health.answered()
        if self.problem is not None:
            log.info("redis.back", **self._about)
        self.problem = None
        self._told.clear()

    def look(self) -> None:
        """Logs what is over since the last call; here nothing waits for that."""

    def left(self) -> None:
        """Nothing is called here any more, whatever is away; here something always is."""
