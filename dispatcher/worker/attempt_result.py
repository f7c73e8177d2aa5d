"""What to record of a callback that this worker had in hand."""

import random

from dispatcher.rules.callback import Claimed
from dispatcher.rules.decide import INTERNAL_ERROR_DELAY_MS, Policy, decide, health_of, retry_after_of
from dispatcher.rules.outcomes import Attempt, Released
from dispatcher.store.replies import Settlement


def settlement_of(callback: Claimed, attempt: Attempt, policy: Policy) -> Settlement:
    """What to record of an attempt."""
    outcome = decide(
        attempt,
        callback.attempt,
        now_ms=attempt.started_at_ms + attempt.duration_ms,
        expires_ms=callback.expires_ms,
        policy=policy,
        rng=random.random(),
    )
    health, retry_after_ms = health_of(attempt), retry_after_of(attempt, policy)
    return Settlement(callback.event_id, callback.claim, outcome, attempt, health, retry_after_ms)


def put_back(callback: Claimed, delay_ms: int = INTERNAL_ERROR_DELAY_MS) -> Settlement:
    """What to record if the fault is not the receiver's: the callback comes back soon, and no attempt is counted."""
    return Settlement(callback.event_id, callback.claim, Released(delay_ms), None)
