"""The local addresses that connections to receivers come from (DISPATCHER_SOURCE_ADDRESS)."""

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress

from aiohappyeyeballs import AddrInfoType

from dispatcher.errors import InvalidInput
from dispatcher.sending.failures import NoAnswer

NO_PORT = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)
"""Linux: the port is chosen by `connect`, so that connections to different receivers may share one."""

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Source:
    """Binds sockets to one address of each family. A family without one is not used: firewalls would not know it."""

    def __init__(self, addresses: Mapping[int, str]) -> None:
        """Takes addresses by IP version. Raises InvalidInput for one that this machine does not have."""
        self._addresses = {_FAMILIES[version]: address for version, address in addresses.items()}
        for family in self._addresses:
            try:
                with socket.socket(family, socket.SOCK_STREAM) as sock:
                    self.bind(sock)
            except OSError as error:
                raise InvalidInput(str(error)) from None

    def bind(self, sock: socket.socket) -> None:
        """Binds a socket of a family that has an address. Raises OSError."""
        address = self._addresses[sock.family]
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, NO_PORT, 1)
        try:
            sock.bind((address, 0))
        except OSError as error:
            raise OSError(
                f"this machine cannot send from DISPATCHER_SOURCE_ADDRESS {address}: {error.strerror or error}"
            ) from error

    def usable(self, host: str, addresses: Sequence[AddrInfoType]) -> list[AddrInfoType] | NoAnswer:
        """Those of a receiver's addresses that are of a family with an address; or why there is none."""
        usable = [info for info in addresses if info[0] in self._addresses]
        if usable:
            return usable
        version = next(number for number, family in _FAMILIES.items() if family not in self._addresses)
        return NoAnswer(
            "connect",
            f"{host} has addresses of IPv{version} alone, and DISPATCHER_SOURCE_ADDRESS has none of those",
        )
