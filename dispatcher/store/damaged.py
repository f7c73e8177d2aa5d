"""Reads values that people may have written over by hand: what is damaged must not hide the rest."""

import math
import re
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from redis.exceptions import ResponseError

from dispatcher.codec import is_time
from dispatcher.errors import OtherFormat

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


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Has Redis's error that the key is of another type say which key it is."""
    try:
        yield
    except ResponseError as error:
        if not is_of_type(error):
            raise
        raise ResponseError(f"WRONGTYPE the key {key} holds a value of another type") from None


def is_of_type(error: Exception) -> bool:
    """Whether an error of Redis says that a key is of another type."""
    return isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE")


@contextmanager
def needed_type(key: str) -> Iterator[None]:
    """Raises OtherFormat, which names the key, for Redis's error that the key is of another type."""
    try:
        yield
    except ResponseError as error:
        if is_of_type(error):
            raise _written_over(key, "a value of another type") from None
        raise


def needed(value: bytes | None, key: str, pattern: str = r"\d{0,9}") -> str:
    """The text of a key without which nothing can be done; empty if there is none. Raises OtherFormat, which names the key, for any other."""
    text = (value or b"").decode(errors="replace")
    if not re.fullmatch(pattern, text, re.ASCII):
        raise _written_over(key, repr(text[:40]))
    return text


def _written_over(key: str, holds: str) -> OtherFormat:
    return OtherFormat(
        f"the key {key} was written over: it holds {holds}, and nothing is done before it is put back "
        "(docs/operations.md, A key was written over by hand)"
    )


def reply(found: Any, key: str, otherwise: Any) -> Any:
    """A command's reply in a pipeline; logs that the key is of another type, and returns `otherwise` then.

    Raises other errors.
    """
    if not isinstance(found, Exception):
        return found
    if not is_of_type(found):
        raise found
    log.error("redis.unreadable", key=key, action="see docs/operations.md, A key was written over by hand")
    return otherwise
