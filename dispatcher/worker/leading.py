"""Logs how many of several partitions a worker leads."""

import time
from collections.abc import Callable

import structlog

STEADY_SECONDS = 1.0
"""What a worker leads is logged when it has not changed for this long: it takes many partitions one after the other."""

log = structlog.get_logger()


class Leading:
    """Logs `partitions.leading` when a worker has got or lost partitions, by their leases; `of` is how many there are."""

    def __init__(self, of: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._of = of
        self._clock = clock
        self._seen = self._logged = frozenset[int]()
        self._since = clock()

    def note(self, owned: frozenset[int]) -> None:
        """Notes which partitions this worker leads now; to be called now and then."""
        now = self._clock()
        if owned != self._seen:
            self._seen, self._since = owned, now
        if owned != self._logged and now - self._since >= STEADY_SECONDS:
            self._logged = owned
            log.info("partitions.leading", count=len(owned), of=self._of)
