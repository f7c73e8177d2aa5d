"""Whether a process lives, and whether it can do its work: for /healthz and /readyz. Remembered, never asked of Redis."""

import time
from collections.abc import Callable

LIVE_SECONDS = 30.0
"""A loop that has not turned for so long is stuck."""
READY_SECONDS = 10.0
"""Redis that has not answered for so long is away."""

PATHS = ("/healthz", "/readyz")


class Health:
    """Told by a process's loop, and read from any thread. The texts hold nothing that is secret."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turned = clock()
        self._answered: float | None = None
        self._refused = ""
        self.stopping = False
        """Once true the process is not ready any more."""

    def turned(self) -> None:
        """The loop turned."""
        self._turned = self._clock()

    def answered(self) -> None:
        """Redis answered, and what is in it has this version's format."""
        self._answered = self._clock()
        self._refused = ""

    def refused(self, why: str) -> None:
        """Redis answered, and cannot be used."""
        self._answered, self._refused = None, why

    def live_problem(self) -> str:
        """Why the process does not live; empty if it does."""
        stuck = self._clock() - self._turned
        return f"the loop has not turned for {stuck:.0f} s" if stuck > LIVE_SECONDS else ""

    def ready_problem(self) -> str:
        """Why the process cannot do its work; empty if it can."""
        if self.stopping:
            return "it is ending"
        if problem := self.live_problem() or self._refused:
            return problem
        if self._answered is None:
            return "Redis has not answered yet"
        away = self._clock() - self._answered
        return f"Redis has not answered for {away:.0f} s" if away > READY_SECONDS else ""

    def answer(self, path: str) -> tuple[int, str]:
        """Status and text for one of PATHS."""
        problem = self.live_problem() if path == "/healthz" else self.ready_problem()
        return (503, f"{problem}\n") if problem else (200, "ok\n")
