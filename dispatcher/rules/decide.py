"""What to do after an attempt. No I/O; time and randomness are arguments."""

from dataclasses import dataclass, field, replace
from functools import lru_cache

from dispatcher.rules.attempt_errors import DOWN_ERRORS, FINAL_ERRORS, SAYS_NOTHING
from dispatcher.rules.backoff import Backoff
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
from dispatcher.rules.retry_schedule import Waits
from dispatcher.rules.subscription import Receiver

GONE = 410
TOO_MANY = 429
RETRY_AFTER_STATUSES = (429, 503)
"""Statuses whose Retry-After is respected."""

INTERNAL_ERROR_DELAY_MS = 1000


@dataclass(frozen=True)
class Policy:
    """Retry policy."""

    max_attempts: int = 5
    backoff: Backoff | Waits = field(default_factory=Backoff)
    retry_after_max_ms: int = 3_600_000

    def of(self, receiver: Receiver | None) -> "Policy":
        """The policy for a receiver: its own retry schedule if it has one, else this one."""
        return _scheduled(self, receiver.retry_schedule) if receiver and receiver.retry_schedule else self


@lru_cache(maxsize=256)
def _scheduled(policy: Policy, schedule: tuple[int, ...]) -> Policy:
    return replace(policy, max_attempts=len(schedule), backoff=Waits(schedule, policy.backoff.jitter))


def decide(
    attempt: Attempt, number: int, *, now_ms: int, expires_ms: int, policy: Policy, rng: float
) -> Outcome:
    """The outcome of attempt `number` (from 1), which ended at `now_ms`.

    Any 2xx delivers; 410 and the final errors fail; internal errors cost no attempt. Everything else
    is retried after the backoff (or Retry-After, if longer) until the attempts are used up or the
    next one would be after the expiry.
    """
    if attempt.internal_error is not None:
        return Released(INTERNAL_ERROR_DELAY_MS)
    if attempt.http_status in range(200, 300):
        return Delivered()
    if attempt.http_status == GONE or attempt.error in FINAL_ERRORS or number >= policy.max_attempts:
        return Failed()
    delay_ms = max(policy.backoff.delay_ms(number, rng), retry_after_of(attempt, policy))
    return _retry(delay_ms, now_ms, expires_ms)


def decide_lost(
    number: int, lost_before: int, *, now_ms: int, expires_ms: int, policy: Policy, rng: float
) -> Outcome:
    """The outcome of attempt `number` whose worker died; `lost_before` earlier attempts of the callback were lost too.

    The first loss is retried at once, because it is the worker's fault. Later ones wait for the backoff:
    this callback may be what kills the worker.
    """
    if number >= policy.max_attempts:
        return Failed()
    return _retry(policy.backoff.delay_ms(number, rng) if lost_before else 0, now_ms, expires_ms)


def _retry(delay_ms: int, now_ms: int, expires_ms: int) -> Outcome:
    return Expired() if now_ms + delay_ms >= expires_ms else Retry(delay_ms)


def health_of(attempt: Attempt) -> EndpointHealth:
    """The endpoint's health, by an attempt."""
    if attempt.internal_error is not None or attempt.error in SAYS_NOTHING:
        return EndpointHealth.NONE
    if attempt.http_status is not None:
        down = attempt.http_status == TOO_MANY or attempt.http_status >= 500
        return (
            EndpointHealth.DOWN
            if down
            else EndpointHealth.UP
            if attempt.http_status in range(200, 300)
            else EndpointHealth.ANSWERED
        )
    error = attempt.error or ""
    return (
        EndpointHealth.DOWN if error in DOWN_ERRORS or error.startswith("tls_") else EndpointHealth.ANSWERED
    )


def retry_after_of(attempt: Attempt, policy: Policy) -> int:
    """The attempt's Retry-After in milliseconds, up to the policy's limit; 0 if there is none to respect."""
    if attempt.http_status not in RETRY_AFTER_STATUSES or attempt.retry_after_ms is None:
        return 0
    return min(attempt.retry_after_ms, policy.retry_after_max_ms)
