"""The log line of an attempt, its metrics, and the words for its outcomes."""

import structlog

from dispatcher.rules.callback import Claimed
from dispatcher.rules.outcomes import Attempt, Delivered, Expired, Failed, Outcome, Released, Retry
from dispatcher.store.replies import Claim
from dispatcher.worker.metrics import Metrics

_DELAYED = Retry, Released

log = structlog.get_logger()


def log_attempt(
    callback: Claimed, claim: Claim, attempt: Attempt, outcome: Outcome, name: str, max_attempts: int
) -> None:
    """Writes `callback.attempted`. Never a body, a secret or a whole URL. `name` is the outcome's."""
    more: dict[str, str | float | None] = {}
    if attempt.internal_error is not None:
        more = {"error": "internal_error", "detail": attempt.internal_error or attempt.detail or None}
    elif attempt.error:
        more = {"error": attempt.error, "detail": attempt.detail or None}
    if isinstance(outcome, _DELAYED):
        more["retry_in_s"] = outcome.delay_ms / 1000
    write = log.info if attempt.internal_error is None else log.error
    write(
        "callback.attempted",
        event_id=callback.event_id,
        workspace=claim.workspace,
        endpoint=claim.origin,
        message=callback.message_uuid,
        event_type=callback.event_type,
        attempt=f"{callback.attempt}/{max_attempts}",
        http_status=attempt.http_status,
        duration_ms=attempt.duration_ms,
        outcome=name,
        **more,
    )


def count_attempt(metrics: Metrics, callback: Claimed, attempt: Attempt, outcome: Outcome, name: str) -> None:
    """Counts an attempt, and how long it and the delivery took. `name` is the outcome's."""
    error = "internal_error" if attempt.internal_error is not None else attempt.error or "none"
    metrics.attempts[name, error] += 1
    metrics.attempt_seconds.add(attempt.duration_ms / 1000)
    if isinstance(outcome, Delivered) and callback.accepted_ms:
        ended_ms = attempt.started_at_ms + attempt.duration_ms
        metrics.delivery_seconds.add((ended_ms - callback.accepted_ms) / 1000)


def name_of(outcome: Outcome) -> str:
    """The outcome in logs, metrics and `tail`."""
    match outcome:
        case Delivered():
            return "delivered"
        case Retry():
            return "retry"
        case Failed():
            return "failed"
        case Expired():
            return "expired"
        case Released():
            return "released"
