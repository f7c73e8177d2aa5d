"""redis-py's client for the keys of one partition on a cluster: it finds the node, and follows a MOVED once."""

from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio
from redis.asyncio.client import Pipeline
from redis.exceptions import MovedError, RedisError, WatchError

from dispatcher.store.cluster_map import ClusterMap
from dispatcher.store.servers import Node
from dispatcher.store.wire import PartitionWire
from dispatcher.store.wire_client import WireClient


class PartitionClient(WireClient):
    """Commands and pipelines go over the wire; transactions and subscriptions take a connection to the node that holds the partition."""

    def __init__(self, nodes: ClusterMap, partition: int, wire: PartitionWire) -> None:
        super().__init__(_Pool(nodes, partition), wire)
        self._map = nodes
        self._partition = partition

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Commands that are sent together; with `transaction` they are one."""
        return _Transaction(self, self._map, self._partition) if transaction else super().pipeline(False)


class _Pool(redis.asyncio.ConnectionPool):
    """Lends connections to whichever node holds a partition, from that node's own pool."""

    def __init__(self, nodes: ClusterMap, partition: int) -> None:
        super().__init__(**nodes.connection_options())
        self._map = nodes
        self._partition = partition
        self._lent: dict[Any, Node] = {}

    async def get_connection(self, *_: Any, **__: Any) -> Any:
        """A connection to the node. Raises redis-py's errors, or RedisUnavailable if no node is known."""
        node = await self._map.holder(self._partition)
        pool: Any = node.client.connection_pool
        try:
            connection = await pool.get_connection()
        except (RedisError, OSError) as error:
            self._map.failed(self._partition, node, error)
            raise
        self._lent[connection] = node
        return connection

    async def release(self, connection: Any) -> None:
        """Gives a connection back to where it came from."""
        await self._lent.pop(connection).client.connection_pool.release(connection)


class _Transaction(Pipeline):
    """Is sent once more only if nothing of it ran: it was refused as a whole."""

    def __init__(self, client: PartitionClient, nodes: ClusterMap, partition: int) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, True, None)
        self._map = nodes
        self._partition = partition

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Sends the commands; returns the reply of each. Raises WatchError if the partition moved while keys were watched."""
        stack, explicit, watching = self.command_stack, self.explicit_transaction, self.watching
        execute = super().execute

        async def once(node: Node) -> list[Any]:
            self.command_stack, self.explicit_transaction = stack, explicit
            replies: list[Any] = await execute(raise_on_error=False)
            for one in replies:
                if isinstance(one, Exception):
                    self._map.failed(self._partition, node, one)
            return replies

        try:
            replies = await self._map.send(self._partition, once, again=not watching)
        except MovedError as error:
            if watching:
                raise WatchError("the partition has moved") from error
            raise
        if raise_on_error:
            self.raise_first_error(stack, replies)
        return replies

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Sends WATCH, or a command after it. Raises WatchError if the partition moved while keys were watched."""
        watching = self.watching
        execute: Callable[..., Awaitable[Any]] = super().immediate_execute_command

        async def once(_: Node) -> Any:
            try:
                return await execute(*args, **options)
            except MovedError:
                await self.reset()  # type: ignore[no-untyped-call]  # the next try takes another connection
                raise

        try:
            return await self._map.send(self._partition, once, again=not watching)
        except MovedError as error:
            if watching:
                raise WatchError("the partition has moved") from error
            raise
