"""Limits how often log-ins may fail from one address."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable

FAILURES, SECONDS = 10, 60.0
"""How many log-ins may fail from one address within so many seconds."""
MOST_ADDRESSES = 10_000


class LoginLimit:
    """Counts failed log-ins of one process. Keys are random and long: this keeps the log readable, not the keys safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_seconds(self, address: str) -> int:
        """How long an address has to wait before it may try again; 0 if it need not."""
        failed = self._recent(address)
        return 0 if len(failed) < FAILURES else max(1, round(failed[0] + SECONDS - self._clock()))

    def failed(self, address: str) -> None:
        """A log-in from this address failed."""
        failed = self._recent(address)
        failed.append(self._clock())
        self._failed[address] = failed
        self._failed.move_to_end(address)
        if len(self._failed) > MOST_ADDRESSES:
            self._failed.popitem(last=False)

    def _recent(self, address: str) -> "deque[float]":
        failed = self._failed.get(address, deque(maxlen=FAILURES))
        while failed and failed[0] <= self._clock() - SECONDS:
            failed.popleft()
        return failed
