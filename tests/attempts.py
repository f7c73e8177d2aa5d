"""Attempts as workers publish them, for `dispatcher tail` and the console's live page."""

from typing import Any


def attempted(**fields: Any) -> dict[str, Any]:
    """One that failed, but for what is given."""
    return {
        "at": "2026-06-09T13:04:57.000Z",
        "workspace": "acme",
        "subscription": "default",
        "endpoint": "https://example.com:443",
        "eventId": "evt_live",
        "messageId": "m1",
        "eventType": "MESSAGE_SENT",
        "attempt": 1,
        "httpStatus": 500,
        "error": "http_500",
        "durationMs": 12,
        "outcome": "failed",
        **fields,
    }
