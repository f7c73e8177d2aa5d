"""An installation's partitions on a cluster, driven by tests."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from dispatcher.rules.partitions import slot_of, tags
from dispatcher.store.cluster import ClusterServers
from dispatcher.store.keys import keys_of
from tests.world import World

T = TypeVar("T")

COUNT = 16
KEYS = keys_of("dispatcher", COUNT)
SLOTS = [slot_of(tag) for tag in tags(COUNT)]
"""The slot of each partition."""

COUNTS = "return redis.call('INCR', KEYS[1] .. 'counter')"
"""A script that writes a key which it does not declare, as ours do."""


class Partitions:
    """Each as a world of its own, all on one event loop and the same servers."""

    def __init__(self, servers: ClusterServers, runner: asyncio.Runner) -> None:
        self.servers = servers
        self._runner = runner

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result."""
        return self._runner.run(coroutine)

    def world(self, partition: int) -> World:
        """One partition's ledger, its intake led by the test."""
        call = self.servers.wire(partition).call
        client = self.servers.client(partition)
        world = World(client, keys=KEYS[partition], call=call, runner=self._runner)
        world.lead()
        return world

    async def count(self, partition: int) -> int:
        """Counts one further, by a script."""
        return int(await self.servers.wire(partition).call("EVAL", COUNTS, 1, KEYS[partition].root))
