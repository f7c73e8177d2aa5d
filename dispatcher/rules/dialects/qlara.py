"""Agile Telecom Qlara: `DELIVERY` and `READ` (agiletelecom.com/documentation/qlara/guides/webhooks).

The guide's fields, plus `numPart` and `totalParts` for a part of a long message (the SMS Universal page documents
one callback for each). Only two status codes are published: 3 delivered, 6 not delivered. Where the pages are
silent, we chose: EXPIRED and REJECTED are 6; SENT and earlier statuses have no code and cause no callback;
`description` is the error's message if there is one; timestamps have whole seconds, as in the samples.
"""

from typing import Any

from dispatcher.fast_decode import Change
from dispatcher.model import Status, iso_seconds, timestamp_ms
from dispatcher.rules.dialects import Signing, compact

LOOKED_UP_BY = ("customer", "time")

CODES = {
    Status.DELIVERED: (3, "Message delivered"),
    Status.FAILED: (6, "Message not delivered"),
    Status.UNDELIVERABLE: (6, "Message not deliverable"),
    Status.EXPIRED: (6, "Message expired"),
    Status.REJECTED: (6, "Message rejected"),
}
READ_CHANNELS = ("RCS", "WHATSAPP")


def event_type(change: Change) -> str | None:
    """DELIVERY for a final status; READ on RCS and WhatsApp."""
    if change.status is Status.READ:
        return "READ" if change.message.channel in READ_CHANNELS else None
    return "DELIVERY" if change.status in CODES else None


def body(change: Change, event_type: str, now_ms: int) -> dict[str, Any]:
    """The guide's flat format; READ has no code and no customerMessageId."""
    message = change.message
    code, text = CODES.get(change.status, (None, None))
    return compact(
        {
            "eventType": event_type,
            "messageId": message.uuid,
            "customerMessageId": message.customer_message_id if code else None,
            "destination": message.dest,
            "statusCode": code,
            "description": (change.error and change.error.message) or text if code else None,
            "channel": message.channel,
            "numPart": message.part if code else None,
            "totalParts": message.total_parts if code and message.part is not None else None,
            "timestamp": iso_seconds(timestamp_ms(change.timestamp)),
        }
    )


def headers(signing: Signing) -> dict[str, str]:
    """None: Qlara documents no headers of its own."""
    return {}
