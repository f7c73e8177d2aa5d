"""What to do after an attempt. Pure: no clock, no chance, no I/O."""

from dataclasses import dataclass, field

from dispatcher.backoff import Backoff
from dispatcher.outcomes import Attempt, Delivered, Expired, Failed, Outcome, Released, Retry

GONE = 410
PACED = (429, 503)
"""Statuses whose Retry-After is heeded."""

FINAL_ERRORS = frozenset({"blocked_address", "workspace_removed", "body_missing"})
"""Errors that another attempt cannot mend."""

DOWN_ERRORS = frozenset({"dns", "connect", "timeout", "maybe_received"})
"""Errors that say the endpoint is down or overloaded; so do `tls_*`, 429 and every 5xx."""

OWN_FAULT_DELAY_MS = 1000


@dataclass(frozen=True)
class Policy:
    """The rules of retrying."""

    max_attempts: int = 5
    backoff: Backoff = field(default_factory=Backoff)
    retry_after_max_ms: int = 3_600_000


def decide(
    attempt: Attempt, number: int, *, now_ms: int, expires_ms: int, policy: Policy, rng: float
) -> Outcome:
    """The outcome of attempt `number` (from 1), which ended at `now_ms`.

    Any 2xx delivers; 410 and the final errors give up; our own faults cost nothing; everything
    else is tried again after the backoff (or Retry-After, if that is longer) until the attempts
    are used up or the next one would fall behind the expiry.
    """
    if attempt.own_fault is not None:
        return Released(OWN_FAULT_DELAY_MS)
    if attempt.http_status in range(200, 300):
        return Delivered()
    if attempt.http_status == GONE or attempt.error in FINAL_ERRORS or number >= policy.max_attempts:
        return Failed()
    delay_ms = policy.backoff.delay_ms(number, rng)
    if attempt.http_status in PACED and attempt.retry_after_ms is not None:
        delay_ms = max(delay_ms, min(attempt.retry_after_ms, policy.retry_after_max_ms))
    return _retry(delay_ms, now_ms, expires_ms)


def decide_lost(
    number: int, lost_before: int, *, now_ms: int, expires_ms: int, policy: Policy, rng: float
) -> Outcome:
    """The outcome of attempt `number` whose worker died: `lost_before` of the callback's attempts were lost too.

    The first loss is tried again at once: the worker is to blame, not the customer. Later ones
    wait, because this callback may be what kills the worker.
    """
    if number >= policy.max_attempts:
        return Failed()
    return _retry(policy.backoff.delay_ms(number, rng) if lost_before else 0, now_ms, expires_ms)


def _retry(delay_ms: int, now_ms: int, expires_ms: int) -> Outcome:
    return Expired() if now_ms + delay_ms >= expires_ms else Retry(delay_ms)


def says_down(attempt: Attempt) -> bool:
    """Whether an attempt's result means that the endpoint is down or overloaded."""
    if attempt.http_status is not None:
        return attempt.http_status == 429 or attempt.http_status >= 500
    error = attempt.error or ""
    return error in DOWN_ERRORS or error.startswith("tls_")
