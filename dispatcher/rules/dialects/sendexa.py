"""Sendexa: `sms.*` events, signed with `X-Signature`.

Events are those of developers.sendexa.co/sms/status. That page shows no payload, so the bodies follow the most
complete published `sms.*` ones (docs/sms/webhooks). Headers are those of developers.sendexa.co/webhooks. Where the
pages are silent, we chose: `sms.queued` looks like `sms.sent`; EXPIRED and REJECTED are sent as `sms.failed` with
their own status word; `sms.failed` always has an `error`, with the matching code of Sendexa's table if the backend
gave none; the timestamp keeps all its digits.

Sendexa's other pages document other formats. They are variants, `sendexa-<name>`, for customers who built on them:
`distinct` (`sms.expired` and `sms.rejected` are separate events), `plain` (developers.sendexa.co/webhooks: no event
key), `snake` and `short` (docs/core/webhooks, two versions) and `sdk` (the SDKs' `message.*` in an envelope); the
last three have the older pages' headers. Two are not offered: the product page's, which signs an undocumented
subset of its body, and the SMPP one, whose fields a status change does not have.
"""

from collections.abc import Callable
from hashlib import blake2s
from typing import Any

from dispatcher.fast_decode import Change
from dispatcher.model import Status, iso
from dispatcher.rules.dialects import Signing, Variant, compact
from dispatcher.signing import hmac_sha256

LOOKED_UP_BY = ()

_EVENTS = {
    Status.QUEUED: ("sms.queued", "queued"),
    Status.SENT: ("sms.sent", "sent"),
    Status.DELIVERED: ("sms.delivered", "delivered"),
    Status.FAILED: ("sms.failed", "failed"),
    Status.UNDELIVERABLE: ("sms.failed", "failed"),
    Status.EXPIRED: ("sms.failed", "expired"),
    Status.REJECTED: ("sms.failed", "rejected"),
}
"""The other statuses do not change Sendexa's projected status, so nothing is sent for them."""

DEFAULT_ERRORS = {
    Status.FAILED: {"code": "E002", "message": "Network temporarily unavailable"},
    Status.UNDELIVERABLE: {"code": "E001", "message": "Invalid destination number"},
    Status.EXPIRED: {"code": "E004", "message": "Message expired"},
    Status.REJECTED: {"code": "E001", "message": "Invalid destination number"},
}


def event_type(change: Change) -> str | None:
    """One of sms.queued, sms.sent, sms.delivered, sms.failed."""
    event = _EVENTS.get(change.status)
    return event and event[0]


def body(change: Change, event_type: str, now_ms: int) -> dict[str, Any]:
    """The flat format; the recipient's number has no `+`."""
    message = change.message
    delivered = change.status is Status.DELIVERED
    return compact(
        {
            "event": event_type,
            "messageId": message.uuid,
            "to": message.dest.removeprefix("+"),
            "from": message.src,
            "status": _EVENTS[change.status][1],
            "provider": message.network,
            "cost": message.cost if delivered else None,
            "currency": message.currency if delivered else None,
            "deliveredAt": change.timestamp if delivered else None,
            "error": _error(change) if event_type == "sms.failed" else None,
            "timestamp": change.timestamp,
        }
    )


def _error(change: Change) -> dict[str, Any]:
    if change.error is None:
        return DEFAULT_ERRORS[change.status]
    return compact({"code": change.error.code, "message": change.error.message})


def _distinct_event(change: Change) -> str | None:
    word = _EVENTS.get(change.status)
    return f"sms.{word[1]}" if word and word[1] in ("expired", "rejected") else event_type(change)


def _distinct(change: Change, event_type: str, now_ms: int) -> dict[str, Any]:
    return body(change, "sms.failed" if change.status in DEFAULT_ERRORS else event_type, now_ms) | {
        "event": event_type
    }


def _plain(change: Change, event_type: str, now_ms: int) -> dict[str, Any]:
    """Format B: flat, upper case; `providerStatus` is the provider's word, or ours if there is none."""
    message, status = change.message, _EVENTS[change.status][1].upper()
    said = (message.provider or {}).get("status")
    return compact(
        {
            "messageId": message.uuid,
            "recipient": message.dest.removeprefix("+"),
            "status": status,
            "cost": message.cost,
            "providerStatus": said if isinstance(said, str) else status,
        }
    )


def _snake(change: Change, event_type: str, now_ms: int) -> dict[str, Any]:
    """Format E: flat snake_case; the number keeps its `+`."""
    message = change.message
    error = _error(change) if event_type == "sms.failed" else {}
    return compact(
        {
            "event": event_type,
            "message_id": message.uuid,
            "to": message.dest,
            "sender_id": message.src,
            "provider": message.network,
            "status": _EVENTS[change.status][1].upper(),
            "error_code": error.get("code"),
            "error_message": error.get("message"),
            "timestamp": change.timestamp,
        }
    )


def _short(change: Change, event_type: str, now_ms: int) -> dict[str, Any]:
    """Format F: one event for all statuses."""
    return {
        "event": event_type,
        "message_id": change.message.uuid,
        "status": _EVENTS[change.status][1],
        "recipient": change.message.dest,
        "timestamp": change.timestamp,
    }


def _sdk(change: Change, event_type: str, now_ms: int) -> dict[str, Any]:
    """Format G: the default fields in `data`; no page documents the version, so it is 1."""
    data = body(change, event_type.replace("message.", "sms."), now_ms)
    del data["event"], data["timestamp"]
    return {"event": event_type, "data": data, "timestamp": change.timestamp, "version": "1"}


def _without_queued(prefix: str) -> Callable[[Change], str | None]:
    """Events sent, delivered and failed with a prefix."""
    names = {status: event.partition(".")[2] for status, (event, _) in _EVENTS.items()}
    del names[Status.QUEUED]
    return lambda change: f"{prefix}.{names[change.status]}" if change.status in names else None


def headers(signing: Signing) -> dict[str, str]:
    """`X-Signature` over the raw body, keyed with the secret's text as in Sendexa's SDKs.

    The header has room for one signature: the oldest live secret's, so that receivers keep working until they
    have the new secret.
    """
    digest = hmac_sha256(signing.secrets[0].encode(), signing.body).hex()
    return {
        "X-Signature": f"sha256={digest}",
        "X-Signature-Version": "1",
        "X-Webhook-ID": signing.event_id,
        "X-Timestamp": iso(signing.timestamp * 1000),
        "X-Attempt": str(signing.attempt),
    }


def older_headers(signing: Signing) -> dict[str, str]:
    """The older pages' headers: the same signature under other names; delivery id and attempt on retries only."""
    digest = hmac_sha256(signing.secrets[0].encode(), signing.body).hex()
    again = {
        "X-Sendexa-Delivery-ID": f"del_{blake2s(signing.event_id.encode(), digest_size=8).hexdigest()}",
        "X-Sendexa-Delivery-Attempt": str(signing.attempt),
    }
    return {"X-Sendexa-Signature": digest} | (again if signing.attempt > 1 else {})


def _delivery(change: Change) -> str | None:
    return "sms.delivery" if change.status in _EVENTS else None


VARIANTS = {
    "distinct": Variant(_distinct_event, _distinct, headers),
    "plain": Variant(event_type, _plain, headers),
    "snake": Variant(_without_queued("sms"), _snake, older_headers),
    "short": Variant(_delivery, _short, older_headers),
    "sdk": Variant(_without_queued("message"), _sdk, older_headers),
}
