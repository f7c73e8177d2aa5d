"""Namirial SMS: `STATUS_UPDATE` notifications (docs.namirial.app, wb-how; the message object is the query API's).

Where the page is silent, we chose: `createdAt` is when the status change was accepted, so that every attempt
sends the same bytes; without a `webhookConfigurationId` from the backend one is derived from the message, because
Namirial has one for each message; `sms` appears for channel SMS only; unknown fields are left out (`reference` is
`{}` then, as documented). BUFFERED stays SENT, so it causes no notification; EXPIRED becomes UNDELIVERED.
"""

import uuid
from typing import Any

from dispatcher.fast_decode import Change
from dispatcher.model import Status, iso_seconds, timestamp_ms
from dispatcher.rules.dialects import Signing, compact

LOOKED_UP_BY = ("phone", "reference")

STATUSES = {
    Status.SENT: "SENT",
    Status.DELIVERED: "DELIVERED",
    Status.READ: "READ",
    Status.FAILED: "UNDELIVERED",
    Status.UNDELIVERABLE: "UNDELIVERED",
    Status.EXPIRED: "UNDELIVERED",
    Status.REJECTED: "REJECTED",
}
"""Statuses that cause a notification: all after PROVIDER_ACCEPTANCE (SUBMITTED)."""


def event_type(change: Change) -> str | None:
    """Always STATUS_UPDATE; READ is for RCS only."""
    if change.status not in STATUSES or (change.status is Status.READ and change.message.channel != "RCS"):
        return None
    return "STATUS_UPDATE"


def body(change: Change, event_type: str, now_ms: int) -> dict[str, Any]:
    """The notification with the message object."""
    message = change.message
    return {
        "id": change.event_id,
        "webhookConfigurationId": message.webhook_configuration_id or _configuration(change),
        "type": event_type,
        "createdAt": iso_seconds(now_ms),
        "message": compact(
            {
                "id": message.uuid,
                "providerAcceptanceAt": message.accepted_at
                and iso_seconds(timestamp_ms(message.accepted_at)),
                "statusChangedAt": iso_seconds(timestamp_ms(change.timestamp)),
                "reference": message.reference or {},
                "channel": message.channel,
                "status": STATUSES[change.status],
                "provider": _provider(change),
                "sms": {"segments": message.segments} if _has_segments(change) else None,
            }
        ),
    }


def headers(signing: Signing) -> dict[str, str]:
    """None: the only documented authentication type is NONE."""
    return {}


def _configuration(change: Change) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{change.workspace}\n{change.message.uuid}"))


def _provider(change: Change) -> dict[str, Any] | None:
    """The backend's provider object, with the error's code and message where it has none of its own."""
    error = change.error
    known = compact({"code": error.code, "message": error.message}) if error else {}
    return known | (change.message.provider or {}) or None


def _has_segments(change: Change) -> bool:
    return change.message.channel == "SMS" and change.message.segments is not None
