"""The Authorization header by which a subscription's receiver knows us: HTTP Basic or a bearer token. No I/O.

Each kind is a struct with the kind as its tag, sealed in Redis as one JSON object. The value of the header is known
(`Known`), or a token server gives it (`ClientCredentials`).
"""

import base64
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import parse_callback_url

NONE, BASIC, BEARER, OAUTH2 = KINDS = ("none", "basic", "bearer", "oauth2")

MAX_USER, MAX_SECRET = 256, 4096
"""Longest user or client id, and longest password, token or client secret, in characters."""

MAX_SCOPE = 2048
"""Longest scope, and longest audience, in characters."""

_VISIBLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_SCOPE = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")
"""RFC 6749 §3.3."""


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


class ClientCredentials(msgspec.Struct, frozen=True, tag_field="type", tag=OAUTH2):
    """OAuth 2.0 client credentials (RFC 6749 §4.4): a token server gives a bearer token for them."""

    token_url: str
    client_id: str
    client_secret: str
    scope: str = ""
    """Scopes, separated by blanks; empty: what the token server gives without being asked."""
    audience: str = ""
    """The parameter `audience`, which some token servers want; empty: it is not sent."""

    def __repr__(self) -> str:
        return "ClientCredentials()"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


Known = Basic | Bearer
"""What needs no token server."""

Authorization = Known | ClientCredentials


def kind_of(auth: Authorization | None) -> str:
    """One of KINDS: all that is shown and recorded."""
    match auth:
        case None:
            return NONE
        case Basic():
            return BASIC
        case Bearer():
            return BEARER
        case ClientCredentials():
            return OAUTH2


def check_kind(kind: str) -> None:
    """Raises InvalidInput for a kind that there is not."""
    if kind not in KINDS:
        raise InvalidInput(f"auth is one of {', '.join(KINDS)}, not {kind!r}")


class TokenServer(NamedTuple):
    """What a kind needs to be given for a token server; empty: not given."""

    url: str = ""
    scope: str = ""
    audience: str = ""


NO_SERVER = TokenServer()


def authorization(
    kind: str, user: str = "", secret: str = "", server: TokenServer = NO_SERVER, *, allow_http: bool = False
) -> Authorization | None:
    """Checks what was given for a kind; None for `none`. Raises InvalidInput, which never shows the secret."""
    check_kind(kind)
    if user and kind not in (BASIC, OAUTH2):
        raise InvalidInput("a user goes with auth basic and oauth2 alone")
    if any(server) and kind != OAUTH2:
        raise InvalidInput("a token URL, a scope and an audience go with auth oauth2 alone")
    match kind:
        case "basic":
            return _basic(user, secret)
        case "bearer":
            if not _TOKEN68.fullmatch(secret) or len(secret) > MAX_SECRET:
                raise InvalidInput(
                    f"auth bearer needs a token of 1 to {MAX_SECRET} letters, digits and -._~+/, with = at its end alone"
                )
            return Bearer(secret)
        case "oauth2":
            return _client_credentials(user, secret, server, allow_http)
    return None


def _basic(user: str, password: str) -> Basic:
    if not _VISIBLE.fullmatch(user) or ":" in user or len(user) > MAX_USER:
        raise InvalidInput(
            f"auth basic needs a user of 1 to {MAX_USER} visible ASCII characters without a colon"
        )
    if not _VISIBLE.fullmatch(password) or len(password) > MAX_SECRET:
        raise InvalidInput(f"auth basic needs a password of 1 to {MAX_SECRET} visible ASCII characters")
    return Basic(user, password)


def _client_credentials(
    client_id: str, secret: str, server: TokenServer, allow_http: bool
) -> ClientCredentials:
    """Checks what a token server will be asked with (RFC 6749 §3.3 and appendix A)."""
    try:
        url = parse_callback_url(server.url, allow_http=allow_http).url
    except InvalidInput as error:
        what = str(error).replace("callback URL", "the token URL", 1)
        raise InvalidInput(f"auth oauth2 needs a token URL: {what}") from None
    if not url.isascii():
        raise InvalidInput("auth oauth2 needs a token URL in ASCII; percent-encode the rest")
    if not _VISIBLE.fullmatch(client_id) or len(client_id) > MAX_USER:
        raise InvalidInput(f"auth oauth2 needs a client id of 1 to {MAX_USER} visible ASCII characters")
    if not _VISIBLE.fullmatch(secret) or len(secret) > MAX_SECRET:
        raise InvalidInput(f"auth oauth2 needs a client secret of 1 to {MAX_SECRET} visible ASCII characters")
    if server.scope and (not _SCOPE.fullmatch(server.scope) or len(server.scope) > MAX_SCOPE):
        raise InvalidInput(
            f"the scope of auth oauth2 is words with one blank between, {MAX_SCOPE} characters at most, "
            'of visible ASCII characters without " and \\'
        )
    if server.audience and (not _VISIBLE.fullmatch(server.audience) or len(server.audience) > MAX_SCOPE):
        raise InvalidInput(f"the audience of auth oauth2 is at most {MAX_SCOPE} visible ASCII characters")
    return ClientCredentials(url, client_id, secret, server.scope, server.audience)


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
