"""The state of an installation on several servers, whose clocks and memory are their own."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dispatcher.store.across.installation import InstallationAcross
from dispatcher.store.installation import Backlog, Load, Memory

NOW = 1_800_000_000_000
BEHIND = NOW - 90_000
"""What a server's clock says that is 90 s behind."""
NOTHING, NO_BACKLOG, UNUSED = Load(0, 0, NOW, 0, NOW), Backlog(0, NOW, NOW), Memory(0, 0)


@dataclass
class Server:
    """What one server says of its partition."""

    loaded: Load = NOTHING
    backlog: Backlog = NO_BACKLOG
    uses: Memory = UNUSED

    async def load(self, *, strict: bool = False) -> Load:
        """As Installation.load."""
        assert not strict
        return self.loaded

    async def to_archive(self) -> Backlog:
        """As Installation.to_archive."""
        return self.backlog

    async def messages_to_archive(self) -> Backlog:
        """As Installation.messages_to_archive."""
        return self.backlog

    async def memory(self) -> Memory:
        """As Installation.memory."""
        return self.uses


class Partitions:
    """One partition on each server."""

    def __init__(self, *servers: Server) -> None:
        self._servers = servers

    def readers(self, _make: Any) -> Callable[[int], Server]:
        """The server of a partition."""
        return self._servers.__getitem__

    def by_node(self) -> dict[str, list[int]]:
        """The partitions of each."""
        return {str(n): [n] for n in range(len(self._servers))}

    async def everywhere(
        self, ask: Callable[[int], Awaitable[Any]], among: Iterable[int] | None = None
    ) -> dict[int, Any]:
        """What each says."""
        return {n: await ask(n) for n in among or range(len(self._servers))}


def across(*servers: Server) -> InstallationAcross:
    """The installation on these servers."""
    partitions: Any = Partitions(*servers)
    return InstallationAcross(partitions)


def test_nothing_waits_on_servers_whose_clocks_differ() -> None:
    """Nothing has an age where nothing waits, whatever the clocks say."""
    behind = Server(Load(0, 0, BEHIND, 0, BEHIND), Backlog(0, BEHIND, BEHIND))
    one = across(behind, Server())
    assert 0 == asyncio.run(one.load()).queue_age_ms
    assert [0, 0] == [asyncio.run(ask()).age_ms for ask in (one.to_archive, one.messages_to_archive)]


def test_ages_are_by_the_clock_of_each_server() -> None:
    """The age is that of what has waited longest, and counts are added."""
    behind = Server(Load(1, 2, BEHIND - 3000, 3, BEHIND), Backlog(1, BEHIND - 3000, BEHIND))
    ahead = Server(Load(10, 20, NOW - 2000, 30, NOW), Backlog(10, NOW - 2000, NOW))
    one = across(behind, ahead)
    assert Load(11, 22, NOW - 3000, 33, NOW) == asyncio.run(one.load())
    assert Backlog(11, NOW - 3000, NOW) == asyncio.run(one.to_archive())
    assert Backlog(11, NOW - 3000, NOW) == asyncio.run(one.messages_to_archive())


def test_memory_is_that_of_the_fullest_server() -> None:
    """A server with room, or without a limit, does not hide one that is almost full."""
    full, roomy, unlimited = Memory(95, 100), Memory(300, 1000), Memory(5000, 0)
    for uses in ([full, roomy, unlimited], [unlimited, roomy, full]):
        assert full == asyncio.run(across(*(Server(uses=one) for one in uses)).memory())
    assert unlimited == asyncio.run(across(Server(uses=Memory(1, 0)), Server(uses=unlimited)).memory())
    empty = Memory(0, 100)
    assert empty == asyncio.run(across(Server(uses=unlimited), Server(uses=empty)).memory())
