"""An httpx transport on aiohttp: bounded in time and size, and only to addresses that are allowed.

Follows no redirect, keeps no cookie, knows no proxy of the environment, decompresses nothing.
"""

import asyncio
import errno
import functools
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from dispatcher.addresses import AddressPolicy, is_address, is_odd_address
from dispatcher.answer import MAX_AGE_SECONDS, AnswerProtocol

MAX_ANSWER_BYTES = 64 * 1024
"""Most of an answer's body that is read; the connection of a longer one is closed."""

KEEP_ALIVE_SECONDS = 4.0
"""Idle connections are closed before common servers do it (5 s in Node.js): a POST must not meet a closing one."""

MAX_ADDRESSES = 2
"""Of each family of a name's addresses: aiohttp tries all of them, and then all but one, and so on."""

OWN_FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


class BlockedAddress(OSError):
    """The address may not be connected to."""


class TransportFailure(httpx.TransportError):
    """No answer's head could be read; `word` says why, from the closed list of attempt errors."""

    def __init__(self, word: str, text: str) -> None:
        super().__init__(text)
        self.word = word


class OwnFault(httpx.TransportError):
    """This machine, not the receiver, is to blame: no descriptors, ports or memory."""


class _Answer(httpx.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


class CallbackTransport(httpx.AsyncBaseTransport):
    """Sends one request and reads its answer's head and at most 64 KiB of its body.

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
        tls: ssl.SSLContext | None = None,
        proxy_url: str | None = None,
        max_age_seconds: float = MAX_AGE_SECONDS,
    ) -> None:
        self._policy = policy
        self._timeout_seconds = timeout_seconds
        self._proxy_url = proxy_url
        found = resolver or aiohttp.AsyncResolver()
        self._resolver = found if proxy_url else _AllowedAddresses(found, policy)
        connector = aiohttp.TCPConnector(
            limit=0,
            limit_per_host=0,
            resolver=self._resolver,
            socket_factory=self._open_socket,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            ssl=tls or tls_context(),
        )
        connector._factory = functools.partial(  # type: ignore[assignment]  # a subclass's
            AnswerProtocol, loop=asyncio.get_running_loop(), max_age_seconds=max_age_seconds
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # ours is exact; theirs rounds up
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends the request. Raises TransportFailure or OwnFault."""
        self._refuse_literal(request.url)
        deadline = asyncio.get_running_loop().time() + self._timeout_seconds
        try:
            async with asyncio.timeout_at(deadline):
                answer = await self._session.request(
                    request.method,
                    _url(str(request.url)),
                    data=request.content,
                    headers=request.headers.multi_items(),
                    allow_redirects=False,
                    proxy=self._proxy_url,
                )
        except Exception as error:
            raise _failure(error, encrypted=request.url.scheme == "https") from error
        content = await _read(answer, deadline)
        return httpx.Response(
            answer.status, headers=answer.raw_headers, stream=_Answer(content), request=request
        )

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._session.close()
        await self._resolver.close()

    def _refuse_literal(self, url: httpx.URL) -> None:
        """An address in place of a name is checked before all else, also where a proxy connects."""
        host, port = url.host, url.port or (443 if url.scheme == "https" else 80)
        refusal = self._policy.port_refusal(port)
        if refusal:
            raise TransportFailure("blocked_address", refusal)
        if is_odd_address(host):
            raise TransportFailure("blocked_address", f"{host} is an address in an odd spelling")
        if is_address(host):
            refusal = self._policy.refusal(host, port)
            if refusal:
                raise TransportFailure("blocked_address", refusal)

    def _open_socket(self, info: Any) -> socket.socket:
        """The check that counts: the final address of every connection. A proxy is the operator's own."""
        family, kind, protocol, _, address = info
        refusal = self._policy.refusal(str(address[0]), int(address[1]))
        if refusal and not self._proxy_url:
            raise BlockedAddress(refusal)
        return socket.socket(family, kind, protocol)


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 and newer, certificates and names verified by the system's authorities and those of `ca_file`.

    Raises OSError where the file cannot be read or holds no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


class _AllowedAddresses(AbstractResolver):
    """Leaves out the addresses that may not be connected to, so that a name with mixed answers works; keeps few.

    The check that counts is the one when the socket is opened; this one says why a name failed.
    """

    def __init__(self, resolver: AbstractResolver, policy: AddressPolicy) -> None:
        self._resolver = resolver
        self._policy = policy

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        refusals = [self._policy.refusal(one["host"], one["port"]) for one in found]
        if refusals and all(refusals):
            raise BlockedAddress(f"{host}: {refusals[0]}")
        allowed = [one for one, refusal in zip(found, refusals, strict=True) if refusal is None]
        families = ([one for one in allowed if one["family"] == f] for f in (socket.AF_INET6, socket.AF_INET))
        return [one for group in families for one in group[:MAX_ADDRESSES]]

    async def close(self) -> None:
        await self._resolver.close()


@functools.lru_cache(maxsize=1024)
def _url(text: str) -> URL:
    return URL(text, encoded=True)


async def _read(answer: aiohttp.ClientResponse, deadline: float) -> bytes:
    """The body's beginning; leaves the connection fit for the next request, or closes it."""
    chunks: list[bytes] = []
    size = 0
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout_at(deadline):
            while size <= MAX_ANSWER_BYTES:
                chunk = await answer.content.readany()
                if not chunk:
                    answer.release()
                    return b"".join(chunks)
                chunks.append(chunk)
                size += len(chunk)
    answer.close()
    return b"".join(chunks)[:MAX_ANSWER_BYTES]


def _failure(error: Exception, *, encrypted: bool) -> httpx.TransportError:
    """The one table from aiohttp's errors to ours."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and cause.errno in OWN_FAULTS and not _lacks_a_family(cause):
        return OwnFault(str(cause))
    word = _word(error, cause, encrypted)
    if word == "dns" and not _descriptor_is_left():
        return OwnFault("no descriptor was left for the look-up")
    text = " ".join(_text(error, cause).split()) or type(error).__name__
    return TransportFailure(word, text) if word else OwnFault(f"{type(error).__name__}: {text}")


def _text(error: Exception, cause: Exception) -> str:
    """What is said about an error: never the URL, which may hold what is secret."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.message
    return str(cause)


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


def _word(error: Exception, cause: Exception, encrypted: bool) -> str | None:
    match error:
        case _ if isinstance(cause, BlockedAddress):
            return "blocked_address"
        case aiohttp.ClientHttpProxyError() | aiohttp.ClientProxyConnectionError():
            return "proxy"
        case aiohttp.ClientConnectorDNSError():
            return "dns"
        case aiohttp.ClientConnectorCertificateError():
            return _certificate_word(error.certificate_error)
        case aiohttp.ClientSSLError():
            return "tls_handshake"
        case aiohttp.ClientConnectorError():  # closed in the handshake, if it was there at all
            return "tls_handshake" if encrypted and isinstance(cause, ConnectionResetError) else "connect"
        case TimeoutError():
            return "timeout"
        case aiohttp.ClientResponseError() | aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return "protocol"
        case aiohttp.ClientError() | OSError():
            return "maybe_received"
        case _:
            return None


def _certificate_word(error: Exception) -> str:
    """By OpenSSL's verify codes (x509_vfy.h)."""
    match getattr(error, "verify_code", None):
        case 9 | 10:  # not yet valid, expired
            return "tls_expired"
        case 62 | 63 | 64:  # the wrong host name, e-mail or address
            return "tls_name"
        case _:
            return "tls_untrusted"
