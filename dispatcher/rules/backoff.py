"""How long to wait after the n-th attempt. Pure."""

from dataclasses import dataclass

MAX_DELAY_SECONDS = 604_800.0


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff: `base_seconds * factor ** (n - 1)`, at most a week, spread by ± `jitter`.

    The defaults give 15 s, 4 min, 64 min, 17 h: quick for a hiccup, and the last one is half a
    day later, when an outage has been noticed by people.
    """

    base_seconds: float = 15
    factor: float = 16
    jitter: float = 0.1

    def delay_ms(self, attempt: int, rng: float) -> int:
        """Milliseconds to wait after attempt number `attempt` (from 1); `rng` is in [0, 1)."""
        return spread_ms(self._seconds(attempt), self.jitter, rng)

    def _seconds(self, attempt: int) -> float:
        try:
            return min(self.base_seconds * float(self.factor) ** (attempt - 1), MAX_DELAY_SECONDS)
        except OverflowError:
            return MAX_DELAY_SECONDS


def spread_ms(seconds: float, jitter: float, rng: float) -> int:
    """Milliseconds, spread by ± `jitter`; `rng` is in [0, 1)."""
    return round(1000 * seconds * (1 + jitter * (2 * rng - 1)))
