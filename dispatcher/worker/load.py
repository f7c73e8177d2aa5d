"""How busy this worker's loop is: how late it is, and how much of a core it uses."""

import time
from collections.abc import Callable

LOOK_SECONDS = 0.2
"""The least time over which the share of a core is measured."""
BUSY = 0.7
"""Share of a core above which a worker leaves endpoints to others, if there are any."""


class Load:
    """Measured whenever the waker looks. Make it on the loop's thread: `used` is the CPU time of the thread that calls it.

    `clock` and `used` give seconds.
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
        """Whether the loop should be given no more than it must have."""
        return self.share_of_core >= BUSY

    def look(self) -> None:
        """Measures, now."""
        used, now = self._used(), self._clock()
        self.lag_seconds = max(0.0, now - self._planned)
        used_before, before = self._since
        if now - before >= LOOK_SECONDS:
            self.share_of_core = (used - used_before) / (now - before)
            self._since = used, now

    def look_in(self, seconds: float) -> None:
        """The next look is planned for then: what it comes later is lag."""
        self._planned = self._clock() + seconds
