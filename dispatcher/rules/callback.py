"""A callback, when it is accepted and when a worker has claimed it."""

import msgspec

from dispatcher.model import Status


class Callback(msgspec.Struct, frozen=True):
    """A status change as one customer's callback: fixed at acceptance and sent unchanged."""

    workspace: str
    event_id: str
    """The status change's; for a subscription beside the default one, `eventId.subscription`."""
    event_type: str
    status: Status
    message_uuid: str
    url: str
    endpoint: str
    """The endpoint's name as text (EndpointName); empty: there is no POST, this stands for the status change."""
    body: bytes
    digest: str
    timestamp_ns: int
    ttl_ms: int
    to_delivered_ms: int | None = None
    """Time from submission to delivery, if the status change contains it."""
    trace: tuple[str, ...] = ()
    """The status change's traceparent, and its tracestate if there is one."""

    def __repr__(self) -> str:
        return f"Callback({self.workspace!r}, {self.event_id!r})"  # URL and body may contain secrets


class Claimed(msgspec.Struct, frozen=True):
    """A callback leased to this worker."""

    event_id: str
    """As in Callback."""
    claim: int
    """The fencing token: how many times this callback was claimed."""
    attempt: int
    expires_ms: int
    event_type: str
    status: Status
    message_uuid: str
    url: str
    body: bytes | None
    """None if Redis no longer has it."""
    accepted_ms: int = 0
    """0 for a replayed callback, whose delivery time is meaningless."""
    trace: tuple[str, ...] = ()
    """As in Callback."""
    first_accepted_ms: int = 0
    """When it was accepted, before any replay of itself; 0: unknown."""

    def __repr__(self) -> str:
        return f"Claimed({self.event_id!r}, claim={self.claim}, attempt={self.attempt})"
