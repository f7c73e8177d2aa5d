"""How a subscription's receiver knows us: the options of `dispatcher subscription add` and `update`."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from getpass import getpass
from typing import Annotated, Any

import typer

from config.settings import Settings
from dispatcher.rules.authorization import (
    BASIC,
    BEARER,
    KINDS,
    NONE,
    OAUTH2,
    ClientCredentials,
    TokenServer,
    authorization,
    check_kind,
)
from dispatcher.rules.subscription import SIGNATURES, check_signature
from tasks import terminal

SERVER_OPTIONS = "--auth-token-url, --auth-scope and --auth-audience go with --auth oauth2"
ENVIRONMENT = "SUBSCRIPTION_AUTH_SECRET"
STDIN = "-"
MAX_READ = 10_000
"""Most characters of a secret that are read from standard input; it is checked to be shorter."""

Signature = Annotated[
    str | None,
    typer.Option(
        help=f"How it is signed: {', '.join(SIGNATURES)}. ed25519 makes a key pair, and signs with it and with HMAC.",
        show_default=False,
    ),
]
Auth = Annotated[
    str | None,
    typer.Option(help=f"The Authorization header to send: {', '.join(KINDS)}.", show_default=False),
]
AuthUser = Annotated[
    str | None,
    typer.Option(help="The user of --auth basic, or the client id of --auth oauth2.", show_default=False),
]
AuthSecret = Annotated[
    str | None,
    typer.Option(
        help="The password of --auth basic, the token of --auth bearer or the client secret of --auth oauth2; - reads it "
        f"from standard input. Without it, {ENVIRONMENT} is used, or it is asked for.",
        show_default=False,
    ),
]
AuthTokenUrl = Annotated[
    str | None,
    typer.Option(help="Where --auth oauth2 gets its tokens (client credentials).", show_default=False),
]
AuthScope = Annotated[
    str | None,
    typer.Option(help="The scopes that --auth oauth2 asks for, as 'a b'.", show_default=False),
]
AuthAudience = Annotated[
    str | None,
    typer.Option(
        help="The parameter audience of --auth oauth2, for token servers that want one.", show_default=False
    ),
]
TYPED = {BASIC: "Password: ", BEARER: "Token: ", OAUTH2: "Client secret: "}
"""What a secret is called where it is asked for."""


@dataclass(frozen=True, slots=True)
class GivenAuth:
    """The options of the Authorization header, as given; None: not given."""

    kind: str | None
    user: str | None
    secret: str | None = field(repr=False)
    token_url: str | None
    scope: str | None
    audience: str | None


def proof(settings: Settings, signature: str | None, given: GivenAuth) -> dict[str, Any]:
    """The given ones as arguments of `Subscriptions.add` and `update`. Raises InvalidInput.

    Reads the secret from standard input or asks for it on the terminal, if it was not given.
    """
    found: dict[str, Any] = {}
    if signature is not None:
        check_signature(signature)
        found["signature"] = signature
    if given.kind is not None:
        check_kind(given.kind)
    kind, server = given.kind, TokenServer(given.token_url or "", given.scope or "", given.audience or "")
    if kind != OAUTH2 and (given.token_url, given.scope, given.audience) != (None, None, None):
        terminal.fail(SERVER_OPTIONS, terminal.USAGE)
    if kind is None:
        if given.user is not None or given.secret is not None:
            terminal.fail("--auth-user and --auth-secret go with --auth", terminal.USAGE)
        return found
    if kind in (BASIC, OAUTH2) and not given.user:
        terminal.fail(f"--auth {kind} needs --auth-user", terminal.USAGE)
    if kind == OAUTH2 and not server.url:
        terminal.fail(f"--auth {kind} needs --auth-token-url", terminal.USAGE)
    secret = "" if kind == NONE else _secret(kind, given.secret)
    auth = authorization(kind, given.user or "", secret, server, allow_http=settings.allow_http)
    found["auth"] = auth or NONE
    return found


def token_url(found: Mapping[str, Any]) -> str | None:
    """The token URL in what `proof` returned, if there is one."""
    auth = found.get("auth")
    return auth.token_url if isinstance(auth, ClientCredentials) else None


def _secret(auth: str, given: str | None) -> str:
    """The secret as given, from standard input or the environment, or typed on the terminal without being shown."""
    if given == STDIN:
        return sys.stdin.read(MAX_READ).rstrip("\r\n")
    if known := given or os.environ.get(ENVIRONMENT):
        return known
    if not sys.stdin.isatty():
        what = f"--auth {auth} needs its secret: set {ENVIRONMENT}, or --auth-secret - reads standard input"
        terminal.fail(what, terminal.USAGE)
    return getpass(TYPED[auth], sys.stderr)
