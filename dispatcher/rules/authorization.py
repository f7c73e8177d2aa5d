"""The Authorization header by which a subscription's receiver knows us: HTTP Basic or a bearer token. No I/O.

Each kind is a struct with the kind as its tag, sealed in Redis as one JSON object.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import parse_callback_url

NONE, BASIC, BEARER = KINDS = ("none", "basic", "bearer")

MAX_USER, MAX_SECRET = 256, 4096
"""Longest user, and longest password or token, in characters."""

_VISIBLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class Basic(msgspec.Struct, frozen=True, tag_field="type", tag=BASIC):
    """HTTP Basic (RFC 7617)."""

    user: str
    password: str

    @property
    def value(self) -> str:
        """The header's value."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def __repr__(self) -> str:
        return "Basic()"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class Bearer(msgspec.Struct, frozen=True, tag_field="type", tag=BEARER):
    """A bearer token (RFC 6750)."""

    token: str

    @property
    def value(self) -> str:
        """The header's value."""
        return f"Bearer {self.token}"

    def __repr__(self) -> str:
        return "Bearer()"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


Authorization = Basic | Bearer


def kind_of(auth: Authorization | None) -> str:
    """One of KINDS: all that is shown and recorded."""
    match auth:
        case None:
            return NONE
        case Basic():
            return BASIC
        case Bearer():
            return BEARER


def check_kind(kind: str) -> None:
    """Raises InvalidInput for a kind that there is not."""
    if kind not in KINDS:
        raise InvalidInput(f"auth is one of {', '.join(KINDS)}, not {kind!r}")


def authorization(kind: str, user: str = "", secret: str = "") -> Authorization | None:
    """Checks what was given for a kind; None for `none`. Raises InvalidInput, which never shows the secret."""
    check_kind(kind)
    if user and kind != BASIC:
        raise InvalidInput("a user goes with auth basic alone")
    match kind:
        case "basic":
            if not _VISIBLE.fullmatch(user) or ":" in user or len(user) > MAX_USER:
                raise InvalidInput(
                    f"auth basic needs a user of 1 to {MAX_USER} visible ASCII characters without a colon"
                )
            if not _VISIBLE.fullmatch(secret) or len(secret) > MAX_SECRET:
                raise InvalidInput(
                    f"auth basic needs a password of 1 to {MAX_SECRET} visible ASCII characters"
                )
            return Basic(user, secret)
        case "bearer":
            if not _TOKEN68.fullmatch(secret) or len(secret) > MAX_SECRET:
                raise InvalidInput(
                    f"auth bearer needs a token of 1 to {MAX_SECRET} letters, digits and -._~+/, with = at its end alone"
                )
            return Bearer(secret)
    return None


def check_no_conflict(auth: Authorization | None, headers: Mapping[str, str]) -> None:
    """Raises InvalidInput if a receiver has an Authorization header of its own beside its auth."""
    if auth and any(name.lower() == "authorization" for name in headers):
        raise InvalidInput(
            f"header Authorization and auth {kind_of(auth)} exclude each other: remove one, with "
            "--header 'Authorization:' or --auth none"
        )


def goes_to_its_own(url: str, registered: str, *, is_default: bool) -> bool:
    """Whether a callback's URL is the receiver's own, so that it may see the Authorization header.

    A callback of another subscription than the default one goes to a URL that the operator registered: the origin must be
    the one registered now. One of the default subscription may go to a `callbackUrl`, which came with the status
    change: only the registered URL itself counts.
    """
    if not registered:
        return False
    own = parse_callback_url(registered, allow_http=True)
    if url == own.url:
        return True
    return not is_default and parse_callback_url(url, allow_http=True).origin == own.origin
