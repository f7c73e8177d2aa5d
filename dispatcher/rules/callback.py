"""What is sent: a callback."""

import msgspec

from dispatcher.model import Status


class Callback(msgspec.Struct, frozen=True):
    """What a status change becomes for one customer: fixed at acceptance, sent as it is."""

    workspace: str
    event_id: str
    event_type: str
    status: Status
    message_uuid: str
    url: str
    endpoint: str
    """Name of the endpoint: workspace, space, scheme://host:port."""
    body: bytes
    digest: str
    timestamp_ns: int
    ttl_ms: int
    to_delivered_ms: int | None = None
    """How long the message took to its recipient, where this status change says so."""

    def __repr__(self) -> str:
        return f"Callback({self.workspace!r}, {self.event_id!r})"  # a URL and a body may hold secrets


class Claimed(msgspec.Struct, frozen=True):
    """A callback in this worker's hands until its lease ends."""

    event_id: str
    claim: int
    """The fencing token: how many times this callback was claimed."""
    attempt: int
    expires_ms: int
    event_type: str
    status: Status
    message_uuid: str
    url: str
    body: bytes | None
    """None if it is gone from Redis."""
    accepted_ms: int = 0
    """0: it was replayed, and how long it took says nothing."""

    def __repr__(self) -> str:
        return f"Claimed({self.event_id!r}, claim={self.claim}, attempt={self.attempt})"
