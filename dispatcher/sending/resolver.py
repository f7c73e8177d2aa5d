"""Looks names up: without threads, each name once at a time, only to addresses that are allowed."""

import asyncio
import socket

from aiohappyeyeballs import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

from dispatcher.rules.addresses import AddressPolicy
from dispatcher.rules.networks import as_address, text_of

KEPT_SECONDS = 10.0
MAX_KEPT = 10_000

MAX_ADDRESSES = 2
"""Of each family of a name's addresses; all of them are tried in one attempt."""


class BlockedAddress(OSError):
    """The address may not be connected to."""


class Names:
    """Addresses of host names, ready to connect to; `policy` None allows all (for the operator's own proxy)."""

    def __init__(self, resolver: AbstractResolver, policy: AddressPolicy | None) -> None:
        self._resolver = resolver
        self._policy = policy
        self._known: dict[tuple[str, int], tuple[float, list[AddrInfoType]]] = {}
        self._asked: dict[tuple[str, int], asyncio.Task[list[AddrInfoType]]] = {}

    async def addresses(self, host: str, port: int) -> list[AddrInfoType]:
        """Where a name's connections go. Raises BlockedAddress where none is allowed, or OSError."""
        if as_address(host):
            return [_info(host, port)]
        key = (host, port)
        until, found = self._known.get(key, (0.0, []))
        if asyncio.get_running_loop().time() < until:
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

    def _answered(self, key: tuple[str, int], task: "asyncio.Task[list[AddrInfoType]]") -> None:
        del self._asked[key]
        if task.cancelled() or task.exception():  # asked again the next time
            return
        if len(self._known) >= MAX_KEPT:
            self._known.clear()
        self._known[key] = asyncio.get_running_loop().time() + KEPT_SECONDS, task.result()

    async def _look_up(self, host: str, port: int) -> list[AddrInfoType]:
        found = await self._resolver.resolve(host, port, socket.AF_UNSPEC)
        allowed = self._allowed(host, found)
        families = ([one for one in allowed if one["family"] == f] for f in (socket.AF_INET6, socket.AF_INET))
        return [_info(one["host"], port) for group in families for one in group[:MAX_ADDRESSES]]

    def _allowed(self, host: str, found: list[ResolveResult]) -> list[ResolveResult]:
        """Leaves out what is refused, so that a name with mixed answers works.

        The check that counts is the one when the socket is opened; this one says why a name failed.
        """
        if self._policy is None:
            return found
        refusals = [self._policy.refusal(one["host"], one["port"]) for one in found]
        if refusals and all(refusals):
            raise BlockedAddress(f"{host}: {refusals[0]}")
        return [one for one, refusal in zip(found, refusals, strict=True) if refusal is None]


def _info(host: str, port: int) -> AddrInfoType:
    """An address to connect to: written anew from its number, so that no resolver has to read it again."""
    address = as_address(host)
    if address is None:
        raise OSError(f"{host!r} is no address")
    there, stream = text_of(address), (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    if address.version == 6:
        return socket.AF_INET6, *stream, (there, port, 0, 0)
    return socket.AF_INET, *stream, (there, port)
