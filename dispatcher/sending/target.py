"""Where a URL's requests go, and the bytes of a request."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import httpx

from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import AddressPolicy, parse_callback_url
from dispatcher.rules.client_certificate import ClientCertificate
from dispatcher.sending.failures import InternalError, NoAnswer
from dispatcher.sending.proxy import Proxy

PLAIN = re.compile(r"(?:/[\w~-][\w.~-]*)+/?(?:\?[\w.~=&-]*)?", re.ASCII)
"""Paths and queries in which nothing is to be escaped, and no segment is `.` or `..`."""

Origin = tuple[str, int, bool, str]
"""Host, port, whether it is encrypted, and the fingerprint of the client certificate: what requests must have in common
to share connections. Without a certificate the last is empty."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL's requests go, and how they begin."""

    host: str
    port: int
    encrypted: bool
    origin: Origin
    start: bytes = field(repr=False)
    """The request line without its method, and Host; for a proxied http URL also the proxy's authorization."""
    certificate: ClientCertificate | None = None
    """By which the receiver knows us in the handshake."""

    def with_certificate(self, certificate: ClientCertificate) -> "Target":
        """The same for requests that show a client certificate; without encryption nothing can show it."""
        if not self.encrypted:
            return self
        origin = self.host, self.port, self.encrypted, certificate.fingerprint
        return replace(self, origin=origin, certificate=certificate)


def read_target(text: str, policy: AddressPolicy, proxy: Proxy | None) -> Target | NoAnswer:
    """Reads from a URL where its requests go, without a look-up; or returns why nothing may be sent there.

    An address in place of a name is checked here, also if a proxy makes the connection.
    """
    try:
        url = parse_callback_url(text, allow_http=True)
    except InvalidInput as error:  # stored before such URLs were refused
        return NoAnswer("blocked_address", str(error))
    refusal = policy.refusal(url.host, url.port) if url.address else policy.port_refusal(url.port)
    if refusal:
        return NoAnswer("blocked_address", refusal)
    encrypted, authority = url.scheme == "https", url.authority.encode()
    path = (
        url.target.encode()
        if PLAIN.fullmatch(url.target)
        else httpx.URL(f"http://host{url.target}").raw_path  # escapes what is not ASCII
    )
    start = b" %b HTTP/1.1\r\nHost: %b\r\n" % (path, authority)
    if proxy and not encrypted:
        start = b" http://%b%b%b" % (authority, start[1:], proxy.authorization)
    return Target(url.host, url.port, encrypted, (url.host, url.port, encrypted, ""), start)


def request_bytes(
    method: bytes, target: Target, headers: Mapping[str, str], body: bytes
) -> bytes | InternalError:
    """The bytes of a request; an internal error if a header would break it."""
    head = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if head.count("\n") != len(headers) or head.count("\r") != len(headers) or not head.isascii():
        return InternalError("a header holds a line end, or what is not ASCII")
    return b"%b%bContent-Length: %d\r\n%b\r\n%b" % (method, target.start, len(body), head.encode(), body)
