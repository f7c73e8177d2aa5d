"""The words for why an attempt failed, and what each means for its callback and its endpoint."""

ABORTED, DISABLED = "aborted", "disabled"
AUTH = "auth"

ERRORS = {
    "dns": "the name has no address, or its name servers do not answer",
    "connect": "refused, no route, or closed before anything was sent",
    "proxy": "the egress proxy would not, or could not, connect",
    "tls_expired": "the certificate is not valid at this time",
    "tls_name": "the certificate is another name's",
    "tls_untrusted": "no authority that is trusted here signed the certificate",
    "tls_handshake": "TLS could not be set up, or an alert came in place of an answer",
    "timeout": "not over within DISPATCHER_REQUEST_TIMEOUT_SECONDS, look-up and handshake included",
    "maybe_received": "the connection broke after the request was sent, before the answer's head was whole",
    "protocol": "the answer is not HTTP/1, or its head is too long",
    AUTH: "we could not prove who we are: the token server gives no token, or the client certificate has ended",
    "blocked_address": "the address is not public and not allowed, or http:// is not",
    "worker_lost": "the worker died, or stalled longer than its lease; a POST may have been made",
    "body_missing": "the body is gone from Redis",
    "not_rendered": "its subscription's URL or dialect could not be read when it was accepted, so it has no body",
    "workspace_removed": "the workspace is gone",
    "subscription_removed": "the subscription is gone",
    "subscription_disabled": "the subscription is disabled; `dispatcher subscription show` says why",
    ABORTED: "the receiver answered `webhook-delivery: abort`: it never wants this callback",
    DISABLED: "the receiver answered `webhook-delivery: disable`: it wants no callback any more",
    "endpoint_full": "no POST was made: MAX_WAITING_PER_ENDPOINT callbacks waited for one of several subscriptions",
    "internal_error": "a fault of ours: it is logged, no attempt is counted, and the callback goes back to its lane",
}
"""All error words of an attempt, with their meaning. Answers other than 2xx have `http_NNN` instead.

`internal_error` is a word of logs, metrics and commands alone: `Attempt` has a field for it, and no `error` then.
"""

DOWN_ERRORS = frozenset({"dns", "connect", "proxy", "timeout", "maybe_received", AUTH})
"""Errors without an answer of the endpoint. Like `tls_*`, 429 and every 5xx they mean that the endpoint is down or overloaded."""

DELIVERY_CONTROLS = {"abort": ABORTED, "disable": DISABLED}
"""The error of an answer other than 2xx whose header `webhook-delivery` has this word."""

_NOT_SENT = frozenset(
    {
        "blocked_address",
        "workspace_removed",
        "subscription_removed",
        "subscription_disabled",
        "body_missing",
        "not_rendered",
    }
)
FINAL_ERRORS = _NOT_SENT | frozenset(DELIVERY_CONTROLS.values())
"""Errors that another attempt cannot fix."""

SAYS_NOTHING = _NOT_SENT | {"worker_lost"}
"""Errors that say nothing about the endpoint's health."""

NOT_ASKED = frozenset({"proxy", AUTH})
"""Errors by which the receiver was not asked, so no failures of its own: they disable no subscription (lua/lib/breaker.lua)."""

EXPLAINED = ("blocked_address", "tls_", "proxy", "protocol", "maybe_received", AUTH)
"""Errors whose text the ledger keeps, in place of an answer.

Not `dns`, `connect` and `timeout`: the word says nearly all, an outage causes very many, and the log has the text.
"""


def is_explained(error: str | None) -> bool:
    """Whether what is kept of such an attempt in place of an answer is a text of ours, which may name settings and addresses."""
    return bool(error) and str(error).startswith(EXPLAINED)
