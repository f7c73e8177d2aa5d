"""How busy this worker's loop is: its lag, and how much of a core it uses."""

import time
from collections.abc import Callable

LOOK_SECONDS = 0.2
"""Shortest time over which the share of a core is measured."""
BUSY = 0.7
"""A worker that uses this share of a core leaves endpoints to other workers, if there are any."""


class Load:
    """Measured each time the waker looks. `clock` and `used` return seconds.

    Create it on the loop's thread: `used` is the CPU time of the calling thread.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, used: Callable[[], float] = time.thread_time
    ) -> None:
        self.lag_seconds = 0.0
        """How much later than planned the last look was."""
        self.share_of_core = 0.0
        self._clock, self._used = clock, used
        self._since = used(), clock()
        self._planned = clock()

    @property
    def is_high(self) -> bool:
        """Whether the loop is too busy for work that other workers could do."""
        return self.share_of_core >= BUSY

    def look(self) -> None:
        """Measures the lag, and the share of a core if LOOK_SECONDS have passed."""
        used, now = self._used(), self._clock()
        self.lag_seconds = max(0.0, now - self._planned)
        used_before, before = self._since
        if now - before >= LOOK_SECONDS:
            self.share_of_core = (used - used_before) / (now - before)
            self._since = used, now

    def look_in(self, seconds: float) -> None:
        """Plans the next look; if that comes later, the difference is lag."""
        self._planned = self._clock() + seconds
