"""How busy a thread is: how much of a core it uses."""

import time
from collections.abc import Callable

BUSY = 0.7
"""A loop that uses this share of a core is busy: what can wait, or be done elsewhere, is better not begun."""


class ShareOfCore:
    """The calling thread's share of a core, over `window_seconds` or more. `clock` and `used` return seconds.

    Call it always on the same thread: `used` is the CPU time of the calling one.
    """

    def __init__(
        self,
        window_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.thread_time,
    ) -> None:
        self.share_of_core = 0.0
        """By the last look that measured it; 0 to 1."""
        self._window_seconds = window_seconds
        self._clock, self._used = clock, used
        self._since = used(), clock()

    @property
    def is_high(self) -> bool:
        """Whether the thread was busy by the last look."""
        return self.share_of_core >= BUSY

    def look(self) -> None:
        """Measures the share since the last look that did, if the window has passed."""
        used, now = self._used(), self._clock()
        used_before, before = self._since
        if now - before >= self._window_seconds:
            self.share_of_core = (used - used_before) / (now - before)
            self._since = used, now
