"""Bounds the log lines that callers can cause, whoever they are."""

import time
from collections import Counter
from collections.abc import Callable

SECONDS = 60.0
"""A line of one name is written at most this often."""


class LogRate:
    """Counts what happens, and says when to log it. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counted: Counter[str] = Counter()
        self._logged: dict[str, float] = {}

    def count(self, name: str) -> int:
        """Counts one occurrence; returns how many a line is to be written for now, or 0 if none is."""
        self._counted[name] += 1
        now = self._clock()
        if now - self._logged.get(name, now - SECONDS) < SECONDS:
            return 0
        self._logged[name] = now
        return self._counted.pop(name)
