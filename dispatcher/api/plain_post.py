"""Recognizes the request that most producers send: one status change in a POST with nothing unusual about it.

What is recognized here is a part of what the full HTTP parser accepts. Everything else is for that parser.
"""

import re
from typing import NamedTuple

from dispatcher.api.status_changes import PREFIX
from dispatcher.model import MAX_ENTRY_BYTES

MAX_HEAD_BYTES = 8 * 1024

_LINE = f"POST {PREFIX} HTTP/1.1\r\n".encode()
_HEAD = re.compile(
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t ]*+(?:[\x21-\x7e]++(?:[\t ]++[\x21-\x7e]++)*+)?+[\t ]*+\r\n)++"
)
"""Header lines as RFC 9112 section 5 has them, in ASCII; no line continues the one before.

No part gives back what it has matched (`+` after a quantifier): anybody may send a head, and trying all ways to split it
would take longer than the machine has."""
_FIELDS = re.compile(
    rb"^(host|authorization|content-length|content-type|connection|content-encoding|expect|transfer-encoding|upgrade"
    rb"|te|trailer):[\t ]*([^\r]*)",
    re.IGNORECASE | re.MULTILINE,
)
"""The header lines that change how a request is read, or who may send it."""
_KEY = re.compile(rb"Bearer (key_[0-9a-f]{12}\.[A-Za-z0-9_-]{43})")
_TYPES = (b"application/json", b"application/json; charset=utf-8")


class PlainHead(NamedTuple):
    """What a plain request's head says."""

    key: str
    """The API key's text."""
    body_at: int
    """Where the body begins."""
    end: int
    """Where the request ends."""


def plain_head(data: bytes) -> PlainHead | None:
    """The head of a plain request at the start of `data`; None if it is not complete, or not certainly plain."""
    if not data.startswith(_LINE):
        return None
    end = data.find(b"\r\n\r\n", len(_LINE) - 2, MAX_HEAD_BYTES) + 2
    if end < len(_LINE) or not _HEAD.fullmatch(data, len(_LINE), end):
        return None
    found = _FIELDS.findall(data, len(_LINE), end)
    fields = {name.lower(): value.rstrip() for name, value in found}
    if len(fields) < len(found) or not fields.keys() >= {b"host", b"authorization", b"content-length"}:
        return None
    key, length = _KEY.fullmatch(fields.pop(b"authorization")), fields.pop(b"content-length")
    del fields[b"host"]
    is_json = fields.pop(b"content-type", _TYPES[0]).lower() in _TYPES
    stays_open = fields.pop(b"connection", b"keep-alive").lower() == b"keep-alive"
    if not (key and length.isdigit() and len(length) < 6 and is_json and stays_open) or fields:
        return None
    body_at = end + 2
    return (
        PlainHead(key[1].decode(), body_at, body_at + int(length)) if int(length) <= MAX_ENTRY_BYTES else None
    )
