"""Sendexa: `sms.*` events, signed with `X-Signature`.

Events are those of developers.sendexa.co/sms/status; its page shows no payload, so the shapes are
the fullest published `sms.*` ones (docs/sms/webhooks). Headers are those of
developers.sendexa.co/webhooks. What they leave open, and what we chose: `sms.queued` looks like
`sms.sent`; EXPIRED and REJECTED go out as `sms.failed` with their own status word; `error` is always
there on `sms.failed`, with the code of Sendexa's table that fits the status when the backend gave
none; the timestamp passes through with all its digits.
"""

import hmac
from typing import Any

from dispatcher.dialects import Signing, compact
from dispatcher.model import Status, StatusChange, iso

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
"""The other statuses leave Sendexa's projected status as it was, so nothing is sent."""

DEFAULT_ERRORS = {
    Status.FAILED: {"code": "E002", "message": "Network temporarily unavailable"},
    Status.UNDELIVERABLE: {"code": "E001", "message": "Invalid destination number"},
    Status.EXPIRED: {"code": "E004", "message": "Message expired"},
    Status.REJECTED: {"code": "E001", "message": "Invalid destination number"},
}


def event_type(change: StatusChange) -> str | None:
    """One of sms.queued, sms.sent, sms.delivered, sms.failed."""
    event = _EVENTS.get(change.status)
    return event and event[0]


def body(change: StatusChange, event_type: str, now_ms: int) -> dict[str, Any]:
    """The flat shape with the recipient's number without `+`."""
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


def _error(change: StatusChange) -> dict[str, Any]:
    if change.error is None:
        return DEFAULT_ERRORS[change.status]
    return compact({"code": change.error.code, "message": change.error.message})


def headers(signing: Signing) -> dict[str, str]:
    """`X-Signature` over the raw body, keyed with the secret's text as Sendexa's SDKs do.

    The header holds one value: the oldest live secret's, so that receivers keep working while a
    new secret is handed out.
    """
    digest = hmac.new(signing.secrets[0].encode(), signing.body, "sha256").hexdigest()
    return {
        "X-Signature": f"sha256={digest}",
        "X-Signature-Version": "1",
        "X-Webhook-ID": signing.event_id,
        "X-Timestamp": iso(signing.timestamp * 1000),
        "X-Attempt": str(signing.attempt),
    }
