"""The operator's egress proxy: its URL, and the tunnel through it."""

import base64
from dataclasses import dataclass, field
from urllib.parse import unquote

from dispatcher.rules.addresses import parse_callback_url, without_userinfo
from dispatcher.sending.failures import NoAnswer
from dispatcher.sending.http_connection import Connection


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where the proxy is, and its authorization header."""

    host: str
    port: int
    encrypted: bool
    authorization: bytes = field(repr=False)
    """A complete header line, or empty."""


def read_proxy(url: str) -> Proxy:
    """Parses a proxy's URL, which may contain user and password. Raises InvalidInput."""
    without, userinfo = without_userinfo(url)
    read, authorization = parse_callback_url(without, allow_http=True), b""
    if userinfo:
        user, _, password = userinfo.partition(":")
        token = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode())
        authorization = b"Proxy-Authorization: Basic %b\r\n" % token
    return Proxy(read.host, read.port, read.scheme == "https", authorization)


async def open_tunnel(connection: Connection, proxy: Proxy, host: str, port: int) -> NoAnswer | None:
    """Has the proxy connect this connection to a receiver. Returns None, or why the proxy did not."""
    name = f"[{host}]" if ":" in host else host
    there = f"{name}:{port}".encode()
    request = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (there, there, proxy.authorization)
    answer = await connection.ask(request, head_only=True)
    if isinstance(answer, NoAnswer):
        return NoAnswer("proxy", f"the proxy: {answer.text}")
    if not 200 <= answer.status < 300:
        connection.close()
        return NoAnswer("proxy", f"the proxy answered {answer.status}")
    if not connection.reusable:
        return NoAnswer("proxy", "the proxy sent something behind its answer")
    return None
