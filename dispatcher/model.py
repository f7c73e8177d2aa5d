"""The status change: what backends enqueue."""

import dataclasses
import math
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2s, sha1
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from dispatcher.codec import decode_json as decode_json
from dispatcher.codec import encode_canonical
from dispatcher.codec import encode_json as encode_json
from dispatcher.codec import is_time as is_time
from dispatcher.codec import iso as iso
from dispatcher.codec import iso_seconds as iso_seconds
from dispatcher.codec import timestamp_ms as timestamp_ms
from dispatcher.codec import timestamp_ns as timestamp_ns
from dispatcher.errors import InvalidInput, kind_of
from dispatcher.records import Record, build, checked, describe
from dispatcher.values import (
    MAX_COUNT,
    MAX_DEPTH,
    Allowed,
    Channel,
    Cost,
    Free,
    Timestamp,
    Traceparent,
    Tracestate,
    characters,
    is_deep,
    matching,
    whole_number,
)

MAX_ENTRY_BYTES = 64 * 1024
"""Size limit of a status change as JSON."""

MAX_AHEAD_MS = 3_600_000
"""How far a timestamp may lie in the future: clocks differ."""

LONGEST_TTL_SECONDS = 604_800
"""The longest ttlSeconds of a status change."""

LONGEST_GRACE_SECONDS = 2_592_000
"""For how long, at most, a secret goes on signing beside the one that replaced it."""

HOURS_SHOWN = 48
"""Hours from which on an error text counts days."""

WORKSPACE_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
EVENT_ID_PATTERN = r"^[A-Za-z0-9_-]{1,128}$"
MESSAGE_UUID_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"


FREE = ("reference", "provider")
"""The fields of a message that hold any JSON object."""


class Status(StrEnum):
    """The canonical statuses. Each platform's statuses are a projection of them."""

    SCHEDULED = "SCHEDULED"
    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    SUBMITTED = "SUBMITTED"
    BUFFERED = "BUFFERED"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    READ = "READ"
    FAILED = "FAILED"
    UNDELIVERABLE = "UNDELIVERABLE"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"
    UNKNOWN = "UNKNOWN"


LETTERS = {
    Status.UNKNOWN: "u",
    Status.SCHEDULED: "c",
    Status.QUEUED: "q",
    Status.PROCESSING: "p",
    Status.SUBMITTED: "m",
    Status.SENT: "s",
    Status.BUFFERED: "b",
    Status.DELIVERED: "d",
    Status.FAILED: "f",
    Status.UNDELIVERABLE: "n",
    Status.EXPIRED: "e",
    Status.REJECTED: "j",
    Status.READ: "r",
}
"""The letter that stands for a status in Redis."""
BY_LETTER = {letter: status for status, letter in LETTERS.items()}


OneStatus = Annotated[Status, Allowed(f"must be one of {', '.join(Status)}")]
Workspace = Annotated[str, matching(WORKSPACE_PATTERN, "1 to 64 letters, digits, _ or -")]
MessageUuid = Annotated[str, matching(MESSAGE_UUID_PATTERN, "1 to 64 letters, digits, dots, _ or -")]
_EVENT_ID = matching(EVENT_ID_PATTERN, "1 to 128 letters, digits, _ or -; left out, one is derived")
if TYPE_CHECKING:
    EventId = str  # it is always set after validation
else:
    EventId = Annotated[str, _EVENT_ID] | None
Text = Annotated[str, characters(1, 256)]
Count = Annotated[int, whole_number(0, MAX_COUNT)]


class Message(Record, frozen=True):
    """The message a status change is about.

    uuid: its id, 1 to 64 letters, digits, dots, _ or -
    src, dest: sender and recipient, 1 to 256 characters each
    channel: SMS (if left out), RCS, WHATSAPP, in any case, or another text
    segments, units, attempts: how many there were, 0 to 1,000,000
    cost: in `currency`, kept digit for digit: "0.10" stays 0.10; 0 to below
        10 to the 12th, with at most 12 decimals
    currency: such as GHS
    campaign_id, customer_message_id: the customer's own ids
    network: the recipient's
    part, total_parts: which part of a long message this is, and of how many
    accepted_at: when the platform took the message; a datetime with a zone,
        or ISO 8601 with one
    webhook_configuration_id: what Namirial's callbacks name
    reference, provider: any JSON object, at most 32 levels deep

    Fields that a platform's callback does not have are not sent. Raises
    InvalidInput, which names each invalid field.
    """

    uuid: MessageUuid
    src: Text
    dest: Text
    channel: Channel = "SMS"
    segments: Count | None = None
    units: Count | None = None
    attempts: Count | None = None
    cost: Cost | None = None
    currency: Text | None = None
    campaign_id: Text | None = None
    customer_message_id: Text | None = None
    network: Text | None = None
    part: Count | None = None
    total_parts: Count | None = None
    accepted_at: Timestamp | None = None
    webhook_configuration_id: Text | None = None
    reference: Free | None = None
    provider: Free | None = None

    @checked
    def __init__(
        self,
        *,
        uuid: str,
        src: str,
        dest: str,
        channel: str = "SMS",
        segments: int | None = None,
        units: int | None = None,
        attempts: int | None = None,
        cost: Decimal | str | int | float | None = None,
        currency: str | None = None,
        campaign_id: str | None = None,
        customer_message_id: str | None = None,
        network: str | None = None,
        part: int | None = None,
        total_parts: int | None = None,
        accepted_at: datetime | str | None = None,
        webhook_configuration_id: str | None = None,
        reference: Mapping[str, Any] | None = None,
        provider: Mapping[str, Any] | None = None,
    ) -> None: ...


class MessageError(Record, frozen=True):
    """Why a message failed, in the platform's own words.

    code: the platform's code, 1 to 256 characters
    message: its text, up to 1,024 characters

    Raises InvalidInput, which names each invalid field.
    """

    code: Text
    message: Annotated[str, characters(0, 1024)] | None = None

    @checked
    def __init__(self, *, code: str, message: str | None = None) -> None: ...


class StatusChange(Record, frozen=True):
    """One status change of one message: what backends enqueue.

    workspace: whose message it is
    status: a Status, or its name: "DELIVERED"
    timestamp: when it happened; a datetime with a zone, or ISO 8601 with one
        and up to 9 fractional digits. The attribute is text
    message: the Message
    event_id: 1 to 128 letters, digits, _ or -; each is accepted once. Left
        out, it is derived from workspace, message, part, status and timestamp
    callback_url: where this callback goes, if not to the workspace's URL
    ttl_seconds: age at which the callback expires, 1 to 604,800 s;
        48 hours if left out
    error: why the message failed, a MessageError
    traceparent, tracestate: of the trace that this is part of, as in W3C
        Trace Context; headers of the callback. tracestate needs a traceparent

    In JSON the names are camelCase: see `from_json`. Raises InvalidInput,
    which names each invalid field.
    """

    event_id: EventId = Field(default_factory=str)
    workspace: Workspace
    status: OneStatus
    timestamp: Timestamp
    callback_url: Annotated[str, characters(1, 2048)] | None = Field(None, repr=False)
    ttl_seconds: Annotated[int, whole_number(1, LONGEST_TTL_SECONDS)] | None = None
    message: Message
    error: MessageError | None = None
    traceparent: Traceparent | None = None
    tracestate: Tracestate | None = None

    @checked
    def __init__(
        self,
        *,
        workspace: str,
        status: Status | str,
        timestamp: datetime | str,
        message: Message | Mapping[str, Any],
        event_id: str | None = None,
        callback_url: str | None = None,
        ttl_seconds: int | None = None,
        error: MessageError | Mapping[str, Any] | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
    ) -> None: ...

    @classmethod
    def from_json(cls, raw: bytes | str) -> Self:
        """Parses one status change with camelCase names. Raises InvalidInput, which names each invalid field."""
        if not isinstance(raw, bytes | str | bytearray | memoryview):
            raise InvalidInput(
                f"{kind_of(raw)}: from_json takes JSON as bytes or text; from_dict takes a dict"
            )
        raw = raw.encode(errors="surrogatepass") if isinstance(raw, str) else bytes(raw)
        if len(raw) > MAX_ENTRY_BYTES:
            raise InvalidInput(f"is {len(raw):,} bytes long; the limit is {MAX_ENTRY_BYTES:,}")
        return cls.from_dict(decode_json(raw))

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """Validates decoded JSON. Raises InvalidInput."""
        if type(value) is not dict and not isinstance(value, Mapping):
            raise InvalidInput("must be a JSON object")
        if not cls.__pydantic_complete__:
            build(cls)
        try:
            return cls.model_validate(value, by_alias=True, by_name=False)
        except ValidationError as error:
            raise InvalidInput(describe(error, cls, in_json=True)) from None

    def to_json(self) -> bytes:
        """The bytes to enqueue. Raises InvalidInput if they are too long or cannot be written as JSON."""
        _refuse_deep(self.message.__dict__)  # these are mutable, and may have changed since validation
        try:
            written = self.model_dump(by_alias=True, exclude_none=True)
            raw = encode_json(written)
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise InvalidInput(f"cannot be written as JSON: {error}") from None
        if own := sorted(written.keys() - _NAMES):
            raise InvalidInput(
                f"a {type(self).__name__} has fields of its own ({', '.join(own)}), which no worker knows: what is of use to you "
                "alone may go into message.reference"
            )
        has_objects = _refuse_what_json_lacks([written["message"].get(name) for name in FREE])
        if len(raw) > MAX_ENTRY_BYTES:
            raise InvalidInput(f"is {len(raw):,} bytes long as JSON; the limit is {MAX_ENTRY_BYTES:,}")
        _refuse_deep(decode_json(raw)["message"] if has_objects else written["message"])
        return raw

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed. Raises InvalidInput.

        A derived eventId is derived again.
        """
        derived = "event_id" not in changes and self.event_id == derived_event_id(self)
        return super().replace(**({"event_id": None} if derived else {}) | changes)

    def digest(self) -> str:
        """A digest of the canonical form, 16 characters: tells two status changes with the same eventId apart.

        Their traces do not: a backend that enqueues one again does it within another span.
        """
        return digest_of(self)

    @model_validator(mode="after")
    def _derive_event_id(self) -> Self:
        if self.tracestate and not self.traceparent:
            raise ValueError("tracestate: needs a traceparent")
        if not self.event_id:
            object.__setattr__(self, "event_id", derived_event_id(self))
        return self


def derived_event_id(change: Any) -> str:
    """The eventId of a status change that came without one."""
    message = change.message
    part = "" if message.part is None else str(message.part)
    return _uuid5_url(
        "\n".join((change.workspace, message.uuid, part, change.status.value, change.timestamp))
    )


_NAMESPACE_URL = bytes.fromhex("6ba7b8119dad11d180b400c04fd430c8")


def _uuid5_url(name: str) -> str:
    """Same as uuid.uuid5(uuid.NAMESPACE_URL, name) in a third of the time; intake derives one for most status changes."""
    raw = bytearray(sha1(_NAMESPACE_URL + name.encode(), usedforsecurity=False).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x50  # the version
    raw[8] = raw[8] & 0x3F | 0x80  # the variant
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_values_of_message = attrgetter(*Message.model_fields)
_values_of_error = attrgetter(*MessageError.model_fields)
_NOT_COMPARED = ("message", "error", "traceparent", "tracestate")
_values_of_change = attrgetter(*(name for name in StatusChange.model_fields if name not in _NOT_COMPARED))


def digest_of(change: Any) -> str:
    """Computes `StatusChange.digest`.

    Format 1 kept only the first 8 characters; the other 8 are from a second hash of the same length.
    """
    error = _values_of_error(change.error) if change.error else None
    canonical = encode_canonical((_values_of_change(change), _values_of_message(change.message), error))
    short, long = blake2s(canonical, digest_size=6), blake2s(canonical, digest_size=16)
    return urlsafe_b64encode(short.digest() + long.digest()[:6]).decode()


def check_not_ahead(occurred_ms: int, now_ms: int) -> None:
    """Raises InvalidInput for a timestamp too far in the future."""
    if occurred_ms > now_ms + MAX_AHEAD_MS:
        hours = (occurred_ms - now_ms) / 3_600_000
        ahead = f"{hours:.1f} h" if hours < HOURS_SHOWN else f"{hours / 24:,.0f} days"
        raise InvalidInput(f"timestamp: lies {ahead} ahead; at most 1 h is allowed")


_NAMES = {field.alias for field in StatusChange.model_fields.values()}


def accepted_ms(message: Any) -> int | None:
    """When the platform took a message, ms since 1970; None if that is not known.

    Nothing was taken before 2000: such a time is what some languages write for none (the years 1, 1900 and 1970).
    """
    at = message.accepted_at and timestamp_ms(message.accepted_at)
    return at if at and at >= _YEAR_2000_MS else None


_YEAR_2000_MS = 946_684_800_000


def _refuse_deep(message: Mapping[str, Any]) -> None:
    for name in FREE:
        if (value := message.get(name)) and is_deep(value):
            raise InvalidInput(f"message.{name}: is nested too deeply; the limit is {MAX_DEPTH} levels")


def _refuse_what_json_lacks(values: list[Any]) -> bool:
    """Raises InvalidInput for NaN and Infinity, which would become null or invalid JSON, and for names and values of other types.

    Returns whether there are objects that only writing makes lists and dicts.
    """
    has_objects = False
    while values:
        match values.pop():
            case dict() as inner:
                if any(isinstance(name, Decimal) for name in inner):  # written as a number
                    raise InvalidInput("has a name that is not text")
                values += inner.values()
            case list() | tuple() as inner:
                values += inner
            case (float() | Decimal()) as number if not _is_finite(number):
                raise InvalidInput("has a number that JSON lacks (NaN or Infinity)")
            case str() | int() | float() | Decimal() | None:
                pass
            case (
                set() | frozenset() | bytes() | bytearray()
            ) as other:  # the order of a set differs between processes
                raise InvalidInput(f"has a {type(other).__name__}, which JSON lacks")
            case other:
                has_objects = True
                values += _values_of_fields(other)
    return has_objects


def _values_of_fields(value: object) -> list[Any]:
    """What is in an object that msgspec writes and pydantic left as it is: a Struct, one of attrs, a dataclass in these."""
    kind: Any = type(value)
    names = [*getattr(kind, "__struct_fields__", ())]
    names += [one.name for one in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    names += [one.name for one in getattr(kind, "__attrs_attrs__", ())]
    return [getattr(value, name, None) for name in names]


def _is_finite(number: float | Decimal) -> bool:
    return number.is_finite() if isinstance(number, Decimal) else math.isfinite(number)
