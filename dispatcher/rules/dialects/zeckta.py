"""Zeckta: `MESSAGE_*` events (developer.zeckta.com/messaging/webhooks).

The page documents one format for all events. Where it is silent, we chose: `segments`, `units`, `attempts`
and `cost` are numbers, left out if unknown; there are no headers except those of Standard Webhooks.
"""

from typing import Any

from dispatcher.fast_decode import Change
from dispatcher.model import Status
from dispatcher.rules.dialects import Signing, compact

LOOKED_UP_BY = ("campaign",)

EVENT_TYPES = {
    Status.SUBMITTED: "MESSAGE_SUBMITTED",
    Status.SENT: "MESSAGE_SENT",
    Status.DELIVERED: "MESSAGE_DELIVERED",
    Status.FAILED: "MESSAGE_FAILED",
    Status.UNDELIVERABLE: "MESSAGE_UNDELIVERABLE",
    Status.EXPIRED: "MESSAGE_EXPIRED",
    Status.REJECTED: "MESSAGE_REJECTED",
}
"""SCHEDULED, QUEUED, PROCESSING and BUFFERED are internal states; READ and UNKNOWN are not Zeckta's."""


def event_type(change: Change) -> str | None:
    """`MESSAGE_` and the status, for the seven statuses with a callback."""
    return EVENT_TYPES.get(change.status)


def body(change: Change, event_type: str, now_ms: int) -> dict[str, Any]:
    """The format of all Zeckta events."""
    message = change.message
    return {
        "eventId": change.event_id,
        "eventType": event_type,
        "timestamp": change.timestamp,
        "message": compact(
            {
                "uuid": message.uuid,
                "src": message.src,
                "dest": message.dest,
                "status": change.status.value,
                "segments": message.segments,
                "units": message.units,
                "attempts": message.attempts,
                "cost": message.cost,
            }
        ),
    }


def headers(signing: Signing) -> dict[str, str]:
    """None: Zeckta documents no headers of its own."""
    return {}
