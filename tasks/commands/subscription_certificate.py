"""A subscription's client certificate: the options of `dispatcher subscription add` and `update`."""

import ssl
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dispatcher.errors import InvalidInput
from dispatcher.rules.client_certificate import ClientCertificate
from dispatcher.sending.client_tls import with_certificate
from tasks import terminal

NONE, STDIN = "none", "-"
MAX_READ = 100_000
"""Most characters of a file that are read; it is checked to have fewer."""

Certificate = Annotated[
    str | None,
    typer.Option(
        "--client-certificate",
        help="File (PEM) of the certificate to show to its receiver (mTLS), then its intermediates; it may hold the key "
        f"too. {NONE} removes it.",
        metavar="FILE",
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--client-key",
        help=f"File (PEM) of the certificate's private key; {STDIN} reads standard input. It is sealed as secrets are.",
        metavar="FILE",
        show_default=False,
    ),
]


def certificate_of(certificate: str | None, key: str | None) -> dict[str, Any]:
    """The given one as an argument of `Subscriptions.add` and `update`. Raises InvalidInput."""
    if certificate is None or certificate == NONE:
        if key is not None:
            terminal.fail("--client-key goes with --client-certificate FILE", terminal.USAGE)
        return {} if certificate is None else {"client_certificate": NONE}
    chain = _read(certificate, "--client-certificate")
    private = chain if key is None else _read(key, "--client-key")
    from dispatcher.rules.certificate_check import client_certificate

    found = client_certificate(chain, private, round(time.time() * 1000))
    _try_out(found)
    return {"client_certificate": found}


def _read(path: str, option: str) -> str:
    try:
        if path == STDIN and option == "--client-key":
            return sys.stdin.read(MAX_READ)
        with Path(path).open(encoding="ascii", errors="replace") as file:
            return file.read(MAX_READ)
    except OSError as error:
        raise InvalidInput(f"{option} {path}: {error.strerror or error}") from None


def _try_out(certificate: ClientCertificate) -> None:
    """Raises InvalidInput if OpenSSL would not use it, as one with a key that is too short."""
    try:
        with_certificate(certificate, lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    except OSError as error:
        raise InvalidInput(f"OpenSSL does not accept the client certificate: {error}") from None
