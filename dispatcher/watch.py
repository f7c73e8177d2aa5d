"""Says once that Redis is away, and once that it is back."""

import structlog

from dispatcher.errors import RedisUnavailable

log = structlog.get_logger()


class RedisWatch:
    """Shared by everything in a worker that talks to Redis."""

    def __init__(self) -> None:
        self.problem: str | None = None

    def failed(self, error: RedisUnavailable) -> None:
        """Redis did not do what we asked."""
        if self.problem is None:
            log.warning("redis.away", problem=str(error), action="waiting; going on when it is back")
        self.problem = str(error)

    def worked(self) -> None:
        """Redis did what we asked."""
        if self.problem is not None:
            log.info("redis.back")
        self.problem = None
