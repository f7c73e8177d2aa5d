"""Partitions on a Redis or Valkey Cluster: each is on the node that holds the slot of its keys.

A command that went to the wrong node (MOVED; nothing ran) is sent once more, by a map that is read anew. ASK is never followed. It
says that the slot is being moved key by key. Our scripts find most of their keys by themselves, so on the target node, with ASKING,
a script would read nothing for the keys that are still on the source, and its writes would succeed: two halves of a ledger.
So a partition whose slot is being moved in this way pauses until that is over.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import MovedError, RedisError

from dispatcher.errors import InvalidInput
from dispatcher.rules.partitions import Partitioning, slot_of_key
from dispatcher.store.cluster_client import PartitionClient
from dispatcher.store.cluster_map import ClusterMap
from dispatcher.store.keys import Keys
from dispatcher.store.servers import Node
from dispatcher.store.wire import Argument


class ClusterServers:
    """The nodes of a cluster. Errors say which node they come from, and which partition's command it was."""

    def __init__(self, seeds: Sequence[str], keys: Sequence[Keys]) -> None:
        """`seeds` are redis:// or rediss:// URLs of nodes to start with. All nodes have the login and options of the first.

        Connects to nothing yet. Raises InvalidInput.
        """
        self.keys = keys
        self.partitioning = Partitioning(len(keys))
        if not all("{" in one.prefix for one in keys):
            raise InvalidInput(
                "on a cluster there must be several partitions: set DISPATCHER_PARTITIONS, to 256 for example"
            )
        self._start = seeds[0]
        self._map = ClusterMap(seeds, [slot_of_key(one.root) for one in keys])
        self._wires = [ClusterWire(self._map, number) for number in range(len(keys))]
        self._clients: dict[int, PartitionClient] = {}

    def client(self, partition: int) -> PartitionClient:
        """A client for commands on keys of one partition, wherever it is."""
        if partition not in self._clients:
            self._clients[partition] = PartitionClient(self._map, partition, self._wires[partition])
        return self._clients[partition]

    def wire(self, partition: int) -> "ClusterWire":
        """What sends the ledger's commands for one partition."""
        return self._wires[partition]

    def url(self, partition: int) -> str:
        """Where a partition lies, for error texts: the first node to start with. An error itself knows its node."""
        return self._start

    def node(self, partition: int) -> Node:
        """The node that holds a partition, as far as is known. Raises RedisUnavailable if none is known."""
        return self._map.known(partition)

    @property
    def is_cluster(self) -> bool:
        """Yes."""
        return True

    async def call_for(self, key: str, *command: Argument) -> Any:
        """Sends a command to the server that holds a key which belongs to no partition."""
        number = self._map.number_of(key, slot_of_key(key))
        return await self._map.send(number, lambda node: node.wire.call(*command))

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._map.aclose()


class ClusterWire:
    """Sends commands to the node that holds one partition; all partitions of a node share its connection."""

    def __init__(self, nodes: ClusterMap, partition: int) -> None:
        self._map = nodes
        self._partition = partition

    async def call(self, *command: Argument) -> Any:
        """Sends one command. Raises redis-py's errors, as Wire does, or RedisUnavailable if no node is known."""
        return await self._map.send(self._partition, lambda node: node.wire.call(*command))

    async def call_all(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """Sends commands together; returns the reply or the exception of each. Raises if it cannot connect."""
        node = await self._map.holder(self._partition)
        asked = asyncio.get_running_loop().time()
        try:
            replies = await node.wire.call_all(commands)
        except asyncio.CancelledError:
            self._map.given_up(node, asked)
            raise
        except (RedisError, OSError) as error:
            self._map.failed(self._partition, node, error)
            raise
        moved = []
        for place, reply in enumerate(replies):
            if isinstance(reply, MovedError):
                moved.append(place)
            elif isinstance(reply, Exception):
                self._map.failed(self._partition, node, reply)
        if moved:
            sent = (self.call(*commands[place]) for place in moved)
            for place, reply in zip(moved, await asyncio.gather(*sent, return_exceptions=True), strict=True):
                replies[place] = reply
        return replies
