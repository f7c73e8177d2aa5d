"""Opens connections: only to allowed addresses, through the proxy if there is one, encrypted if the URL says so.

Errors that the system raises become values here.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, cast

from aiohappyeyeballs import AddrInfoType, start_connection

from dispatcher.rules.addresses import AddressPolicy
from dispatcher.sending.client_tls import ClientContexts
from dispatcher.sending.failures import (
    BlockedAddress,
    Failure,
    InternalError,
    NoAnswer,
    failure_of,
    is_internal,
    plain,
)
from dispatcher.sending.handshakes import Handshakes
from dispatcher.sending.http_connection import Connection
from dispatcher.sending.proxy import Proxy, open_tunnel
from dispatcher.sending.resolver import Names
from dispatcher.sending.source import Source
from dispatcher.sending.target import Target

NEXT_ADDRESS_SECONDS = 0.25
"""How long one address may take to connect before the next one is tried in parallel (RFC 8305 §5)."""


class Connector:
    """Connects to receivers, or to the operator's proxy, which may have any address."""

    def __init__(
        self,
        policy: AddressPolicy,
        names: Names,
        tls: ssl.SSLContext,
        contexts: ClientContexts,
        proxy: Proxy | None,
        handshakes: Handshakes,
        source: Source | None = None,
    ) -> None:
        self._policy = policy
        self._names = names
        self._tls = tls
        self._contexts = contexts
        self._proxy = proxy
        self._handshakes = handshakes
        self._source = source
        self._loop = asyncio.get_running_loop()

    async def connect(self, target: Target) -> Connection | Failure:
        """Opens a connection to a URL's receiver."""
        tls = self._tls if target.encrypted else None
        if target.certificate:
            try:
                tls = await self._contexts.of(target.certificate)
            except (OSError, ValueError) as error:
                return InternalError(f"the client certificate cannot be loaded: {plain(error)}")
        if self._proxy:
            return await self._connect_by_proxy(self._proxy, target, tls)
        return await self._connect_to(target.host, target.port, tls)

    async def _connect_by_proxy(
        self, proxy: Proxy, target: Target, tls: ssl.SSLContext | None
    ) -> Connection | Failure:
        connection = await self._connect_to(proxy.host, proxy.port, self._tls if proxy.encrypted else None)
        if isinstance(connection, NoAnswer):
            return NoAnswer("proxy", connection.text)
        if not isinstance(connection, Connection) or not tls:
            return connection
        refused = await open_tunnel(connection, proxy, target.host, target.port)
        return refused or await self._encrypted(connection, target.host, tls)

    async def _connect_to(self, host: str, port: int, tls: ssl.SSLContext | None) -> Connection | Failure:
        addresses = await self._names.addresses(host, port)
        if self._source and isinstance(addresses, list):
            addresses = self._source.usable(host, addresses)
        if not isinstance(addresses, list):
            return addresses
        faults: list[OSError] = []
        try:
            connection = await self._open_first(faults, *addresses)
        except OSError as error:
            return InternalError(plain(faults[0])) if faults else failure_of(error, "connect")
        return await self._encrypted(connection, host, tls) if tls else connection

    async def _encrypted(
        self, connection: Connection, name: str, tls: ssl.SSLContext
    ) -> Connection | Failure:
        """Encrypts a connection to a server, whose certificate must be for `name`."""
        try:
            await connection.encrypt(tls, name, self._handshakes)
        except OSError as error:
            return failure_of(error, "tls_handshake")
        return connection

    async def _open_first(
        self, faults: list[OSError], first: AddrInfoType, *others: AddrInfoType
    ) -> Connection:
        """Connects to the first address; if that is slow or fails, to the address that answers first. Raises OSError.

        uvloop itself tries the first one, which takes a quarter of the CPU, unless sockets are bound. Errors for which this machine is to blame
        are added to `faults`, because what is raised for several addresses does not say.
        """
        in_turn = [*others, first]
        if self._source:
            in_turn = [first, *others]
        else:
            with suppress(OSError) if others else nullcontext():
                async with asyncio.timeout(NEXT_ADDRESS_SECONDS if others else None):
                    self._check(first)
                    host, port = str(first[4][0]), int(first[4][1])
                    with _noting(faults, first[0]):
                        _, connection = await self._loop.create_connection(Connection, host, port)
                    return connection
        found = await start_connection(
            in_turn,
            happy_eyeballs_delay=NEXT_ADDRESS_SECONDS,
            interleave=1,
            loop=cast(asyncio.AbstractEventLoop, _NotingLoop(faults)),
            socket_factory=lambda info: self._open_socket(faults, info),
        )
        _, connection = await self._loop.create_connection(Connection, sock=found)
        return connection

    def _check(self, info: AddrInfoType) -> None:
        """The check that counts: it sees the final address of every connection. Raises BlockedAddress."""
        refusal = self._policy.refusal(str(info[4][0]), int(info[4][1]))
        if refusal and not self._proxy:
            raise BlockedAddress(refusal)

    def _open_socket(self, faults: list[OSError], info: AddrInfoType) -> socket.socket:
        self._check(info)
        family, kind, protocol, _, _ = info
        with _noting(faults, family):
            sock = socket.socket(family, kind, protocol)
        if self._source:
            try:
                self._source.bind(sock)
            except OSError as error:
                sock.close()
                faults.append(error)
                raise
        return sock


class _NotingLoop:
    """The part of a loop that aiohappyeyeballs uses."""

    def __init__(self, faults: list[OSError]) -> None:
        self._faults = faults

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connects a socket. Raises OSError."""
        with _noting(self._faults, sock.family):
            await asyncio.get_running_loop().sock_connect(sock, address)


@contextmanager
def _noting(faults: list[OSError], family: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_internal(error, family):
            faults.append(error)
        raise
