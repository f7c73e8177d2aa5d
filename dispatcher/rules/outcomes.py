"""The result of an attempt and what happens next, as frozen values: callers match them, nothing is raised."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class State(StrEnum):
    """States of a callback in the ledger; the last four are final."""

    PENDING = "pending"
    SENDING = "sending"
    RETRYING = "retrying"
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


ERRORS = {
    "dns": "the name has no address, or its name servers do not answer",
    "connect": "refused, no route, or closed before anything was sent",
    "proxy": "the egress proxy would not, or could not, connect",
    "tls_expired": "the certificate is not valid at this time",
    "tls_name": "the certificate is another name's",
    "tls_untrusted": "no authority that is trusted here signed the certificate",
    "tls_handshake": "TLS could not be set up, or an alert came in place of an answer",
    "timeout": "not over within REQUEST_TIMEOUT_SECONDS, look-up and handshake included",
    "maybe_received": "the connection broke after the request was sent, before the answer's head was whole",
    "protocol": "the answer is not HTTP/1, or its head is too long",
    "blocked_address": "the address is not public and not allowed",
    "worker_lost": "the worker died, or stalled longer than its lease; a POST may have been made",
    "body_missing": "the body is gone from Redis",
    "workspace_removed": "the workspace is gone",
    "internal_error": "a fault of ours: it is logged, no attempt is counted, and the callback goes back to its lane",
}
"""All error words of an attempt, with their meaning. Answers other than 2xx have `http_NNN` instead."""

DOWN_ERRORS = frozenset({"dns", "connect", "proxy", "timeout", "maybe_received"})
"""Errors without an answer. Like `tls_*`, 429 and every 5xx they mean that the endpoint is down or overloaded."""

ENDS = frozenset({State.DELIVERED, State.FAILED, State.EXPIRED, State.SUPERSEDED})


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

    `http_status` is set once the head of an answer was read; `error` is a word from ERRORS or `http_NNN`,
    None after a 2xx. Both are None if no POST was made (`internal_error`).
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
