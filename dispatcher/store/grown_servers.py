"""The servers of an installation that has grown: those of its partitions, and the one Redis that it had before."""

from typing import Any

import redis.asyncio

from dispatcher.rules.partitions import Partitioning
from dispatcher.store.keys import Keys
from dispatcher.store.servers import Node, PlainServers, Servers
from dispatcher.store.wire import Argument, PartitionWire


class GrownServers:
    """Servers whose last partition is the previous Redis, with the keys that it always had."""

    def __init__(self, servers: Servers, previous_url: str, prefix: str) -> None:
        self._servers = servers
        count = len(servers.keys)
        self._previous = PlainServers([previous_url], [Keys(prefix, count)])
        self.keys = [*servers.keys, *self._previous.keys]
        self.partitioning = Partitioning(count, has_previous=True)

    def client(self, partition: int) -> "redis.asyncio.Redis":
        """A client for commands on keys of one partition."""
        return self._of(partition).client(partition)

    def wire(self, partition: int) -> PartitionWire:
        """What sends the ledger's commands for one partition."""
        return self._of(partition).wire(partition)

    def url(self, partition: int) -> str:
        """Where a partition lies, for error texts."""
        return self._of(partition).url(partition)

    def node(self, partition: int) -> Node:
        """The server that holds a partition. Raises RedisUnavailable if none is known."""
        return self._of(partition).node(partition)

    @property
    def is_cluster(self) -> bool:
        """As the servers of the partitions."""
        return self._servers.is_cluster

    async def call_for(self, key: str, *command: Argument) -> Any:
        """Sends a command to the server, among those of the partitions, that holds a key which belongs to none."""
        return await self._servers.call_for(key, *command)

    async def aclose(self) -> None:
        """Closes all connections."""
        try:
            await self._servers.aclose()
        finally:
            await self._previous.aclose()

    def _of(self, partition: int) -> Servers:
        return self._previous if partition == self.partitioning.previous else self._servers
