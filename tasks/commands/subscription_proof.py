"""How a subscription's receiver knows us: the options of `dispatcher subscription add` and `update`."""

import os
import sys
from getpass import getpass
from typing import Annotated, Any

import typer

from dispatcher.rules.authorization import BASIC, KINDS, NONE, authorization, check_kind
from dispatcher.rules.subscription import SIGNATURES, check_signature
from tasks import console

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
AuthUser = Annotated[str | None, typer.Option(help="The user of --auth basic.", show_default=False)]
AuthSecret = Annotated[
    str | None,
    typer.Option(
        help="The password of --auth basic or the token of --auth bearer; - reads it from standard input. Without it, "
        f"{ENVIRONMENT} is used, or it is asked for.",
        show_default=False,
    ),
]


def proof(signature: str | None, auth: str | None, user: str | None, secret: str | None) -> dict[str, Any]:
    """The given ones as arguments of `Subscriptions.add` and `update`. Raises InvalidInput.

    Reads the secret from standard input or asks for it on the terminal, if it was not given.
    """
    found: dict[str, Any] = {}
    if signature is not None:
        check_signature(signature)
        found["signature"] = signature
    if auth is None:
        if user is not None or secret is not None:
            console.fail("--auth-user and --auth-secret go with --auth", console.USAGE)
        return found
    check_kind(auth)
    if auth == BASIC and not user:
        console.fail("--auth basic needs --auth-user", console.USAGE)
    found["auth"] = authorization(auth, user or "", "" if auth == NONE else _secret(auth, secret)) or NONE
    return found


def _secret(auth: str, given: str | None) -> str:
    """The secret as given, from standard input or the environment, or typed on the terminal without being shown."""
    if given == STDIN:
        return sys.stdin.read(MAX_READ).rstrip("\r\n")
    if known := given or os.environ.get(ENVIRONMENT):
        return known
    if not sys.stdin.isatty():
        what = f"--auth {auth} needs its secret: set {ENVIRONMENT}, or --auth-secret - reads standard input"
        console.fail(what, console.USAGE)
    return getpass("Password: " if auth == BASIC else "Token: ", sys.stderr)
