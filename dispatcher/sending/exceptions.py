"""The same failures as exceptions, for code that sends through httpx.

Failed                   an httpx.TransportError; raised itself if this machine is to blame
├── NotConnected         and httpx.ConnectError: dns, connect, tls_…, blocked_address
├── ProxyFailed          and httpx.ProxyError
├── TimedOut             and httpx.TimeoutException
├── BrokenOff            and httpx.ReadError: it may have been received
└── NotHttp              and httpx.RemoteProtocolError
"""

import httpx

from dispatcher.sending.failures import Failure, NoAnswer


class Failed(httpx.TransportError):
    """There is no answer; `failure` says why, in a word of the attempt errors."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class NotConnected(Failed, httpx.ConnectError):
    """Nothing was sent."""


class ProxyFailed(Failed, httpx.ProxyError):
    """The operator's proxy refused or failed to connect."""


class TimedOut(Failed, httpx.TimeoutException):
    """There was no answer in time."""


class BrokenOff(Failed, httpx.ReadError):
    """The connection ended after the request was sent."""


class NotHttp(Failed, httpx.RemoteProtocolError):
    """What came back is not a valid answer."""


BY_WORD: dict[str, type[Failed]] = {
    "proxy": ProxyFailed,
    "timeout": TimedOut,
    "maybe_received": BrokenOff,
    "protocol": NotHttp,
}


def exception_of(failure: Failure) -> Failed:
    """Returns the exception to raise for a failure."""
    if isinstance(failure, NoAnswer):
        return BY_WORD.get(failure.word, NotConnected)(failure)
    return Failed(failure)
