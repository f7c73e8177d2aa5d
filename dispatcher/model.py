"""What is enqueued (a status change) and what is sent (a callback)."""

import math
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2s, sha1
from operator import attrgetter
from typing import Any

import msgspec

from dispatcher.codec import decode_json as decode_json
from dispatcher.codec import encode_canonical
from dispatcher.codec import encode_json as encode_json
from dispatcher.codec import is_time as is_time
from dispatcher.codec import iso as iso
from dispatcher.codec import iso_seconds as iso_seconds
from dispatcher.codec import timestamp_ms as timestamp_ms
from dispatcher.codec import timestamp_ns as timestamp_ns
from dispatcher.errors import InvalidInput
from dispatcher.fields import (
    MAX_DEPTH,
    Field,
    Problems,
    Record,
    checked,
    decimal_number,
    free_object,
    is_deep,
    json_schema,
    matching,
    moment,
    one_of,
    required,
    text,
    whole_number,
)

MAX_ENTRY_BYTES = 64 * 1024
"""Longest status change, as JSON, that the queue takes."""

MAX_AHEAD_MS = 3_600_000
"""How far a status change's timestamp may lie in the future."""

MAX_COST, COST_DIGITS = 10**12, 12

WORKSPACE_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
EVENT_ID_PATTERN = r"^[A-Za-z0-9_-]{1,128}$"
MESSAGE_UUID_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"


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


_TEXT = text(1, 256)
_COUNT = whole_number(0, 1_000_000)
_MOMENT = moment()
_FREE = free_object()

_MESSAGE = {
    "uuid": required(matching(MESSAGE_UUID_PATTERN, "1 to 64 letters, digits, dots, _ or -")),
    "src": required(_TEXT),
    "dest": required(_TEXT),
    "channel": Field(_TEXT, "SMS", takes_null=False),
    "segments": Field(_COUNT),
    "units": Field(_COUNT),
    "attempts": Field(_COUNT),
    "cost": Field(decimal_number(MAX_COST, COST_DIGITS)),
    "currency": Field(_TEXT),
    "campaign_id": Field(_TEXT),
    "customer_message_id": Field(_TEXT),
    "network": Field(_TEXT),
    "part": Field(_COUNT),
    "total_parts": Field(_COUNT),
    "accepted_at": Field(_MOMENT),
    "webhook_configuration_id": Field(_TEXT),
    "reference": Field(_FREE),
    "provider": Field(_FREE),
}


class Message(Record, fields=_MESSAGE):
    """The message a status change is about.

    uuid: its id, 1 to 64 letters, digits, dots, _ or -
    src, dest: sender and recipient, 1 to 256 characters each
    channel: SMS, RCS, WHATSAPP, …
    segments, units, attempts: how many there were, 0 to 1,000,000
    cost: in `currency`, kept digit for digit: "0.10" stays 0.10
    currency: such as GHS
    campaign_id, customer_message_id: the customer's own ids
    network: the recipient's
    part, total_parts: which part of a long message this is, and of how many
    accepted_at: when the platform took the message; a datetime with a zone,
        or ISO 8601 with one
    webhook_configuration_id: what Namirial's callbacks name
    reference, provider: any JSON object, at most 32 levels deep

    What a platform's callback has no place for is not sent. Raises
    InvalidInput, which names each field that is wrong.
    """

    uuid: str
    src: str
    dest: str
    channel: str
    segments: int | None
    units: int | None
    attempts: int | None
    cost: Decimal | None
    currency: str | None
    campaign_id: str | None
    customer_message_id: str | None
    network: str | None
    part: int | None
    total_parts: int | None
    accepted_at: str | None
    webhook_configuration_id: str | None
    reference: dict[str, Any] | None
    provider: dict[str, Any] | None

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


_ERROR = {"code": required(_TEXT), "message": Field(text(0, 1024))}


class MessageError(Record, fields=_ERROR):
    """Why a message failed, in the platform's own words.

    code: the platform's code, 1 to 256 characters
    message: its text, up to 1,024 characters

    Raises InvalidInput, which names each field that is wrong.
    """

    code: str
    message: str | None

    @checked
    def __init__(self, *, code: str, message: str | None = None) -> None: ...


_CHANGE = {
    "event_id": Field(
        matching(EVENT_ID_PATTERN, "1 to 128 letters, digits, _ or -; left out, one is derived")
    ),
    "workspace": required(matching(WORKSPACE_PATTERN, "1 to 64 letters, digits, _ or -")),
    "status": required(one_of({str(status): status for status in Status})),
    "timestamp": required(_MOMENT),
    "callback_url": Field(text(1, 2048)),
    "ttl_seconds": Field(whole_number(1, 604_800)),
    "message": required(Message),
    "error": Field(MessageError),
}


class StatusChange(Record, fields=_CHANGE, hidden=["callback_url"]):
    """One status change of one message: what backends enqueue.

    workspace: whose message it is
    status: a Status, or its name: "DELIVERED"
    timestamp: when it happened; a datetime with a zone, or ISO 8601 with one
        and up to 9 fractional digits. Read back, it is text
    message: the Message
    event_id: 1 to 128 letters, digits, _ or -, which happens once; left out,
        it is derived from workspace, message, part, status and timestamp
    callback_url: where this callback goes, if not to the workspace's URL
    ttl_seconds: age at which the callback is given up, 1 to 604,800 s;
        left out: 48 hours
    error: why the message failed, a MessageError

    In JSON the names are camelCase: see `from_json`. Raises InvalidInput,
    which names each field that is wrong.
    """

    event_id: str
    workspace: str
    status: Status
    timestamp: str
    callback_url: str | None
    ttl_seconds: int | None
    message: Message
    error: MessageError | None

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
    ) -> None: ...

    @classmethod
    def from_json(cls, raw: bytes | str) -> "StatusChange":
        """Reads one status change; names are camelCase. Raises InvalidInput, which names each field that is wrong."""
        raw = raw.encode(errors="surrogatepass") if isinstance(raw, str) else raw
        if len(raw) > MAX_ENTRY_BYTES:
            raise InvalidInput(f"is {len(raw):,} bytes long; the limit is {MAX_ENTRY_BYTES:,}")
        return cls.from_dict(decode_json(raw))

    @classmethod
    def from_dict(cls, value: object) -> "StatusChange":
        """The same from decoded JSON. Raises InvalidInput."""
        if type(value) is not dict and not isinstance(value, Mapping):
            raise InvalidInput("must be a JSON object")
        try:
            return cls._of_json(value)
        except Problems as problems:
            raise InvalidInput(str(problems)) from None

    def to_json(self) -> bytes:
        """The bytes to enqueue. Raises InvalidInput where they would be too long or are no JSON."""
        free = {"reference": self.message.reference, "provider": self.message.provider}
        for name, value in free.items():  # which may have been changed since they were checked
            if value and is_deep(value):
                raise InvalidInput(f"message.{name}: is nested too deeply; the limit is {MAX_DEPTH} levels")
        try:
            raw = encode_json(self._to_json())
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise InvalidInput(f"cannot be written as JSON: {error}") from None
        _refuse_what_json_lacks([*free.values()])
        if len(raw) > MAX_ENTRY_BYTES:
            raise InvalidInput(f"is {len(raw):,} bytes long as JSON; the limit is {MAX_ENTRY_BYTES:,}")
        return raw

    def replace(self, **changes: Any) -> "StatusChange":
        """A copy in which some fields have other values. Raises InvalidInput.

        An eventId that was derived is derived anew.
        """
        derived = "event_id" not in changes and self.event_id == _derived_event_id(self.__dict__)
        return super().replace(**({"event_id": None} if derived else {}) | changes)

    @staticmethod
    def json_schemas(reference: str) -> dict[str, Any]:
        """What OpenAPI says of status changes, and of the records in them, by
        name; `reference` is where they stand, with {model} for the name."""
        kinds = (StatusChange, Message, MessageError)
        return {kind.__name__: json_schema(kind, reference) for kind in kinds}

    def digest(self) -> str:
        """Tells two status changes with the same eventId apart: 16 characters for their canonical form.

        The first 8 are all that format 1 kept; the others are of another hash, of as many bits.
        """
        error = _values_of_error(self.error) if self.error else None
        canonical = encode_canonical((_values_of_change(self), _values_of_message(self.message), error))
        short, long = blake2s(canonical, digest_size=6), blake2s(canonical, digest_size=16)
        return urlsafe_b64encode(short.digest() + long.digest()[:6]).decode()

    @classmethod
    def _completed(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values["event_id"] is None:
            values["event_id"] = _derived_event_id(values)
        return values


def _derived_event_id(values: Mapping[str, Any]) -> str:
    message: Message = values["message"]
    part = "" if message.part is None else str(message.part)
    parts = (values["workspace"], message.uuid, part, values["status"].value, values["timestamp"])
    return _uuid5_url("\n".join(parts))


_NAMESPACE_URL = bytes.fromhex("6ba7b8119dad11d180b400c04fd430c8")


def _uuid5_url(name: str) -> str:
    """As uuid.uuid5(uuid.NAMESPACE_URL, name), in a third of the time: intake derives one for most status changes."""
    raw = bytearray(sha1(_NAMESPACE_URL + name.encode(), usedforsecurity=False).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x50  # the version
    raw[8] = raw[8] & 0x3F | 0x80  # the variant
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_values_of_message = attrgetter(*_MESSAGE)
_values_of_error = attrgetter(*_ERROR)
_values_of_change = attrgetter(*(name for name in _CHANGE if name not in ("message", "error")))


def check_not_ahead(occurred_ms: int, now_ms: int) -> None:
    """Raises InvalidInput for a timestamp that lies too far in the future."""
    if occurred_ms > now_ms + MAX_AHEAD_MS:
        raise InvalidInput(
            f"timestamp: lies {(occurred_ms - now_ms) / 3_600_000:.1f} h ahead; at most 1 h is allowed"
        )


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
