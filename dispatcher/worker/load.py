"""How busy this worker's loop is: its lag, and how much of a core it uses."""

import time
from collections.abc import Callable

from dispatcher.share_of_core import ShareOfCore

LOOK_SECONDS = 0.2
"""Shortest time over which the share of a core is measured."""


class Load:
    """Measured each time the waker looks. `clock` and `used` return seconds.

    Create it on the loop's thread: `used` is the CPU time of the calling thread.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, used: Callable[[], float] = time.thread_time
    ) -> None:
        self.lag_seconds = 0.0
        """How much later than planned the last look was."""
        self._clock = clock
        self._share = ShareOfCore(LOOK_SECONDS, clock, used)
        self._planned = clock()

    @property
    def share_of_core(self) -> float:
        """How much of a core the loop's thread used, 0 to 1."""
        return self._share.share

    @property
    def is_high(self) -> bool:
        """Whether the loop is too busy for work that other workers, if there are any, could do."""
        return self._share.is_high

    def look(self) -> None:
        """Measures the lag, and the share of a core if LOOK_SECONDS have passed."""
        self.lag_seconds = max(0.0, self._clock() - self._planned)
        self._share.look()

    def look_in(self, seconds: float) -> None:
        """Plans the next look; if that comes later, the difference is lag."""
        self._planned = self._clock() + seconds
