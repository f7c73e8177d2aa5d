"""Validates a workspace's own headers. No I/O.

Names and values follow RFC 9110 §5; values are visible ASCII, so that a line break cannot inject
another header.
"""

import re
from collections.abc import Iterable, Mapping

from dispatcher.errors import InvalidInput
from dispatcher.rules.dialects import Signing, dialect_of

MAX_HEADERS = 20
MAX_VALUE_LENGTH = 2048

TRACE_HEADERS = ("traceparent", "tracestate")
"""Passed on from status changes. A workspace may have set its own before that was so: these stay, and win."""

RESERVED = {
    *("host", "accept", "accept-encoding", "user-agent", "expect"),
    *("content-length", "content-type", "content-encoding", "transfer-encoding", "te", "trailer"),
    *("connection", "keep-alive", "upgrade", "http2-settings", "range", "content-range"),
    *TRACE_HEADERS,
}
"""Headers that no workspace may set: they say how the request is sent, whether or not the dispatcher sends them."""

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_VALUE = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?")


def check_headers(
    headers: Mapping[str, str], dialect: str, before: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Validates headers for a workspace of this dialect, which has those of `before`. Raises InvalidInput, which never shows a value."""
    before = before or {}
    if len(headers) > MAX_HEADERS:
        raise InvalidInput(f"a workspace has at most {MAX_HEADERS} headers of its own, not {len(headers)}")
    if len({name.lower() for name in headers}) < len(headers):
        raise InvalidInput("a header is there twice")
    taken = {name.lower() for name in _headers_of(dialect)}
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                "a header's name is 1 to 64 letters, digits and -; not with blanks or line ends"
            )
        plain = name.lower().replace("_", "-")  # CGI and WSGI treat the two as the same
        stays = plain in TRACE_HEADERS and before.get(name) == value
        if (plain in RESERVED and not stays) or plain.startswith(("webhook-", "proxy-")):
            raise InvalidInput(f"header {name} is the dispatcher's own")
        if plain in taken:
            raise InvalidInput(f"header {name} is the dialect's own")
        if not _VALUE.fullmatch(value) or len(value) > MAX_VALUE_LENGTH:
            raise InvalidInput(
                f"header {name} needs a value of 1 to {MAX_VALUE_LENGTH} visible ASCII characters"
            )
    return dict(headers)


def parse_headers(lines: Iterable[str]) -> dict[str, str]:
    """Parses `Name: value` lines. Raises InvalidInput for a line without a colon."""
    found = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise InvalidInput("a header is written as 'Name: value'")
        found[name.strip()] = value.strip()
    return found


def _headers_of(dialect: str) -> Mapping[str, str]:
    return dialect_of(dialect).headers(Signing("e", b"", ["s"], 0, 2))
