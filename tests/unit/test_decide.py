"""What happens after an attempt."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.rules.backoff import Backoff
from dispatcher.rules.decide import Policy, decide, decide_lost, health_of, retry_after_of
from dispatcher.rules.outcomes import (
    Attempt,
    Delivered,
    EndpointHealth,
    Expired,
    Failed,
    Outcome,
    Released,
    Retry,
)

NOW = 1_781_010_297_000
FAR = NOW + 172_800_000
POLICY = Policy()
HOUR_MS = 3_600_000


def answered(status: int, retry_after_ms: int | None = None) -> Attempt:
    """An attempt whose answer was read."""
    error = None if 200 <= status < 300 else f"http_{status}"
    return Attempt(NOW - 50, 50, status, error, retry_after_ms)


def broken(error: str) -> Attempt:
    """An attempt that brought no answer."""
    return Attempt(NOW - 50, 50, error=error)


DEFAULTS: dict[str, Any] = {"now_ms": NOW, "expires_ms": FAR, "policy": POLICY, "rng": 0.5}


def after(attempt: Attempt, number: int = 1, **changes: Any) -> Outcome:
    return decide(attempt, number, **DEFAULTS | changes)


def after_loss(number: int, lost_before: int, **changes: Any) -> Outcome:
    return decide_lost(number, lost_before, **DEFAULTS | changes)


@pytest.mark.parametrize("number", [1, 5])
@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_any_2xx_delivers(status: int, number: int) -> None:
    """Any 2xx is success, also at the last attempt."""
    assert Delivered() == after(answered(status), number)


@pytest.mark.parametrize("error", ["aborted", "disabled"])
@pytest.mark.parametrize(("status", "health"), [(500, EndpointHealth.DOWN), (404, EndpointHealth.ANSWERED)])
def test_what_the_receiver_ends_is_over(error: str, status: int, health: EndpointHealth) -> None:
    """`webhook-delivery` in an answer ends the callback; its status says how the endpoint is."""
    attempt = Attempt(NOW - 50, 50, status, error)
    assert (Failed(), health) == (after(attempt), health_of(attempt))


def test_a_2xx_after_the_expiry_delivers() -> None:
    """An attempt that began in time and succeeded late is a delivery."""
    assert Delivered() == after(answered(200), expires_ms=NOW - 1)


@pytest.mark.parametrize(
    "status", [301, 302, 307, 308, 400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504, 599]
)
def test_other_answers_are_tried_again(status: int) -> None:
    """Redirects, client errors and server errors all retry after the backoff."""
    assert Retry(15_000) == after(answered(status))


@pytest.mark.parametrize(
    "error", ["dns", "connect", "timeout", "maybe_received", "protocol", "auth", "tls_name", "tls_handshake"]
)
def test_no_answer_is_tried_again(error: str) -> None:
    """Every way of getting no answer retries after the backoff."""
    assert Retry(15_000) == after(broken(error))


@pytest.mark.parametrize(
    "attempt", [answered(410), broken("blocked_address"), broken("workspace_removed"), broken("body_missing")]
)
def test_what_cannot_be_mended_fails_at_once(attempt: Attempt) -> None:
    """410, a forbidden address and a callback or customer that is gone are given up at the first attempt."""
    assert Failed() == after(attempt)


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (1, Retry(15_000)),
        (2, Retry(240_000)),
        (3, Retry(3_840_000)),
        (4, Retry(61_440_000)),
        (5, Failed()),
        (6, Failed()),
    ],
)
def test_five_attempts_in_all(number: int, outcome: Outcome) -> None:
    """Four delays lie between five attempts; after the fifth the callback has failed."""
    assert outcome == after(answered(500), number)


def test_the_number_of_attempts_can_be_set() -> None:
    """With one attempt in all there is no retry."""
    assert Failed() == after(answered(500), policy=Policy(max_attempts=1))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after_ms", "delay_ms"),
    [
        (None, 15_000),
        (0, 15_000),
        (14_999, 15_000),
        (15_001, 15_001),
        (HOUR_MS, HOUR_MS),
        (HOUR_MS + 1, HOUR_MS),
        (10**15, HOUR_MS),
    ],
)
def test_retry_after_is_heeded(status: int, retry_after_ms: int | None, delay_ms: int) -> None:
    """On 429 and 503 the longer of backoff and Retry-After counts, the latter up to an hour."""
    assert Retry(delay_ms) == after(answered(status, retry_after_ms))


@pytest.mark.parametrize("status", [301, 400, 408, 413, 500, 502, 504])
def test_retry_after_of_other_answers_is_not_heeded(status: int) -> None:
    """Retry-After means something on 429 and 503 only."""
    assert Retry(15_000) == after(answered(status, HOUR_MS))


def test_a_short_limit_never_shortens_the_backoff() -> None:
    """The limit cuts Retry-After, not the backoff."""
    assert Retry(240_000) == after(answered(503, HOUR_MS), 2, policy=Policy(retry_after_max_ms=1_000))


@pytest.mark.parametrize(
    ("expires_ms", "outcome"),
    [
        (NOW + 15_001, Retry(15_000)),
        (NOW + 15_000, Expired()),
        (NOW + 14_999, Expired()),
        (NOW, Expired()),
        (NOW - 1, Expired()),
    ],
)
def test_a_retry_behind_the_expiry_expires(expires_ms: int, outcome: Outcome) -> None:
    """A retry that would fall on the expiry or behind it ends the callback at once."""
    assert outcome == after(answered(500), expires_ms=expires_ms)


def test_retry_after_can_expire() -> None:
    """A receiver that asks to wait beyond the expiry gets no further attempt."""
    assert Expired() == after(answered(503, HOUR_MS), expires_ms=NOW + HOUR_MS)


@pytest.mark.parametrize("expires_ms", [NOW - 1, FAR])
@pytest.mark.parametrize("number", [1, 5, 6])
def test_our_own_fault_costs_no_attempt(number: int, expires_ms: int) -> None:
    """What this machine did wrong gives the callback back, whatever its attempts and its expiry."""
    attempt = Attempt(NOW, 0, internal_error="no descriptors left")
    assert Released(1_000) == after(attempt, number, expires_ms=expires_ms)


@pytest.mark.parametrize(
    ("number", "lost_before", "outcome"),
    [
        (1, 0, Retry(0)),
        (4, 0, Retry(0)),
        (2, 1, Retry(240_000)),
        (3, 2, Retry(3_840_000)),
        (5, 0, Failed()),
        (5, 4, Failed()),
    ],
)
def test_lost_attempts(number: int, lost_before: int, outcome: Outcome) -> None:
    """The first attempt lost with its worker is made again at once, later ones wait, and all of them count."""
    assert outcome == after_loss(number, lost_before)


@pytest.mark.parametrize(
    ("lost_before", "expires_ms", "outcome"),
    [
        (0, NOW + 1, Retry(0)),
        (0, NOW, Expired()),
        (0, NOW - 1, Expired()),
        (1, NOW + 15_001, Retry(15_000)),
        (1, NOW + 15_000, Expired()),
    ],
)
def test_lost_attempts_expire(lost_before: int, expires_ms: int, outcome: Outcome) -> None:
    """A lost attempt is not made again on the expiry or behind it."""
    assert outcome == after_loss(1, lost_before, expires_ms=expires_ms)


@pytest.mark.parametrize(
    ("attempt", "health"),
    [
        *((answered(status), EndpointHealth.UP) for status in (200, 204, 299)),
        *((answered(status), EndpointHealth.DOWN) for status in (429, 500, 501, 502, 503, 504, 599)),
        *((answered(status), EndpointHealth.ANSWERED) for status in (302, 400, 401, 404, 408, 410, 422)),
        *(
            (broken(e), EndpointHealth.DOWN)
            for e in (
                "dns",
                "connect",
                "proxy",
                "timeout",
                "maybe_received",
                "auth",
                "tls_name",
                "tls_handshake",
            )
        ),
        (broken("protocol"), EndpointHealth.ANSWERED),
        *(
            (broken(e), EndpointHealth.NONE)
            for e in ("blocked_address", "workspace_removed", "body_missing", "worker_lost")
        ),
        (Attempt(NOW, 0, internal_error="no ports left"), EndpointHealth.NONE),
    ],
    ids=lambda value: (
        value.error or value.http_status or value.internal_error if isinstance(value, Attempt) else str(value)
    ),
)
def test_health_of_an_endpoint(attempt: Attempt, health: EndpointHealth) -> None:
    """The breaker counts 429, 5xx and failed connections, no other answer and none of our own faults."""
    assert health is health_of(attempt)


@pytest.mark.parametrize(
    ("status", "retry_after_ms", "pause_ms"),
    [(503, 5_000, 5_000), (429, 5_000, 5_000), (503, None, 0), (500, 5_000, 0), (503, 10**12, 3_600_000)],
)
def test_retry_after_of_an_endpoint(status: int, retry_after_ms: int | None, pause_ms: int) -> None:
    """Retry-After on 429 and 503 leaves the whole endpoint alone, for an hour at most."""
    attempt = Attempt(NOW, 0, status, f"http_{status}", retry_after_ms)
    assert pause_ms == retry_after_of(attempt, Policy())


policies = st.builds(
    Policy,
    max_attempts=st.integers(1, 20),
    backoff=st.builds(
        Backoff, base_seconds=st.floats(0.001, 3600), factor=st.floats(1, 32), jitter=st.floats(0, 1)
    ),
    retry_after_max_ms=st.integers(0, 10**9),
)
failures = st.builds(answered, st.integers(300, 599), st.none() | st.integers(0, 10**15)) | st.builds(
    broken, st.sampled_from(["dns", "connect", "timeout", "maybe_received", "protocol", "tls_handshake"])
)
rngs = st.floats(0, 1, exclude_max=True)


@given(failures, st.integers(1, 25), st.integers(-(10**9), 10**9), policies, rngs)
def test_every_retry_keeps_the_rules(
    attempt: Attempt, number: int, left_ms: int, policy: Policy, rng: float
) -> None:
    """A retry is never one too many, never on the expiry or behind it, and never sooner than the backoff."""
    match after(attempt, number, expires_ms=NOW + left_ms, policy=policy, rng=rng):
        case Retry(delay_ms):
            backoff_ms = policy.backoff.delay_ms(number, rng)
            assert number < policy.max_attempts
            assert delay_ms < left_ms
            assert backoff_ms <= delay_ms <= max(backoff_ms, policy.retry_after_max_ms)
        case Expired():
            assert number < policy.max_attempts
        case outcome:
            assert Failed() == outcome
            assert number >= policy.max_attempts or attempt.http_status == 410


@given(st.integers(1, 25), st.integers(0, 25), st.integers(-(10**9), 10**9), policies, rngs)
def test_every_lost_attempt_keeps_the_rules(
    number: int, lost_before: int, left_ms: int, policy: Policy, rng: float
) -> None:
    """Lost attempts are never repeated beyond the limit or the expiry, and at once only the first time."""
    match after_loss(number, lost_before, expires_ms=NOW + left_ms, policy=policy, rng=rng):
        case Retry(delay_ms):
            assert number < policy.max_attempts
            assert delay_ms < left_ms
            assert delay_ms == (policy.backoff.delay_ms(number, rng) if lost_before else 0)
        case Expired():
            assert number < policy.max_attempts
        case outcome:
            assert Failed() == outcome
            assert number >= policy.max_attempts
