"""What one attempt brought, and what happens next: frozen values that are matched, never raised."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class State(StrEnum):
    """States of a callback in the ledger; the last four are ends."""

    PENDING = "pending"
    SENDING = "sending"
    RETRYING = "retrying"
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


ERRORS = {
    "dns": "the name has no address, or its servers do not answer",
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
"""Everything an attempt can say beside `http_NNN`: the status of an answer that is no 2xx."""

DOWN_ERRORS = frozenset({"dns", "connect", "proxy", "timeout", "maybe_received"})
"""Errors where nothing came back. They say that the endpoint is down or overloaded; so do `tls_*`, 429 and every 5xx."""

ENDS = frozenset({State.DELIVERED, State.FAILED, State.EXPIRED, State.SUPERSEDED})


class News(StrEnum):
    """What a result says about its endpoint: window and breaker go by it."""

    UP = "up"
    """It took a callback."""
    ANSWERED = "answered"
    """It is there, but did not take this one."""
    DOWN = "down"
    """It is down or overloaded."""
    NONE = "none"
    """Nothing."""


class Attempt(msgspec.Struct, frozen=True):
    """One POST and what came back.

    `http_status` is that of an answer whose head was read; `error` is a word from a closed list
    (docs/architecture.md), None after a 2xx. Both are None when no POST was made (`own_fault`).
    """

    started_at_ms: int
    duration_ms: int
    http_status: int | None = None
    error: str | None = None
    retry_after_ms: int | None = None
    answer: bytes = b""
    detail: str = ""
    """The same in words, where there was no answer: for the log, and for what people can mend."""
    own_fault: str | None = None
    """Our own mistake or lack of resources, in words; the customer is not charged an attempt."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A 2xx was read."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt after `delay_ms`."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class Failed:
    """No further attempt: all used up, or the receiver (410) or a rule of ours said so."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The next attempt would fall behind the callback's expiry."""


@dataclass(frozen=True, slots=True)
class Released:
    """Back to the lane after `delay_ms`, without an attempt being counted."""

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
"""Why an entry can be rejected. Counters start with all their words at 0: an increase from nothing is none."""
