"""Why a POST has no answer, as values; `failure_of` makes them from the system's errors."""

import errno
import socket
import ssl
from dataclasses import dataclass

from dispatcher.sending.tls import certificate_word

INTERNAL_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No complete head of an answer was read; `word` says why, from the closed list of attempt errors."""

    word: str
    text: str


@dataclass(frozen=True, slots=True)
class InternalError:
    """This machine is to blame, not the receiver: for instance it has no descriptors, ports or memory left."""

    text: str


Failure = NoAnswer | InternalError


class BlockedAddress(OSError):
    """Connecting to this address is not allowed. An OSError, because it is raised where a socket is opened."""


def failure_of(error: OSError, word: str) -> Failure:
    """The value for an error of a look-up (`word` is then "dns"), a connect or a handshake."""
    text = plain(error)
    if isinstance(error, BlockedAddress):
        return NoAnswer("blocked_address", text)
    if is_internal(error):
        return InternalError(text)
    if word == "dns" and not _descriptor_is_left():
        return InternalError("no descriptor was left for the look-up")
    if isinstance(error, ssl.SSLCertVerificationError):
        word = certificate_word(error)
    return NoAnswer(word, text)


def is_internal(error: OSError, family: int = socket.AF_UNSPEC) -> bool:
    """Whether this machine is to blame for an error, if it comes from a connect to an address of that family.

    EADDRNOTAVAIL is that no port is left; with IPv6 it is also what a machine without IPv6 says.
    """
    return error.errno in INTERNAL_ERRNOS or (error.errno == errno.EADDRNOTAVAIL and family == socket.AF_INET)


def plain(error: Exception) -> str:
    """An error's text on one line, without Python's `[Errno None]`; the name of its class if it has none."""
    text = error.strerror if isinstance(error, OSError) and error.errno is None else None
    return " ".join((text or str(error)).split()) or type(error).__name__


def _descriptor_is_left() -> bool:
    try:
        socket.socket().close()
    except OSError:
        return False
    return True
