"""The types of a status change's fields, with the error text for each."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core.core_schema import custom_error_schema, int_schema, str_schema

from dispatcher.codec import timestamp_ns

MAX_COUNT = 1_000_000
"""Of segments, units, attempts and parts."""

MAX_COST, COST_DIGITS = 10**12, 12

CHANNELS = ("SMS", "RCS", "WHATSAPP")
"""Channels that decide what a callback holds, or whether there is one."""

MAX_DEPTH = 32
"""Nesting limit of free objects: later readers, with other JSON parsers, must be able to read them."""

TRACEPARENT_PATTERN = r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
TRACESTATE_PATTERN = r"^[!-~](?:[ -~]{0,510}[!-~])?$"


class Allowed:
    """Annotates a type with an error text of ours. Valid values do not pay for it."""

    def __init__(self, text: str, schema: CoreSchema | None = None) -> None:
        self._text, self._schema = text, schema

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Wraps the given schema, or pydantic's own for the type."""
        schema = self._schema or handler(source)
        return custom_error_schema(schema, f"not_this_{schema['type']}", custom_error_message=self._text)


def characters(low: int, high: int) -> Allowed:
    """Text of `low` to `high` characters."""
    schema = str_schema(min_length=low or None, max_length=high, strict=True)
    return Allowed(f"must have {low} to {high:,} characters", schema)


def matching(pattern: str, words: str) -> Allowed:
    """Text that matches a pattern; `words` describes it in the error."""
    return Allowed(f"must be {words}", str_schema(pattern=pattern, strict=True))


def whole_number(low: int, high: int) -> Allowed:
    """An integer within bounds; true, 1.0 and "1" are refused."""
    return Allowed(
        f"must be a whole number from {low:,} to {high:,}", int_schema(ge=low, le=high, strict=True)
    )


def known_channel(value: str) -> str:
    """A channel that platforms know is written as they do; any other stays as it is."""
    upper = value.upper()
    return upper if upper in CHANNELS else value


def _timestamp(value: object) -> object:
    if type(value) is not str:
        if not isinstance(value, datetime | str):
            raise ValueError("must be text in ISO 8601 with a zone, such as 2026-06-09T13:04:57Z")
        value = _iso(value) if isinstance(value, datetime) else value
    timestamp_ns(value)
    return value


def _iso(value: datetime) -> str:
    offset = value.utcoffset()
    if offset is None:
        raise ValueError("needs a zone: pass datetime.now(UTC), not datetime.now()")
    if offset.total_seconds() % 60:  # ISO 8601 offsets have no seconds
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            raise ValueError("must lie in the years 1 to 9999, in UTC") from None
    return value.isoformat().replace("+00:00", "Z")


def checked_cost(value: object) -> Decimal:
    """A cost as it was given, digit for digit. Raises ValueError."""
    number = value if isinstance(value, Decimal) else _decimal(value)
    if not number.is_finite():
        raise ValueError("must be a finite number")
    if not 0 <= number < MAX_COST:
        raise ValueError(f"must be from 0 to below {MAX_COST:,}; it is {number:.6G}")
    decimals = -number.as_tuple().exponent  # type: ignore[operator]
    if decimals > COST_DIGITS:
        raise ValueError(f"must have at most {COST_DIGITS} decimals; it has {decimals:,}")
    return number


def _decimal(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number")
    try:
        return Decimal(str(value) if isinstance(value, float) else value)
    except ArithmeticError:
        raise ValueError("must be a number") from None


def checked_trace(value: str) -> str:
    """A traceparent of the right form. Raises ValueError if its ids are all zeros."""
    _, trace, span, _ = value.split("-")
    if not trace.strip("0") or not span.strip("0"):
        raise ValueError("must have a trace id and a parent id that are not all zeros")
    return value


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    if is_deep(value):
        raise ValueError(f"is nested too deeply; the limit is {MAX_DEPTH} levels")
    return value


def is_deep(value: object) -> bool:
    """Whether lists and objects are nested deeper than MAX_DEPTH. Iterative, so that a cycle or deep input cannot exhaust the stack."""
    level = _nesting([value])
    for _ in range(MAX_DEPTH):
        level = _nesting(one for some in level for one in (some.values() if isinstance(some, dict) else some))
        if not level:
            return False
    return True


def _nesting(values: Iterable[Any]) -> list[Any]:
    """The lists and objects among the values, without repeats."""
    return list({id(one): one for one in values if isinstance(one, _NESTS)}.values())


_NESTS = (dict, list, tuple)


Channel = Annotated[str, characters(1, 256), AfterValidator(known_channel)]
Timestamp = Annotated[str, BeforeValidator(_timestamp)]
Cost = Annotated[Decimal, BeforeValidator(checked_cost)]
Traceparent = Annotated[
    str,
    matching(
        TRACEPARENT_PATTERN,
        "00-trace id-parent id-flags with 32, 16 and 2 hexadecimal digits in lower case",
    ),
    AfterValidator(checked_trace),
]
"""W3C Trace Context, level 1, §3.2."""
Tracestate = Annotated[
    str,
    matching(TRACESTATE_PATTERN, "1 to 512 printable ASCII characters, no blank at either end"),
]
"""W3C Trace Context, level 1, §3.3; what is in it is its vendors' business."""
Free = Annotated[dict[str, Any], AfterValidator(_shallow)]
