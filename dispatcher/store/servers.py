"""The Redis servers of an installation, and which of them holds a partition."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import redis.asyncio

from dispatcher.rules.partitions import Partitioning
from dispatcher.store.connection import connect_async, safe_url
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Argument, PartitionWire, Wire
from dispatcher.store.wire_client import WireClient


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One server."""

    name: str
    """For error texts and logs: host:port, or the path of a socket."""
    url: str
    client: "redis.asyncio.Redis"
    wire: Wire


class Servers(Protocol):
    """The servers that hold an installation's partitions."""

    keys: Sequence[Keys]
    """The keys of each partition, by its number."""
    partitioning: Partitioning

    def client(self, partition: int) -> "redis.asyncio.Redis":
        """A client for commands on keys of one partition."""

    def wire(self, partition: int) -> PartitionWire:
        """What sends the ledger's commands for one partition."""

    def url(self, partition: int) -> str:
        """Where a partition lies, for error texts: of a cluster, where to start."""

    def node(self, partition: int) -> Node:
        """The server that holds a partition, as far as is known. Raises RedisUnavailable if none is known."""

    @property
    def is_cluster(self) -> bool:
        """Whether each key, also one that belongs to no partition, has one server that holds it."""

    async def call_for(self, key: str, *command: Argument) -> Any:
        """Sends a command to the server that holds a key which belongs to no partition."""

    async def aclose(self) -> None:
        """Closes all connections."""


class PlainServers:
    """Servers that know nothing of each other: partition i lies on server i modulo their number."""

    def __init__(
        self,
        urls: Sequence[str],
        keys: Sequence[Keys],
        connect: Callable[[str], "redis.asyncio.Redis"] = connect_async,
    ) -> None:
        self.keys = keys
        self.partitioning = Partitioning(len(keys))
        self._nodes = [self._node(url, connect(url)) for url in urls]
        self._clients = [
            WireClient(one.client.connection_pool, one.wire) if len(keys) > 1 else one.client
            for one in self._nodes
        ]

    @staticmethod
    def _node(url: str, client: "redis.asyncio.Redis") -> Node:
        return Node(safe_url(url), url, client, Wire(client))

    def client(self, partition: int) -> "redis.asyncio.Redis":
        """A client for commands on keys of one partition."""
        return self._clients[partition % len(self._nodes)]

    def wire(self, partition: int) -> Wire:
        """What sends the ledger's commands for one partition."""
        return self.node(partition).wire

    def url(self, partition: int) -> str:
        """Where a partition lies, for error texts."""
        return self.node(partition).url

    def node(self, partition: int) -> Node:
        """The server that holds a partition."""
        return self._nodes[partition % len(self._nodes)]

    @property
    def is_cluster(self) -> bool:
        """No: a producer may have any of them for the only one."""
        return False

    async def call_for(self, _key: str, *command: Argument) -> Any:
        """Sends a command to the first server, which holds all keys that belong to no partition."""
        return await self.wire(0).call(*command)

    async def aclose(self) -> None:
        """Closes all connections."""
        async with AsyncExitStack() as closing:
            for node in self._nodes:
                closes: Sequence[Callable[[], Awaitable[None]]] = (node.client.aclose, node.wire.close)
                for close in closes:
                    closing.push_async_callback(close)
