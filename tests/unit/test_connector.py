"""Who is to blame if no connection can be opened, on a loop whose sockets fail as a test wants."""

import asyncio
import errno
import os
import socket
import ssl
from typing import Any

import pytest

from dispatcher.rules.addresses import AddressPolicy
from dispatcher.sending.client_tls import ClientContexts
from dispatcher.sending.connector import Connector
from dispatcher.sending.failures import Failure, InternalError, NoAnswer
from dispatcher.sending.handshakes import Handshakes
from dispatcher.sending.http_connection import Connection
from dispatcher.sending.resolver import Names
from dispatcher.sending.target import Target

TARGET = Target("receiver.test", 80, False, ("receiver.test", 80, False, ""), b"")
V6, V4, OTHER_V4 = "2606:4700::1", "1.1.1.1", "8.8.8.8"


class FailingLoop(asyncio.SelectorEventLoop):
    """Connects to nothing: an address fails by its errno."""

    def __init__(self, errnos: dict[str, int]) -> None:
        super().__init__()
        self._errnos = errnos

    async def sock_connect(self, _sock: socket.socket, address: Any) -> None:
        """Fails."""
        number = self._errnos[address[0]]
        raise OSError(number, os.strerror(number))


class Addresses:
    """A resolver that has one name."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(self, _host: str, _port: int) -> tuple[str, ...]:
        """The addresses."""
        return self._addresses

    async def close(self) -> None:
        """Holds nothing."""


def connected(errnos: dict[str, int]) -> Connection | Failure:
    """What comes of a name whose addresses fail in these ways."""

    async def scene() -> Connection | Failure:
        policy = AddressPolicy()
        names = Names(Addresses(*errnos), policy)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return await Connector(policy, names, tls, ClientContexts(lambda: tls), None, Handshakes()).connect(
            TARGET
        )

    with asyncio.Runner(loop_factory=lambda: FailingLoop(errnos)) as runner:
        return runner.run(scene())


@pytest.mark.parametrize(
    "errnos",
    [
        {V4: errno.EADDRNOTAVAIL},
        {V6: errno.ENETUNREACH, V4: errno.EADDRNOTAVAIL},
        {V4: errno.EADDRNOTAVAIL, OTHER_V4: errno.ECONNREFUSED},
        {V6: errno.EADDRNOTAVAIL, V4: errno.ENOBUFS},
    ],
)
def test_a_lack_of_ours_is_our_own_fault(errnos: dict[str, int]) -> None:
    """No receiver is blamed if this machine has no ports or memory left, even if another address fails otherwise."""
    assert isinstance(connected(errnos), InternalError)


@pytest.mark.parametrize(
    "errnos",
    [
        {V6: errno.EADDRNOTAVAIL},
        {V6: errno.EADDRNOTAVAIL, V4: errno.ECONNREFUSED},
        {V6: errno.ENETUNREACH, V4: errno.EHOSTUNREACH},
    ],
)
def test_having_no_ipv6_is_no_fault(errnos: dict[str, int]) -> None:
    """An IPv6 address that cannot be used here says nothing of ports: the receiver cannot be reached."""
    found = connected(errnos)
    assert isinstance(found, NoAnswer)
    assert "connect" == found.word
