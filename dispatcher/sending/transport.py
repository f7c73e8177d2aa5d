"""An HTTP client that is bounded in time and size, and connects only to allowed addresses.

It follows no redirects, keeps no cookies, ignores the environment's proxies and decompresses nothing.
It is our own because aiohttp takes five times as much CPU for a POST, and httpx forty times
(docs/decisions/http-connection.md). Callbacks go out through `post`, the short way; everything else
through an httpx client on top of it (`http_client`).
"""

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from http.cookiejar import CookieJar
from typing import Any

import httpx

from dispatcher.rules.addresses import AddressPolicy
from dispatcher.rules.client_certificate import ClientCertificate
from dispatcher.sending.answer import Answer
from dispatcher.sending.client_tls import ClientContexts
from dispatcher.sending.connector import Connector
from dispatcher.sending.exceptions import exception_of
from dispatcher.sending.failures import Failure, NoAnswer
from dispatcher.sending.handshakes import Handshakes
from dispatcher.sending.http_connection import Connection
from dispatcher.sending.opener import Opener
from dispatcher.sending.pool import MAX_AGE_SECONDS, MAX_OPEN, Pool
from dispatcher.sending.proxy import read_proxy
from dispatcher.sending.resolver import DnsResolver, Names, Resolver
from dispatcher.sending.source import Source
from dispatcher.sending.target import Target, read_target, request_bytes
from dispatcher.sending.tls import tls_context

PROXYS_OWN = 407
"""Proxy Authentication Required (RFC 9110 §15.5.8): of an http request, too, the proxy says this and not the receiver."""

MAX_KNOWN_URLS = 16_384
"""URLs whose reading is kept; each takes some 700 bytes."""

NOT_FOR_HTTPX = (b"content-encoding", b"location")
"""Headers by which httpx would decompress an answer to any size, and read a URL of a stranger's, which can raise."""

WRITTEN_HERE = (b"host", b"content-length", b"transfer-encoding")
"""Headers of an httpx request that we write ourselves: the body goes out in one piece, even if httpx streams it."""


class CallbackTransport(httpx.AsyncBaseTransport):
    """Sends requests; reads the head of each answer and at most 16 KiB after it.

    `timeout_seconds` is the total from DNS to the last byte; timeouts of an httpx client are ignored.
    Once the head is read a request cannot fail any more: a bad body does not change the status.
    `tls` is the context of connections; `new_tls` makes one with the same trust for each client certificate.
    Create it within a running event loop, and close it with `aclose`. Raises InvalidInput for an invalid proxy URL.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        timeout_seconds: float,
        *,
        resolver: Resolver | None = None,
        dns_servers: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        new_tls: Callable[[], ssl.SSLContext] = tls_context,
        proxy_url: str | None = None,
        source: Source | None = None,
        max_age_seconds: float = MAX_AGE_SECONDS,
        max_open: int = MAX_OPEN,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._proxy = read_proxy(proxy_url) if proxy_url else None
        self._names = Names(resolver or DnsResolver(dns_servers), None if self._proxy else policy, clock)
        handshakes = Handshakes()
        contexts = ClientContexts(new_tls)
        connector = Connector(
            policy, self._names, tls or new_tls(), contexts, self._proxy, handshakes, source
        )
        self._pool = Pool(max_age_seconds, max_open, clock)
        self._opener = Opener(connector, handshakes, self._pool)
        self._loop = asyncio.get_running_loop()
        read = functools.partial(read_target, policy=policy, proxy=self._proxy)
        self._target = functools.lru_cache(maxsize=MAX_KNOWN_URLS)(read)

    async def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        workspace: str = "",
        method: bytes = b"POST",
        *,
        deadline: float | None = None,
        certificate: ClientCertificate | None = None,
        whole: bool = False,
    ) -> Answer | Failure:
        """Makes one request without httpx's objects, which cost more than the rest (docs/performance.md).

        `deadline` is a time of the loop's clock; without it, `timeout_seconds` from now. `certificate` is shown in the
        handshake; the connection is shared with requests that show the same one alone. `whole`: as Connection.ask.
        """
        deadline = deadline or self._loop.time() + self._timeout_seconds
        target = self._target(url)
        if not isinstance(target, Target):
            return target
        if certificate is not None:
            target = target.with_certificate(certificate)
        request = request_bytes(method, target, headers, body)
        if not isinstance(request, bytes):
            return request
        self._pool.begin(target.origin)
        try:
            connection = self._pool.take(target.origin)
            if connection is None:
                found = await self._opener.connection(target, workspace, deadline)
                if not isinstance(found, Connection):
                    return found
                connection = found
            answer = await connection.ask(request, deadline, head_only=method == b"HEAD", whole=whole)
        finally:
            self._pool.end(target.origin)
            self._opener.ended(target.origin)
        if connection.reusable:
            self._pool.keep(target.origin, connection, workspace)
        else:
            self._pool.failed(target.origin, connection, answer)
        if (
            self._proxy
            and not target.encrypted
            and isinstance(answer, Answer)
            and answer.status == PROXYS_OWN
        ):
            return NoAnswer("proxy", f"the proxy answered {PROXYS_OWN}")
        return answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request of an `httpx.AsyncClient`. Raises Failed, an httpx.TransportError.

        The request's extensions may have `workspace`, `deadline`, `certificate` and `whole`, as `post` takes them.
        The response has none of NOT_FOR_HTTPX.
        """
        url, method, of = str(request.url), request.method.encode(), request.extensions
        answer = await self.post(
            url,
            _headers_of(request),
            await request.aread(),
            of.get("workspace", ""),
            method,
            deadline=of.get("deadline"),
            certificate=of.get("certificate"),
            whole=of.get("whole", False),
        )
        if not isinstance(answer, Answer):
            raise exception_of(answer)
        raw = [(name, value) for name, value in answer.headers if name.lower() not in NOT_FOR_HTTPX]
        return httpx.Response(answer.status, headers=raw, stream=_Body(answer.body), request=request)

    async def look_up(self, url: str, timeout_seconds: float) -> Failure | None:
        """Does what `post` does before it connects: checks the URL and looks its name up. Returns None, or the failure.

        A proxy looks names up itself: with one, only the URL is checked.
        """
        target = self._target(url)
        if not isinstance(target, Target):
            return target
        if self._proxy:
            return None
        try:
            async with asyncio.timeout(timeout_seconds):
                found = await self._names.addresses(target.host, target.port)
        except TimeoutError:
            return NoAnswer("dns", f"no answer within {timeout_seconds:g} s")
        return None if isinstance(found, list) else found

    async def aclose(self) -> None:
        """Closes all connections."""
        self._opener.close()
        self._pool.close()
        await self._names.close()
        await asyncio.sleep(0)  # lets the loop close them


def http_client(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    """An httpx client that adds no headers, keeps no cookies, uses no environment proxy and follows no redirects.

    Closing it closes the transport.
    """
    client = httpx.AsyncClient(transport=transport, cookies=_NoCookies(), trust_env=False)
    client.headers.clear()
    return client


class _NoCookies(CookieJar):
    """Reads none either: the standard library logs a traceback for some that a server may send."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keeps nothing."""


def _headers_of(request: httpx.Request) -> dict[str, str]:
    """A request's headers but those WRITTEN_HERE; the values of one name are joined (RFC 9110 §5.3)."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.headers.raw:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if raw_name.lower() not in WRITTEN_HERE:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


class _Body(httpx.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content
