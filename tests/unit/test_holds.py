"""What holds an endpoint up, in the words that every command uses."""

from random import Random
from typing import Any

import pytest

from dispatcher.store.endpoints import Endpoint
from dispatcher.store.holds import by_trouble, duration, held_by, problem

NOW = 1_800_000_000_000


def endpoint(**known: Any) -> Endpoint:
    """An endpoint at which nothing waits, unless it is said."""
    nothing: dict[str, Any] = {
        "id": "id",
        "workspace": "acme",
        "url": "https://a.example:443",
        "waiting": 0,
        "in_flight": 0,
        "window": 2,
        "failures": 0,
        "p95_ms": None,
        "paused_until_ms": 0,
        "stopped_ms": None,
        "oldest_due_ms": None,
        "down_since_ms": 0,
        "now_ms": NOW,
    }
    return Endpoint(**nothing | known)


PAUSED = {
    "waiting": 3,
    "failures": 12,
    "paused_until_ms": NOW + 240_000,
    "down_since_ms": NOW - 600_000,
    "oldest_due_ms": NOW,
}
CASES: list[tuple[dict[str, Any], str, str | None]] = [
    ({}, "idle: nothing waits for it", None),
    ({"last_error": "http_500"}, "idle: nothing waits for it", None),
    (
        PAUSED | {"waiting": 0},
        "idle: nothing waits for it; what comes is held until 08:04:00Z (in 4 min) after 12 failures in a row",
        None,
    ),
    (
        {"stopped_ms": NOW - 7_200_000, "waiting": 3},
        "stopped by the operator since 06:00:00Z (2 h ago)",
        None,
    ),
    (
        PAUSED | {"last_error": "http_503"},
        "paused by the breaker until 08:04:00Z (in 4 min) after 12 failures in a row, last: http_503",
        "fails (http_503)",
    ),
    (
        PAUSED | {"last_error": "timeout", "in_flight": 1},
        "probing: one callback tries it now after 12 failures in a row, last: timeout",
        "does not answer (timeout)",
    ),
    (
        PAUSED | {"paused_until_ms": NOW},
        "probing: one callback tries it next after 12 failures in a row",
        "down",
    ),
    (
        {"waiting": 3, "failures": 1, "paused_until_ms": NOW + 30_000, "last_error": "http_429"},
        "paused until 08:00:30Z (in 30 s), as the endpoint asked (Retry-After), last: http_429",
        "asked to wait (http_429)",
    ),
    (
        {"waiting": 3, "oldest_due_ms": NOW + 61_000_000, "last_error": "http_404"},
        "waiting: the next attempt is at 2027-01-16 00:56:40Z (in 17 h), last: http_404",
        "fails (http_404)",
    ),
    (
        {"waiting": 9, "oldest_due_ms": NOW - 120_000, "in_flight": 2, "last_error": "http_404"},
        "waiting: due since 07:58:00Z (2 min ago), 2 in flight of at most 2",
        None,
    ),
    (
        {"waiting": 2, "in_flight": 1},
        "waiting: 1 in flight, and those of the same messages behind them",
        None,
    ),
    (
        {"waiting": 3, "failures": 2, "oldest_due_ms": NOW, "last_error": "tls_expired"},
        "waiting: due since 08:00:00Z (0 s ago), 0 in flight of at most 2",
        "fails (tls_expired)",
    ),
]


@pytest.mark.parametrize(("known", "sentence", "what"), CASES)
def test_words(known: dict[str, Any], sentence: str, what: str | None) -> None:
    """A sentence says what the callbacks wait for; a word or two what is wrong with the endpoint."""
    assert (sentence, what) == (held_by(endpoint(**known)), problem(endpoint(**known)))


def test_trouble_comes_first() -> None:
    """What is held up, with the most waiting, then down for longest; then what waits; then what is idle."""
    expected = [
        endpoint(**PAUSED | {"waiting": 90}),
        endpoint(waiting=80, stopped_ms=NOW),
        endpoint(**PAUSED | {"down_since_ms": NOW - 900_000}),
        endpoint(**PAUSED),
        endpoint(**PAUSED | {"url": "https://b.example:443"}),
        endpoint(stopped_ms=NOW),
        endpoint(waiting=1000),
        endpoint(waiting=1),
        endpoint(),
    ]
    assert expected == sorted(Random(1).sample(expected, len(expected)), key=by_trouble)


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (0, "0 s"),
        (119_000, "119 s"),
        (240_000, "4 min"),
        (7_200_000, "2 h"),
        (86_400_000, "24 h"),
        (259_200_000, "3 days"),
    ],
)
def test_duration(ms: int, words: str) -> None:
    """A duration is told in the unit that people would take."""
    assert words == duration(ms)
