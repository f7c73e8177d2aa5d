"""The rates of API keys that lie in several partitions."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from dispatcher.rules.partitions import Partitioning
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.across.queue_writer import QueueWriterAcross

DEADLINE = 3
KEYS = {f"key-{n}": 1 for n in range(50)}


class Together:
    """Partitions of which none answers before all are asked."""

    def __init__(self, number: int) -> None:
        self.partitioning = Partitioning(number)
        self._asked = asyncio.Barrier(number)

    async def ask(self, _: int, __: Callable[[int], Awaitable[Any]]) -> dict[str, int]:
        """Waits until all partitions are asked."""
        await self._asked.wait()
        return {}


def test_partitions_are_asked_at_once_for_the_rates_of_keys() -> None:
    """A slow partition delays no other one's count: all are asked before the first has answered."""
    assert {} == asyncio.run(spent(4))


async def spent(partitions: int) -> dict[str, int]:
    """What is counted of KEYS, if the partitions are asked together."""
    writer = QueueWriterAcross(cast(Partitions, Together(partitions)))
    async with asyncio.timeout(DEADLINE):
        return dict((await writer.look(KEYS, ())).spent)
