"""A receiver's own retry schedule, written as `0,30s,5m,1h,6h`: the wait before each attempt. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.errors import InvalidInput
from dispatcher.rules.backoff import MAX_DELAY_SECONDS, spread_ms

SETTINGS = "default"
"""In place of a schedule: the attempts and waits of the settings."""
MOST = 16
"""Most attempts of a schedule."""

_DELAY = re.compile(r"([0-9]{1,9})([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Waits:
    """How long to wait after the n-th attempt, by a schedule's delays in seconds; spread by ± `jitter`."""

    delays: tuple[int, ...]
    """The first is the one before the first attempt."""
    jitter: float

    def delay_ms(self, attempt: int, rng: float) -> int:
        """Milliseconds to wait after attempt number `attempt` (from 1); `rng` is in [0, 1)."""
        return spread_ms(self.delays[attempt], self.jitter, rng)


def parse_schedule(text: str, expiry_seconds: int) -> tuple[int, ...]:
    """The delays in seconds; empty for `default`. Raises InvalidInput, also where the sum reaches the expiry."""
    if text.strip() == SETTINGS:
        return ()
    parts = [one.strip() for one in text.split(",")]
    if not text.strip() or len(parts) > MOST:
        count = len(parts) if text.strip() else 0
        raise InvalidInput(f"a retry schedule has 1 to {MOST} delays, not {count}; or it is `{SETTINGS}`")
    delays = tuple(_seconds(one) for one in parts)
    if delays[0]:
        raise InvalidInput(
            f"a retry schedule begins with 0, because the first attempt is made at once, not with {parts[0]}"
        )
    most = min(expiry_seconds, int(MAX_DELAY_SECONDS))
    if (total := sum(delays)) >= most:
        raise InvalidInput(
            f"the delays of a retry schedule are less than the expiry in sum, {in_words([most])}"
            f" (DISPATCHER_EXPIRY_SECONDS), not {in_words([total])}"
        )
    return delays


def in_words(delays: Sequence[int]) -> str:
    """The delays as `parse_schedule` reads them, each in the largest unit that fits: 0,90s,5m; `default` for none."""
    return ",".join(map(_in_words, delays)) or SETTINGS


def _seconds(text: str) -> int:
    found = _DELAY.fullmatch(text)
    if not found:
        raise InvalidInput(
            f"a delay is a whole number of seconds, or one with s, m, h or d as in 30s or 6h, not {text!r}"
        )
    return int(found[1]) * _SECONDS[found[2]]


def _in_words(seconds: int) -> str:
    unit = next((unit for unit in "dhm" if seconds and seconds % _SECONDS[unit] == 0), "s")
    return f"{seconds // _SECONDS[unit]}{unit}" if seconds else "0"
