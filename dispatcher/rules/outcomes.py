"""The result of an attempt and what happens next, as frozen values: callers match them, nothing is raised."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class State(StrEnum):
    """States of a callback in the ledger; the last six are final."""

    PENDING = "pending"
    SENDING = "sending"
    RETRYING = "retrying"
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    FANNED_OUT = "fanned_out"
    """Of a status change that the default subscription does not want: others may have callbacks."""
    ERASED = "erased"
    """Of one that had ended otherwise: only its eventId is known, so that it does not happen again."""


ENDS = frozenset(
    {State.DELIVERED, State.FAILED, State.EXPIRED, State.SUPERSEDED, State.FANNED_OUT, State.ERASED}
)


class EndpointHealth(StrEnum):
    """What an attempt says about its endpoint; window and breaker depend on it."""

    UP = "up"
    """It accepted the callback."""
    ANSWERED = "answered"
    """It answers, but did not accept this callback."""
    DOWN = "down"
    """It is down or overloaded."""
    NONE = "none"
    """Nothing: no POST was made, or the worker was lost."""


class Attempt(msgspec.Struct, frozen=True):
    """One POST and its result.

    `http_status` is set once the head of an answer was read. `error` is `http_NNN` after an answer other than 2xx, and a
    word of attempt_errors.py if there was none; it is None after a 2xx, and if there is an `internal_error`.
    """

    started_at_ms: int
    duration_ms: int
    http_status: int | None = None
    error: str | None = None
    retry_after_ms: int | None = None
    answer: bytes = b""
    detail: str = ""
    """The cause in words, if there was no answer: for logs and for people who have to fix it."""
    internal_error: str | None = None
    """A bug or a lack of resources on our side, in words; it does not count as an attempt."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver answered 2xx."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt after `delay_ms`."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class Failed:
    """No further attempt: all are used, the receiver answered 410, or the error is final."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The next attempt would be after the callback's expiry."""


@dataclass(frozen=True, slots=True)
class Released:
    """Back to the lane after `delay_ms`; no attempt is counted."""

    delay_ms: int = 0


Outcome = Delivered | Retry | Failed | Expired | Released


REJECTIONS = (
    "no_event_field",
    "invalid",
    "unknown_workspace",
    "conflict",
    "endpoint_full",
    "poisoned",
    "internal_error",
)
"""Reasons for rejecting a queue entry. Metrics start each at 0: Prometheus cannot see an increase on a series' first sample."""
