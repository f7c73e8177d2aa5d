"""For how long our own faults keep callbacks from being sent: the longer, the later they are tried again."""

import time
from collections.abc import Callable

FIRST_SECONDS, MOST_SECONDS = 1.0, 32.0
MOST_KNOWN = 10_000
"""Most subscriptions with a fault that are known apart; with more, all begin anew."""


class OwnFaults:
    """By subscription: a record or a secret that cannot be read concerns all of one. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[tuple[str, str], float] = {}

    def delay_ms(self, workspace: str, subscription: str) -> int:
        """Notes a fault; returns after which time to try again: as long as it has lasted, 32 s at most."""
        if len(self._since) >= MOST_KNOWN:
            self._since.clear()
        now = self._clock()
        lasted = now - self._since.setdefault((workspace, subscription), now)
        return round(min(max(lasted, FIRST_SECONDS), MOST_SECONDS) * 1000)

    def over(self, workspace: str, subscription: str) -> None:
        """Notes that an attempt was made."""
        if self._since:
            self._since.pop((workspace, subscription), None)
