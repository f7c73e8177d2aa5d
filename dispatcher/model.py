"""What is enqueued (a status change) and what is sent (a callback)."""

import functools
import math
import re
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2s
from operator import attrgetter
from typing import Annotated, Any, Self

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from dispatcher.errors import InvalidInput, visible

MAX_ENTRY_BYTES = 64 * 1024
"""Longest status change, as JSON, that the queue takes."""

MAX_AHEAD_MS = 3_600_000
"""How far a status change's timestamp may lie in the future."""

MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799
"""What Python can print: the years 1 to 9999, in seconds since 1970."""

MAX_COST, COST_DIGITS = 10**12, 12

MAX_DEPTH = 32
"""How deep `reference` and `provider` may be nested: whoever reads them later has a stack of its own."""

WORKSPACE_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
EVENT_ID_PATTERN = r"^[A-Za-z0-9_-]{1,128}$"
MESSAGE_UUID_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"

_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:[0-5]\d)", re.ASCII
)
_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode
_encode_canonical = msgspec.json.Encoder(decimal_format="number", order="deterministic").encode


class Status(StrEnum):
    """The canonical statuses; every platform's own is a projection of them."""

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
"""What stands for a status in Redis."""
BY_LETTER = {letter: status for status, letter in LETTERS.items()}


def encode_json(value: object) -> bytes:
    """Compact UTF-8 JSON; decimals are printed digit for digit, as numbers."""
    return _encode(value)


def decode_json(raw: bytes) -> Any:
    """JSON to Python; numbers with a fraction or exponent become `Decimal`. Raises InvalidInput."""
    try:
        return _decode(raw)
    except RecursionError:
        raise InvalidInput("nested too deeply") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not valid UTF-8: {error.reason} at byte {error.start}") from None
    except ArithmeticError:
        raise InvalidInput("has a number that is too large") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidInput(f"not valid JSON: {error}") from None


@functools.lru_cache(maxsize=4096)
def timestamp_ns(text: str) -> int:
    """Nanoseconds since 1970 of an ISO-8601 timestamp with a zone and up to nine fractional digits.

    Raises ValueError.
    """
    match = _TIMESTAMP.fullmatch(text)
    if not match:
        raise ValueError(
            "must be ISO 8601 with seconds, at most 9 fractional digits and a zone, "
            "such as 2026-06-09T13:04:57.123456789Z"
        )
    whole, fraction, zone = match.groups()
    seconds = datetime.fromisoformat(whole + ("+00:00" if zone in "Zz" else zone)).timestamp()
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise ValueError("must lie in the years 1 to 9999, in UTC")
    return int(seconds) * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


def timestamp_ms(text: str) -> int:
    """The same in milliseconds; callbacks carry the text itself."""
    return timestamp_ns(text) // 1_000_000


def _timestamp(value: object) -> object:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("needs a zone: pass datetime.now(UTC), not datetime.now()")
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, str):
        timestamp_ms(value)
    return value


def _decimal(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError("must be a number")
    try:
        number = value if isinstance(value, Decimal) else Decimal(str(value))
    except ArithmeticError:
        raise ValueError("must be a number") from None
    if number.is_finite() and not (0 <= number < MAX_COST and number.as_tuple().exponent >= -COST_DIGITS):  # type: ignore[operator]
        raise ValueError(f"must be from 0 to below {MAX_COST:,}, with at most {COST_DIGITS} decimals")
    return number


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    if is_deep(value):
        raise ValueError(f"is nested too deeply; the limit is {MAX_DEPTH} levels")
    return value


def is_deep(value: object) -> bool:
    """Whether lists and objects are nested in each other more than MAX_DEPTH levels; takes no stack, and ends on a circle."""
    level = _nesting([value])
    for _ in range(MAX_DEPTH):
        level = _nesting(one for some in level for one in (some.values() if type(some) is dict else some))
        if not level:
            return False
    return True


def _nesting(values: Iterable[Any]) -> list[Any]:
    """The lists and objects among values, each once."""
    return list({id(one): one for one in values if isinstance(one, _NESTS)}.values())


_NESTS = (dict, list, tuple)


Timestamp = Annotated[str, BeforeValidator(_timestamp)]
Free = Annotated[dict[str, Any], AfterValidator(_shallow)]
Count = Annotated[StrictInt, Field(ge=0, le=1_000_000)]
Text = Annotated[str, Field(min_length=1, max_length=256)]
Cost = Annotated[Decimal, BeforeValidator(_decimal)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )


class Message(_Model):
    """The message a status change is about; every field that some platform's callback carries."""

    uuid: Annotated[str, Field(pattern=MESSAGE_UUID_PATTERN)]
    src: Text
    dest: Text
    channel: Text = "SMS"
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


class MessageError(_Model):
    """Why a message failed, in the platform's own codes."""

    code: Text
    message: Annotated[str, Field(max_length=1024)] | None = None


class StatusChange(_Model):
    """One status change of one message: what backends enqueue.

    In JSON the names are camelCase, in Python snake_case. Unknown fields are an error. Build it
    from keywords, or from JSON with `StatusChange.from_json`; both raise InvalidInput's text for
    whatever is wrong (keywords raise pydantic's ValidationError, which is a ValueError too).
    """

    event_id: Annotated[str, Field(pattern=EVENT_ID_PATTERN)] = ""
    workspace: Annotated[str, Field(pattern=WORKSPACE_PATTERN)]
    status: Status
    timestamp: Timestamp
    callback_url: Annotated[str, Field(min_length=1, max_length=2048)] | None = Field(None, repr=False)
    ttl_seconds: Annotated[StrictInt, Field(ge=1, le=604_800)] | None = None
    message: Message
    error: MessageError | None = None

    @field_validator("event_id", mode="before")
    @classmethod
    def _no_empty_event_id(cls, value: object) -> object:
        if value == "":
            raise ValueError("must not be empty; leave it out to have one derived")
        return value

    @model_validator(mode="after")
    def _derive_event_id(self) -> Self:
        if not self.event_id:
            object.__setattr__(self, "event_id", self._derived_event_id())
        return self

    def _derived_event_id(self) -> str:
        part = "" if self.message.part is None else str(self.message.part)
        parts = (self.workspace, self.message.uuid, part, self.status.value, self.timestamp)
        return str(uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(parts)))

    @classmethod
    def from_json(cls, raw: bytes) -> "StatusChange":
        """Reads one status change. Raises InvalidInput with a text that names each wrong field."""
        if len(raw) > MAX_ENTRY_BYTES:
            raise InvalidInput(f"is {len(raw):,} bytes long; the limit is {MAX_ENTRY_BYTES:,}")
        return cls.from_dict(decode_json(raw))

    @classmethod
    def from_dict(cls, value: object) -> "StatusChange":
        """The same from decoded JSON. Raises InvalidInput."""
        if not isinstance(value, dict):
            raise InvalidInput("must be a JSON object")
        try:
            return cls.model_validate(value, by_alias=True, by_name=False)
        except ValidationError as error:
            raise InvalidInput(describe(error)) from None

    def to_json(self) -> bytes:
        """The bytes to enqueue. Raises InvalidInput where they would be too long or are no JSON."""
        free = {"reference": self.message.reference, "provider": self.message.provider}
        for name, value in free.items():  # which may have been changed since they were checked
            if is_deep(value):
                raise InvalidInput(f"message.{name}: is nested too deeply; the limit is {MAX_DEPTH} levels")
        try:
            raw = encode_json(self._fields())
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise InvalidInput(f"cannot be written as JSON: {error}") from None
        _refuse_what_json_lacks([*free.values()])
        if len(raw) > MAX_ENTRY_BYTES:
            raise InvalidInput(f"is {len(raw):,} bytes long as JSON; the limit is {MAX_ENTRY_BYTES:,}")
        return raw

    def digest(self) -> str:
        """Tells two status changes with the same eventId apart: 16 characters for their canonical form.

        The first 8 are all that format 1 kept; the others are of another hash, of as many bits.
        """
        error = _values_of_error(self.error) if self.error else None
        canonical = _encode_canonical((_values_of_change(self), _values_of_message(self.message), error))
        short, long = blake2s(canonical, digest_size=6), blake2s(canonical, digest_size=16)
        return urlsafe_b64encode(short.digest() + long.digest()[:6]).decode()

    def _fields(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude_none=True)


_values_of_message = attrgetter(*Message.model_fields)
_values_of_error = attrgetter(*MessageError.model_fields)
_values_of_change = attrgetter(*(f for f in StatusChange.model_fields if f not in ("message", "error")))


def _refuse_what_json_lacks(values: list[Any]) -> None:
    """Raises InvalidInput for NaN and Infinity, which would be written as null or as no JSON at all."""
    while values:
        match values.pop():
            case dict() as inner:
                values += inner.values()
            case list() | tuple() as inner:
                values += inner
            case (float() | Decimal()) as number if not _is_finite(number):
                raise InvalidInput("has a number that JSON lacks (NaN or Infinity)")


def _is_finite(number: float | Decimal) -> bool:
    return number.is_finite() if isinstance(number, Decimal) else math.isfinite(number)


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


MAX_DESCRIBED = 10


def describe(error: ValidationError) -> str:
    """One line for everything pydantic found wrong, in the words of the JSON."""
    found = error.errors(include_url=False, include_input=False)
    more = f"; and {len(found) - MAX_DESCRIBED} more" if len(found) > MAX_DESCRIBED else ""
    return "; ".join(_describe_one(item) for item in found[:MAX_DESCRIBED]) + more


def _describe_one(item: Any) -> str:
    where = visible(".".join(str(part) for part in item["loc"]))[:100]
    what = _PLAIN.get(item["type"]) or item["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


_PLAIN = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "enum": f"must be one of {', '.join(Status)}",
    "string_pattern_mismatch": "has a character or length that is not allowed",
}


def is_time(ms: int) -> bool:
    """Whether milliseconds since 1970 can be printed: the years 1 to 9999."""
    return MIN_SECONDS <= ms // 1000 <= MAX_SECONDS


def iso_seconds(ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC, in whole seconds."""
    return datetime.fromtimestamp(ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def iso(ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
