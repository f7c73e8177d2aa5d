"""Looks up host names: without threads of our own, each name once at a time, and only to allowed addresses."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import aiodns
from aiohappyeyeballs import AddrInfoType

from dispatcher.rules.addresses import AddressPolicy
from dispatcher.rules.networks import as_address, text_of
from dispatcher.sending.failures import Failure, NoAnswer, failure_of

KEPT_SECONDS = 10.0
MAX_KEPT = 10_000

MAX_ADDRESSES = 2
"""Most addresses of each family that are kept for a name; one attempt tries all of them."""
MAX_CHECKED = 100
"""Most addresses of each family that are looked at, so that a name with thousands of them costs the loop no more."""
TRIES = 5
"""How often a silent server is asked: after 2, 4, … s, or sooner where servers have been fast; the attempt's deadline ends it."""


class Resolver(Protocol):
    """Looks up the addresses of names."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Returns a name's addresses of both families, as text, the best one for that port first. Raises OSError."""

    async def close(self) -> None:
        """Ends all look-ups."""


class DnsResolver:
    """Asks as the system does, but without its threads: /etc/hosts, then the servers and domains of /etc/resolv.conf.

    `servers` replace those of /etc/resolv.conf: addresses, with a port if it is not 53. A silent server is asked TRIES
    times; after a truncated answer it is asked over TCP. Use within a running event loop.
    """

    def __init__(self, servers: Sequence[str] = ()) -> None:
        self._resolver = aiodns.DNSResolver(list(servers) or None, tries=TRIES)

    async def resolve(self, host: str, port: int) -> list[str]:
        """Returns a name's addresses in the order of RFC 6724. Raises OSError."""
        try:
            found = await self._resolver.getaddrinfo(host, socket.AF_UNSPEC, port, type=socket.SOCK_STREAM)
        except aiodns.error.DNSError as error:
            raise OSError(None, error.args[1]) from error
        return [node.addr[0].decode() for node in found.nodes]

    async def close(self) -> None:
        """Ends all look-ups, and the resolver with them."""
        await self._resolver.close()


class Names:
    """Addresses of host names, ready to connect to. `policy` None allows all, for the operator's own proxy.

    `clock` counts seconds; the default is the loop's.
    """

    def __init__(
        self, resolver: Resolver, policy: AddressPolicy | None, clock: Callable[[], float] | None = None
    ) -> None:
        self._resolver = resolver
        self._policy = policy
        self._clock = clock or asyncio.get_running_loop().time
        self._known: dict[tuple[str, int], tuple[float, list[AddrInfoType]]] = {}
        self._asked: dict[tuple[str, int], asyncio.Task[list[AddrInfoType] | Failure]] = {}

    async def addresses(self, host: str, port: int) -> list[AddrInfoType] | Failure:
        """Returns the addresses to connect to, at least one; or why there is none, or none that is allowed."""
        if as_address(host):
            return [_info(host, port)]
        key = (host, port)
        until, found = self._known.get(key, (0.0, []))
        if self._clock() < until:
            return found
        if key not in self._asked:
            task = self._asked[key] = asyncio.create_task(self._look_up(host, port))
            task.add_done_callback(lambda task: self._answered(key, task))
        return await asyncio.shield(self._asked[key])

    async def close(self) -> None:
        """Ends all look-ups."""
        for task in self._asked.values():
            task.cancel()
        await self._resolver.close()

    def _answered(self, key: tuple[str, int], task: "asyncio.Task[list[AddrInfoType] | Failure]") -> None:
        del self._asked[key]
        if task.cancelled() or task.exception() or not isinstance(found := task.result(), list):
            return  # not kept: the next call asks again
        if len(self._known) >= MAX_KEPT:
            self._known.clear()
        self._known[key] = self._clock() + KEPT_SECONDS, found

    async def _look_up(self, host: str, port: int) -> list[AddrInfoType] | Failure:
        try:
            found = await self._resolver.resolve(host, port)
            if len(found) > MAX_CHECKED:
                found = _first(found)
            allowed = self._allowed(host, port, found)
            if isinstance(allowed, NoAnswer):
                return allowed
            infos = [_info(one, port) for one in allowed]
        except OSError as error:
            return failure_of(error, "dns")
        families = ([info for info in infos if info[0] == f] for f in (socket.AF_INET6, socket.AF_INET))
        kept = [info for family in families for info in family[:MAX_ADDRESSES]]
        return kept or NoAnswer("dns", f"{host} has no address")

    def _allowed(self, host: str, port: int, found: Sequence[str]) -> Sequence[str] | NoAnswer:
        """Drops addresses that are refused, so that a name with both kinds still works.

        The check that counts is made when the socket is opened; this one says why a name failed.
        """
        if self._policy is None:
            return found
        refusals = [self._policy.refusal(one, port) for one in found]
        if refusals and all(refusals):
            return NoAnswer("blocked_address", f"{host}: {refusals[0]}")
        return [one for one, refusal in zip(found, refusals, strict=True) if refusal is None]


def _first(found: Sequence[str]) -> list[str]:
    """The first MAX_CHECKED addresses of each family, in their order."""
    left = Counter({True: MAX_CHECKED, False: MAX_CHECKED})
    kept = []
    for one in found:
        is_6 = ":" in one
        if left[is_6]:
            left[is_6] -= 1
            kept.append(one)
    return kept


def _info(host: str, port: int) -> AddrInfoType:
    """An address to connect to, in canonical text, so that it needs no further look-up. Raises OSError."""
    address = as_address(host)
    if address is None:
        raise OSError(f"{host!r} is no address")
    there, stream = text_of(address), (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    if address.version == 6:
        return socket.AF_INET6, *stream, (there, port, 0, 0)
    return socket.AF_INET, *stream, (there, port)
