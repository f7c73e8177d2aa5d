"""JSON and timestamps of status changes. One decoder, so that the queue and the HTTP API accept the same input."""

import functools
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from dispatcher.errors import InvalidInput

if TYPE_CHECKING:
    import msgspec

MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799
"""The range that Python can format: the years 1 to 9999, in seconds since 1970."""

_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:[0-5]\d)", re.ASCII
)

_STARTS = (
    (b"\xef\xbb\xbf", "starts with a byte order mark (BOM): send UTF-8 without one"),
    ((b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "is UTF-32: send UTF-8"),
    ((b"\xff\xfe", b"\xfe\xff"), "is UTF-16: send UTF-8"),
    (b"\x1f\x8b", "is compressed (gzip): send it as it is"),
    ((b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), "is compressed (deflate): send it as it is"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd): send it as it is"),
)
"""First bytes that rule out plain UTF-8 JSON, and what to tell the sender."""


@functools.cache
def _decoder() -> "msgspec.json.Decoder[Any]":
    import msgspec  # here and below: a backend that only imports the producer does not pay for it

    return msgspec.json.Decoder(float_hook=Decimal)


@functools.cache
def _encoder(order: Literal["deterministic"] | None = None) -> "msgspec.json.Encoder":
    import msgspec

    return msgspec.json.Encoder(decimal_format="number", order=order)


def _decode_error() -> type[Exception]:
    import msgspec

    return msgspec.DecodeError


def encode_json(value: object) -> bytes:
    """Compact UTF-8 JSON. Decimals become numbers and keep their digits."""
    return _encoder().encode(value)


def encode_canonical(value: object) -> bytes:
    """JSON with sorted object keys: equal values give equal bytes."""
    return _encoder("deterministic").encode(value)


def decode_json(raw: bytes) -> Any:
    """Decodes JSON; numbers with a fraction or exponent become `Decimal`. Raises InvalidInput."""
    try:
        return _decoder().decode(raw)
    except (_decode_error(), ValueError, ArithmeticError, RecursionError) as error:
        raise InvalidInput(json_problem(raw, error)) from None


def json_problem(raw: bytes, error: Exception) -> str:
    """Explains why decoding `raw` raised `error`."""
    if problem := not_utf8(raw):
        return problem
    if not raw.strip(b" \t\r\n"):
        return "is empty"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, ArithmeticError) or "out of range" in str(error):
        return "has a number that is too large"
    return f"not valid JSON: {error}"


def not_utf8(raw: bytes) -> str:
    """Explains that the input is compressed or not UTF-8; empty if neither. Bytes are counted from 0."""
    if problem := not_plain(raw):
        return problem
    try:
        raw.decode()
    except UnicodeDecodeError as error:  # msgspec's own says where it is in its text, not in the input
        return f"not valid UTF-8: {error.reason} at byte {error.start}"
    return ""


def not_plain(raw: bytes) -> str:
    """Explains, by the first bytes, that the input is compressed or not UTF-8; empty if neither."""
    for start, problem in _STARTS:
        if raw.startswith(start):
            return problem
    zeros = tuple(not byte for byte in raw[:4])  # JSON starts with two ASCII characters (RFC 4627 §3)
    if zeros in ((False, True, True, True), (True, True, True, False)):
        return "is UTF-32: send UTF-8"
    return "is UTF-16: send UTF-8" if zeros[:2] in ((False, True), (True, False)) else ""


@functools.lru_cache(maxsize=4096)
def timestamp_ns(text: str) -> int:
    """Nanoseconds since 1970 of an ISO 8601 timestamp with a zone and up to nine fractional digits.

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
    """Milliseconds since 1970; callbacks carry the original text. Raises ValueError."""
    return timestamp_ns(text) // 1_000_000


def is_time(ms: int) -> bool:
    """Whether a time in milliseconds since 1970 lies in the years 1 to 9999, which Python can format."""
    return MIN_SECONDS <= ms // 1000 <= MAX_SECONDS


def iso_seconds(ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC, in whole seconds."""
    return datetime.fromtimestamp(ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def iso(ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_or_none(ms: int | None) -> str | None:
    """The same, or None where there is no time."""
    return None if ms is None else iso(ms)
