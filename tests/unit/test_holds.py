"""What holds an endpoint up, in the words that every command uses."""

from random import Random
from typing import Any

import pytest

from dispatcher.model import Status
from dispatcher.rules.outcomes import Attempt, State
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.holds import Schedule, by_trouble, duration, held_by, next_step, problem
from dispatcher.store.stored_callback import StoredCallback

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
    (
        {"waiting": 3, "failures": 2, "oldest_due_ms": NOW, "last_error": "auth"},
        "waiting: due since 08:00:00Z (0 s ago), 0 in flight of at most 2",
        "cannot prove who we are (auth)",
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


def callback(state: State, **known: Any) -> StoredCallback:
    """A callback that was tried once and is due now, unless it is said."""
    usual: dict[str, Any] = {
        "event_id": "e1",
        "workspace": "acme",
        "endpoint": "https://a.example:443",
        "message_uuid": "m1",
        "status": Status.SENT,
        "event_type": "MESSAGE_SENT",
        "state": state,
        "attempts": [Attempt(NOW, 5, 500, "http_500")],
        "accepted_ms": NOW,
        "expires_ms": NOW,
        "next_attempt_ms": NOW,
        "ended_ms": None,
        "answer": None,
    }
    return StoredCallback(**usual | known)


REPLAY = "`dispatcher event replay e1 --workspace acme` sends it again"
RETRY = "`dispatcher endpoint retry acme https://a.example:443`"
GONE = [Attempt(NOW, 5, 410, "http_410")]
STEPS: list[tuple[StoredCallback, dict[str, Any], str]] = [
    (callback(State.DELIVERED), {}, f"nothing: it was delivered; {REPLAY}"),
    (callback(State.SUPERSEDED), {}, "nothing: a newer status of its message took its place"),
    (callback(State.FAILED), {}, f"nothing: its attempts are used up; {REPLAY}"),
    (callback(State.FAILED, attempts=GONE), {}, f"nothing: the receiver said 410, gone; {REPLAY}"),
    (
        callback(State.FAILED, attempts=[Attempt(NOW, 5, None, "blocked_address")]),
        {},
        f"nothing: the address is not public and not allowed, or http:// is not, so it is not tried again; {REPLAY}",
    ),
    (callback(State.FAILED, cancelled=True), {}, f"nothing: the operator cancelled it; {REPLAY}"),
    (callback(State.EXPIRED), {}, f"nothing: its time was over; {REPLAY}"),
    (
        callback(State.RETRYING, lease_ends_ms=NOW),
        {},
        "it is being sent; if its worker died it comes back at 2027-01-15T08:00:00.000Z",
    ),
    (
        callback(State.RETRYING),
        {"stopped_ms": NOW},
        "it waits: the operator stopped the endpoint; `dispatcher endpoint resume acme https://a.example:443`",
    ),
    (callback(State.PENDING, next_attempt_ms=None), {}, "it waits for an earlier callback of its message"),
    (
        callback(State.RETRYING, next_attempt_ms=NOW + 1000),
        {},
        f"attempt 2 of 5 at 2027-01-15T08:00:01.000Z, by the settings; {RETRY} makes it due now",
    ),
    (
        callback(State.PENDING, attempts=(), next_attempt_ms=NOW + 1000),
        {},
        "attempt 1 of 5 at 2027-01-15T08:00:01.000Z, by the settings",
    ),
    (
        callback(State.RETRYING),
        {},
        "attempt 2 of 5 as soon as it is its turn, by the settings; 7 are before it",
    ),
]


@pytest.mark.parametrize(("one", "known", "words"), STEPS)
def test_next_step(one: StoredCallback, known: dict[str, Any], words: str) -> None:
    """What happens next to a callback, by its state and its endpoint's, with the command that changes it."""
    assert words == next_step(one, endpoint(**known), 7, has_body=True, schedule=Schedule(5))


def test_next_step_by_a_schedule_of_its_own() -> None:
    """It says how many attempts there are, and by which schedule."""
    schedule = Schedule(4, (0, 30, 300, 3600), "crm")
    one = callback(State.PENDING, attempts=(), next_attempt_ms=NOW + 1000)
    words = next_step(one, endpoint(), 7, has_body=True, schedule=schedule)
    when = "2027-01-15T08:00:01.000Z"
    assert words == f"attempt 1 of 4 at {when}, by the schedule 0,30s,5m,1h of subscription crm"


def test_next_step_of_a_paused_endpoint() -> None:
    """It names what is wrong with the endpoint, what holds it and how many are before, and how to probe now."""
    words = next_step(callback(State.RETRYING), endpoint(**PAUSED), 7, has_body=True, schedule=Schedule(5))
    assert words.startswith("it waits: the endpoint down; paused by the breaker until ")
    assert words.endswith(f"; 7 are before this one; {RETRY} probes now")


def test_next_step_without_a_body() -> None:
    """What has ended and has no body cannot be sent again, and that is said."""
    words = next_step(callback(State.FAILED), endpoint(), 0, has_body=False, schedule=Schedule(5))
    assert "nothing: its attempts are used up; its body is not kept any more: it cannot be replayed" == words
