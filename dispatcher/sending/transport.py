"""An httpx transport that is bounded in time and size, and connects only to addresses that are allowed.

Follows no redirect, keeps no cookie, knows no proxy of the environment, decompresses nothing. It is
ours because aiohttp spent five times, and httpx ten times, as much on a request (docs/performance.md).
"""

import asyncio
import base64
import errno
import functools
import socket
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from urllib.parse import unquote

import aiohttp
import httpx
from aiohappyeyeballs import AddrInfoType, start_connection
from aiohttp.abc import AbstractResolver

from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import AddressPolicy, CallbackUrl, parse_callback_url, without_userinfo
from dispatcher.sending.answer import Answer
from dispatcher.sending.http_connection import Connection, NoAnswer
from dispatcher.sending.resolver import BlockedAddress, Names

KEEP_ALIVE_SECONDS = 4.0
"""Idle connections are closed before common servers do it (5 s in Node.js): a POST must not meet a closing one."""

MAX_AGE_SECONDS = 60.0
"""A connection that is this old is not used again, so that a name that has moved is looked up again."""

SWEEP_SECONDS = 0.5
NEXT_ADDRESS_SECONDS = 0.25
"""How long one address may take to connect before the next one is tried beside it (RFC 8305 §5)."""

OWN_FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class TransportFailure(httpx.TransportError):
    """No answer's head could be read; `word` says why, from the closed list of attempt errors."""

    def __init__(self, word: str, text: str) -> None:
        super().__init__(text)
        self.word = word


class OwnFault(httpx.TransportError):
    """This machine, not the receiver, is to blame: no descriptors, ports or memory."""


class _Body(httpx.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


@dataclass(frozen=True, slots=True)
class _Target:
    """What a URL says about the way to it."""

    host: str
    port: int
    encrypted: bool
    start: bytes = field(repr=False)
    """Request line and Host."""
    refusal: str | None


@dataclass(frozen=True, slots=True)
class _Proxy:
    host: str
    port: int
    encrypted: bool
    authorization: bytes = field(repr=False)


class CallbackTransport(httpx.AsyncBaseTransport):
    """Sends one request and reads its answer's head and at most 16 KiB behind it.

    `timeout_seconds` is the total from DNS to the last byte. Raises TransportFailure or OwnFault;
    once the head is read nothing raises any more: what is wrong with a body changes no status.
    Use within a running event loop; `aclose` ends it.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        timeout_seconds: float,
        *,
        resolver: AbstractResolver | None = None,
        dns_servers: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        proxy_url: str | None = None,
        max_age_seconds: float = MAX_AGE_SECONDS,
    ) -> None:
        self._policy = policy
        self._timeout_seconds = timeout_seconds
        self._proxy = _proxy(proxy_url) if proxy_url else None
        found = resolver or aiohttp.AsyncResolver(nameservers=list(dns_servers) or None)
        self._names = Names(found, None if self._proxy else policy)
        self._tls = tls or tls_context()
        self._max_age_seconds = max_age_seconds
        self._loop = asyncio.get_running_loop()
        self._idle: defaultdict[tuple[str, int, bool], list[Connection]] = defaultdict(list)
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._target = functools.lru_cache(maxsize=4096)(self._read_url)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """POSTs what an `httpx.AsyncClient` made. Raises TransportFailure or OwnFault."""
        headers = {n: v for n, v in request.headers.items() if n not in ("host", "content-length")}
        answer = await self.post(str(request.url), headers, await request.aread())
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(answer.body), request=request
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """One POST, without httpx's objects: they cost more than the rest (docs/performance.md).

        Raises TransportFailure or OwnFault.
        """
        deadline = self._loop.time() + self._timeout_seconds
        target = self._allowed(url)
        message = _message(target, headers, body)
        connection = self._take_idle(target) or await self._connect(target, deadline)
        try:
            answer = await connection.ask(message, deadline)
        except NoAnswer as error:
            raise TransportFailure(error.word, _plain(error)) from error
        if connection.reusable:
            self._keep(target, connection)
        return answer

    async def look_up(self, url: str, timeout_seconds: float) -> None:
        """What `post` does before it connects: may it go to that URL, and where is that? Raises TransportFailure or OwnFault.

        A proxy looks names up itself: then only the URL is looked at.
        """
        target = self._allowed(url)
        if self._proxy:
            return
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._addresses(target.host, target.port)
        except TimeoutError:
            raise TransportFailure("dns", f"no answer within {timeout_seconds:g} s") from None

    async def aclose(self) -> None:
        """Closes all connections."""
        self._closed = True
        if self._sweeper:
            self._sweeper.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        await self._names.close()
        await asyncio.sleep(0)  # lets the loop close them

    def _allowed(self, url: str) -> _Target:
        """Where a URL's POSTs go, if its address and port are allowed. Raises TransportFailure."""
        try:
            target = self._target(url)
        except InvalidInput as error:  # it was stored before that was refused
            raise TransportFailure("blocked_address", str(error)) from error
        if target.refusal:
            raise TransportFailure("blocked_address", target.refusal)
        return target

    def _read_url(self, text: str) -> _Target:
        """What is known of a URL without a look-up. Raises InvalidInput."""
        url = parse_callback_url(text, allow_http=True)
        encrypted, host = url.scheme == "https", url.authority.encode()
        path = httpx.URL(f"http://host{url.target}").raw_path  # escapes what is not ASCII
        start = b"POST %b HTTP/1.1\r\nHost: %b\r\n" % (path, host)
        if self._proxy and not encrypted:
            start = b"POST http://%b%b HTTP/1.1\r\nHost: %b\r\n%b" % (
                host,
                path,
                host,
                self._proxy.authorization,
            )
        return _Target(url.host, url.port, encrypted, start, self._refusal(url))

    def _refusal(self, url: CallbackUrl) -> str | None:
        """An address in place of a name is checked before all else, also where a proxy connects."""
        if url.address:
            return self._policy.refusal(url.host, url.port)
        return self._policy.port_refusal(url.port)

    # Connections that are kept.

    def _take_idle(self, target: _Target) -> Connection | None:
        connections = self._idle.get((target.host, target.port, target.encrypted))
        while connections:
            connection = connections.pop()
            if connection.reusable and self._loop.time() - connection.idle_since < KEEP_ALIVE_SECONDS:
                return connection
            connection.close()
        return None

    def _keep(self, target: _Target, connection: Connection) -> None:
        if self._closed or self._loop.time() - connection.made_at >= self._max_age_seconds:
            connection.close()
            return
        self._idle[target.host, target.port, target.encrypted].append(connection)
        self._sweeper = self._sweeper or self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Closes what has been idle for long."""
        idle_before = self._loop.time() - KEEP_ALIVE_SECONDS
        for origin, connections in list(self._idle.items()):
            for connection in connections:
                if connection.idle_since <= idle_before:
                    connection.close()
            connections[:] = [connection for connection in connections if connection.reusable]
            if not connections:
                del self._idle[origin]
        self._sweeper = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self._idle else None

    # Connections that are made.

    async def _connect(self, target: _Target, deadline: float) -> Connection:
        """A new connection, through the proxy if there is one. Raises TransportFailure or OwnFault."""
        if self._closed:
            raise OwnFault("the transport is closed")
        try:
            async with asyncio.timeout_at(deadline):
                if self._proxy:
                    return await self._connect_by_proxy(self._proxy, target)
                connection = await self._open(target.host, target.port)
                return await self._encrypted(connection, target.host) if target.encrypted else connection
        except TimeoutError:
            raise TransportFailure("timeout", "not connected in time") from None

    async def _open(self, host: str, port: int) -> Connection:
        """A connection to one of a name's addresses."""
        addresses = await self._addresses(host, port)
        try:
            return await self._open_first(*addresses)
        except OSError as error:
            raise _failure(error, "connect") from error

    async def _addresses(self, host: str, port: int) -> list[AddrInfoType]:
        """A name's addresses, one at least. Raises TransportFailure or OwnFault."""
        try:
            addresses = await self._names.addresses(host, port)
        except OSError as error:
            raise _failure(error, "dns") from error
        if not addresses:
            raise TransportFailure("dns", f"{host} has no address")
        return addresses

    async def _open_first(self, first: AddrInfoType, *others: AddrInfoType) -> Connection:
        """To the first address, or if that takes long or fails, to whichever of them answers first.

        The first one is tried as uvloop does it itself: a quarter of the CPU.
        """
        with suppress(OSError) if others else nullcontext():
            async with asyncio.timeout(NEXT_ADDRESS_SECONDS if others else None):
                self._check(first)
                host, port = str(first[4][0]), int(first[4][1])
                _, connection = await self._loop.create_connection(Connection, host, port)
                return connection
        found = await start_connection(
            [*others, first],
            happy_eyeballs_delay=NEXT_ADDRESS_SECONDS,
            interleave=1,
            socket_factory=self._open_socket,
        )
        _, connection = await self._loop.create_connection(Connection, sock=found)
        return connection

    def _check(self, info: AddrInfoType) -> None:
        """The check that counts: the final address of every connection. A proxy is the operator's own."""
        refusal = self._policy.refusal(str(info[4][0]), int(info[4][1]))
        if refusal and not self._proxy:
            raise BlockedAddress(refusal)

    def _open_socket(self, info: AddrInfoType) -> socket.socket:
        self._check(info)
        family, kind, protocol, _, _ = info
        return socket.socket(family, kind, protocol)

    async def _encrypted(self, connection: Connection, name: str) -> Connection:
        """The connection, encrypted, to a server whose certificate is that name's."""
        try:
            return await connection.encrypted(self._tls, name)
        except OSError as error:
            raise _failure(error, "tls_handshake") from error

    async def _connect_by_proxy(self, proxy: _Proxy, target: _Target) -> Connection:
        try:
            connection = await self._open(proxy.host, proxy.port)
            if proxy.encrypted:
                connection = await self._encrypted(connection, proxy.host)
        except TransportFailure as error:
            raise TransportFailure("proxy", str(error)) from error
        return await self._tunnel(connection, proxy, target) if target.encrypted else connection

    async def _tunnel(self, connection: Connection, proxy: _Proxy, target: _Target) -> Connection:
        """A connection to the receiver through the proxy, encrypted so that the proxy cannot read it."""
        host = f"[{target.host}]" if ":" in target.host else target.host
        there = f"{host}:{target.port}".encode()
        request = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (there, there, proxy.authorization)
        try:
            answer = await connection.ask(request, head_only=True)
        except NoAnswer as error:
            raise TransportFailure("proxy", f"the proxy: {_plain(error)}") from error
        if not 200 <= answer.status < 300:
            connection.close()
            raise TransportFailure("proxy", f"the proxy answered {answer.status}")
        if not connection.reusable:
            raise TransportFailure("proxy", "the proxy sent something behind its answer")
        return await self._encrypted(connection, target.host)


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 and newer, certificates and names verified by the system's authorities and those of `ca_file`.

    Raises OSError where the file cannot be read or holds no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


def _message(target: _Target, headers: Mapping[str, str], body: bytes) -> bytes:
    """A request as it goes out. Raises OwnFault for a header that would break it."""
    head = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if head.count("\n") != len(headers) or head.count("\r") != len(headers) or not head.isascii():
        raise OwnFault("a header holds a line end, or what is not ASCII")
    return b"%bContent-Length: %d\r\n%b\r\n%b" % (target.start, len(body), head.encode(), body)


def _proxy(url: str) -> _Proxy:
    """The operator's proxy. Raises InvalidInput for what is none."""
    plain, userinfo = without_userinfo(url)
    read, authorization = parse_callback_url(plain, allow_http=True), b""
    if userinfo:
        user, _, password = userinfo.partition(":")
        token = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode())
        authorization = b"Proxy-Authorization: Basic %b\r\n" % token
    return _Proxy(read.host, read.port, read.scheme == "https", authorization)


def _failure(error: OSError, word: str) -> httpx.TransportError:
    """What an error of a look-up, a connect or a handshake (`word`) is to us; the one table."""
    text = _plain(error)
    if isinstance(error, BlockedAddress):
        return TransportFailure("blocked_address", text)
    if error.errno in OWN_FAULTS and not _lacks_a_family(error):
        return OwnFault(text)
    if word == "dns" and not _descriptor_is_left():
        return OwnFault("no descriptor was left for the look-up")
    if isinstance(error, ssl.SSLCertVerificationError):
        word = _certificate_word(error)
    return TransportFailure(word, text)


def _plain(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _lacks_a_family(error: OSError) -> bool:
    """Whether an address could not be used because this machine has no IPv6, and not for lack of ports."""
    if error.errno != errno.EADDRNOTAVAIL:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect(("2001:4860:4860::8888", 53))  # sends nothing: it only looks for a route
    except OSError:
        return True
    return False


def _descriptor_is_left() -> bool:
    try:
        socket.socket().close()
    except OSError:
        return False
    return True


def _certificate_word(error: ssl.SSLCertVerificationError) -> str:
    """By OpenSSL's verify codes (x509_vfy.h)."""
    match error.verify_code:
        case 9 | 10:  # not yet valid, expired
            return "tls_expired"
        case 62 | 63 | 64:  # the wrong host name, e-mail or address
            return "tls_name"
        case _:
            return "tls_untrusted"
