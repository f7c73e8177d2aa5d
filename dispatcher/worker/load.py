"""How busy this worker's loop is: its lag, and how much of a core it uses."""

import time
from collections.abc import Callable

from dispatcher.share_of_core import ShareOfCore

LOOK_SECONDS = 0.2
"""Shortest time over which the share of a core is measured."""


class Load(ShareOfCore):
    """Measured each time the waker looks. `clock` and `used` return seconds.

    While it is high, this worker leaves endpoints to other workers, if there are any.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, used: Callable[[], float] = time.thread_time
    ) -> None:
        super().__init__(LOOK_SECONDS, clock, used)
        self.lag_seconds = 0.0
        """How much later than planned the last look was."""
        self._planned = clock()

    def look(self) -> None:
        """Measures the lag, and the share of a core if LOOK_SECONDS have passed."""
        self.lag_seconds = max(0.0, self._clock() - self._planned)
        super().look()

    def look_in(self, seconds: float) -> None:
        """Plans the next look; if that comes later, the difference is lag."""
        self._planned = self._clock() + seconds
