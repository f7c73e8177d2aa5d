"""Reads values that people may have written over by hand: what is damaged must not hide the rest."""

import math
from collections.abc import Awaitable
from typing import Any

import structlog
from redis.exceptions import ResponseError

from dispatcher.codec import is_time

LONGEST = 18
"""Digits of the longest number that Redis counts to, less one."""

log = structlog.get_logger()


def number(value: bytes | None) -> int:
    """A count; 0 for a missing or damaged one."""
    return int(value) if value and value.isdigit() and len(value) <= LONGEST else 0


def real(value: bytes | float | None) -> float:
    """A finite number; 0 for a missing or damaged one."""
    try:
        found = float(value or 0)
    except ValueError:
        return 0.0
    return found if math.isfinite(found) else 0.0


def time_ms(value: bytes | float | None) -> int:
    """A time in ms since 1970; 0 for a missing or damaged one, or one that Python cannot format."""
    ms = int(real(value))
    return ms if is_time(ms) else 0


async def of_type(asked: Awaitable[Any], key: str, otherwise: Any) -> Any:
    """A command's reply, as `reply` gives it where the command is not in a pipeline."""
    try:
        return await asked
    except ResponseError as error:
        return reply(error, key, otherwise)


def reply(found: Any, key: str, otherwise: Any) -> Any:
    """A command's reply in a pipeline; logs that the key is of another type, and returns `otherwise` then.

    Raises other errors.
    """
    if not isinstance(found, Exception):
        return found
    if not (isinstance(found, ResponseError) and str(found).startswith("WRONGTYPE")):
        raise found
    log.error("redis.unreadable", key=key, action="see docs/operations.md, A key was written over by hand")
    return otherwise
