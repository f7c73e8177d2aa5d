"""Liveness and readiness of a process, for /healthz and /readyz. A probe reads what is remembered and never asks Redis."""

import re
import time
from collections.abc import Callable

LIVE_SECONDS = 30.0
"""A loop that has not run for this long is stuck."""
READY_SECONDS = 10.0
"""Redis counts as unavailable after this long without an answer."""

PATHS = ("/healthz", "/readyz")


class Health:
    """Written by the process's loop, read from any thread. The texts contain no secrets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turned = clock()
        self._answered: float | None = None
        self._failed = False
        self._why = ""
        self._refused = ""
        self.serves_nothing = False
        """Whether a service answers no request, since Redis was last asked; /readyz says why."""
        self.stopping = False
        """Set when the process begins to end; it is not ready from then on."""

    def turned(self) -> None:
        """Notes that the loop runs."""
        self._turned = self._clock()

    def answered(self) -> None:
        """Notes that Redis answered and has data of this version's format."""
        self._answered = self._clock()
        self._failed = False
        self._refused, self.serves_nothing = "", False

    def failed(self, why: str = "") -> None:
        """Notes that a call to Redis failed: the process is not ready until one succeeds.

        `why` is empty if Redis did not answer. Of Redis's own words in it (after a colon or in brackets) nothing is shown:
        they may name a user, and probes need no key.
        """
        self._failed = True
        self._why = re.split(r": | \(", why, maxsplit=1)[0]

    def refused(self, why: str, *, serves: bool = True) -> None:
        """Notes that Redis answered but cannot be used, and why. Without `serves` a service answers no request until it can."""
        self._answered, self._refused = None, why
        self.serves_nothing = not serves

    def live_problem(self) -> str:
        """Why the process is not alive; empty if it is."""
        stuck = self._clock() - self._turned
        return f"the loop has not turned for {stuck:.0f} s" if stuck > LIVE_SECONDS else ""

    def ready_problem(self) -> str:
        """Why the process is not ready; empty if it is."""
        if self.stopping:
            return "it is ending"
        if problem := self.live_problem() or self._refused:
            return problem
        if self._answered is None:
            return self._why or "Redis has not answered yet"
        if self._failed and self._why:
            return self._why
        away = self._clock() - self._answered
        return f"Redis has not answered for {away:.0f} s" if self._failed or away > READY_SECONDS else ""

    def answer(self, path: str) -> tuple[int, str]:
        """HTTP status and text for one of PATHS."""
        problem = self.live_problem() if path == "/healthz" else self.ready_problem()
        return (503, f"{problem}\n") if problem else (200, "ok\n")
