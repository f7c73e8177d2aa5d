"""Decodes a valid status change in a third of pydantic's time: msgspec checks types, lengths and patterns as it decodes.

It never says what is wrong: what it does not take is read by pydantic, whose word counts and who has the error texts.
Workers read every status change with it, and the HTTP intake those that it is sent (docs/decisions/pydantic.md has the figures).
"""

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import force_setattr

from dispatcher.codec import timestamp_ns
from dispatcher.model import (
    EVENT_ID_PATTERN,
    LONGEST_TTL_SECONDS,
    MAX_ENTRY_BYTES,
    MESSAGE_UUID_PATTERN,
    WORKSPACE_PATTERN,
    Status,
    StatusChange,
    derived_event_id,
    digest_of,
)
from dispatcher.values import (
    CHANNELS,
    MAX_COUNT,
    TRACEPARENT_PATTERN,
    TRACESTATE_PATTERN,
    checked_cost,
    checked_trace,
    is_deep,
    known_channel,
)


def _matching(pattern: str) -> Meta:
    """Text that matches one of our patterns: in Python's, unlike in pydantic's, `$` also matches before a last newline."""
    return Meta(pattern=pattern.removesuffix("$") + r"\Z")


Text = Annotated[str, Meta(min_length=1, max_length=256)]
if TYPE_CHECKING:
    EventId = str  # it is always set after decoding
else:
    EventId = Annotated[str, _matching(EVENT_ID_PATTERN)] | None
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]


class _Strict(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """The fields of a model, in its order."""


class DecodedMessage(_Strict, frozen=True):
    """What is handled as a Message."""

    uuid: Annotated[str, _matching(MESSAGE_UUID_PATTERN)]
    src: Text
    dest: Text
    channel: Text = "SMS"
    segments: Count | None = None
    units: Count | None = None
    attempts: Count | None = None
    cost: Decimal | None = None
    currency: Text | None = None
    campaign_id: Text | None = None
    customer_message_id: Text | None = None
    network: Text | None = None
    part: Count | None = None
    total_parts: Count | None = None
    accepted_at: str | None = None
    webhook_configuration_id: Text | None = None
    reference: dict[str, Any] | None = None
    provider: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """What msgspec cannot check. Raises ValueError."""
        if self.channel not in CHANNELS:
            force_setattr(self, "channel", known_channel(self.channel))
        if self.cost is not None:
            checked_cost(self.cost)
        if self.accepted_at is not None:
            timestamp_ns(self.accepted_at)
        if (self.reference and is_deep(self.reference)) or (self.provider and is_deep(self.provider)):
            raise ValueError("nested too deeply")


class DecodedError(_Strict, frozen=True):
    """What is handled as a MessageError."""

    code: Text
    message: Annotated[str, Meta(max_length=1024)] | None = None


class DecodedChange(_Strict, frozen=True, kw_only=True):
    """What is handled as a StatusChange."""

    event_id: EventId = ""
    workspace: Annotated[str, _matching(WORKSPACE_PATTERN)]
    status: Status
    timestamp: str
    callback_url: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    ttl_seconds: Annotated[int, Meta(ge=1, le=LONGEST_TTL_SECONDS)] | None = None
    message: DecodedMessage
    error: DecodedError | None = None
    traceparent: Annotated[str, _matching(TRACEPARENT_PATTERN)] | None = None
    tracestate: Annotated[str, _matching(TRACESTATE_PATTERN)] | None = None

    def __post_init__(self) -> None:
        """What msgspec cannot check. Raises ValueError."""
        timestamp_ns(self.timestamp)
        if self.traceparent:
            checked_trace(self.traceparent)
        elif self.tracestate:
            raise ValueError("tracestate: needs a traceparent")
        if not self.event_id:
            force_setattr(self, "event_id", derived_event_id(self))

    def __repr__(self) -> str:
        return f"DecodedChange({self.workspace!r}, {self.event_id!r})"  # a callback URL may contain secrets

    def digest(self) -> str:
        """As `StatusChange.digest`."""
        return digest_of(self)


Change = StatusChange | DecodedChange
"""A status change as it is handled."""

_decode = msgspec.json.Decoder(DecodedChange, float_hook=Decimal).decode


def status_change(raw: bytes) -> Change:
    """The status change in some JSON. Raises InvalidInput as `StatusChange.from_json` does."""
    try:
        if len(raw) <= MAX_ENTRY_BYTES:
            return _decode(raw)
    except (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError):
        pass
    return StatusChange.from_json(raw)
