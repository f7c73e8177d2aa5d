"""Sums of counters."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from dispatcher.store.keys import Keys
from dispatcher.store.stats import PAGE, Stats

HOURS = 2


class Counted:
    """A client that has an hour's counters at once."""

    async def hscan_iter(self, key: str, count: int) -> AsyncIterator[tuple[bytes, bytes]]:
        """Three pages of counters."""
        for number in range(3 * PAGE):
            yield b"w%d delivered" % number, b"1"


def test_a_worker_sends_while_counters_are_summed() -> None:
    """The counters of very many workspaces are summed in parts, with room for other tasks in between."""
    client: Any = Counted()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def work() -> int:
        other = asyncio.create_task(count())
        found = await Stats(client, Keys()).workspaces(1_800_000_000_000, HOURS)
        other.cancel()
        return len(found)

    assert 3 * PAGE == asyncio.run(work())
    assert turns >= 3 * HOURS
