"""The map of a Redis Cluster: which node holds which partition. Read by CLUSTER SLOTS when it is needed, and kept.

redis-py's cluster client keeps such a map, but asks one node after the other, each for its whole time-out: one silent node
would hold up every partition. It also connects to every node with pools of its own, and follows ASK (cluster.py says why not to).
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, TypeVar

from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    MovedError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from dispatcher.errors import DispatcherError, InvalidInput, RedisUnavailable
from dispatcher.store.cluster_slots import Address, Slots
from dispatcher.store.connection import connect_async, safe_url, say_whose, translated
from dispatcher.store.redis_url import RedisUrl, split_url
from dispatcher.store.servers import Node
from dispatcher.store.wire import Wire

T = TypeVar("T")

READ_SECONDS = 2.0
"""Longest time for one reading of the map."""
STAGGER_SECONDS = 0.1
"""A node that has not answered for so long may be silent: for the map the next one is asked too."""
PAUSE_SECONDS = 0.5
"""Shortest time between two readings: on failures, every call needs a new one."""
LEAVE_SECONDS = 10.0
"""How long a node that has left the cluster keeps its connections: twice as long as a command waits for its answer."""

_NOT_NOW = ("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN")
"""First words of errors of a node that may not hold its slots any more."""
_NO_MAP = (RedisError, LookupError, TypeError, ValueError, AttributeError)
"""What asking a server of another kind, and reading its answer, raises."""


class ClusterMap:
    """Knows the nodes of a cluster, and which one holds each partition.

    A key that belongs to no partition is like one more: it has a number too.
    """

    def __init__(self, seeds: Sequence[str], slots: Sequence[int]) -> None:
        """`seeds` are URLs of nodes to start with; `slots` holds the slot of each partition. Raises InvalidInput."""
        parsed = [RedisUrl.parse(url) for url in seeds]
        if any(url.scheme == "unix" or url.db for url in parsed):
            raise InvalidInput("a cluster's nodes have a host and a port, and only the database 0")
        self._login = parsed[0]
        self._query = split_url(seeds[0]).query
        self._seeds: list[Address] = [(url.host, url.port) for url in parsed]
        self._slots = list(slots)
        self._names = [f"partition {number}" for number in range(len(slots))]
        self._nodes: dict[Address, Node] = {}
        self._others: list[Address] = []
        """All nodes that the last reading named."""
        self._holders: list[Node | None] = [None] * len(slots)
        self._doubts: dict[Node | int, float] = {}
        """When a node last failed, or answered MOVED for a partition: who holds what is to be asked."""
        self._leaving: dict[Node, float] = {}
        """Nodes that the map does not name any more, and since when; commands may still be under way."""
        self._began = -math.inf
        """When the last reading began."""
        self._problem = ""
        """Why it failed."""
        self._reads = asyncio.Lock()

    def connection_options(self) -> dict[str, Any]:
        """How connections are made to the first of the nodes to start with, and but for the address to any other."""
        return dict(self._node(self._seeds[0]).client.connection_pool.connection_kwargs)

    def number_of(self, key: str, slot: int) -> int:
        """The number of a key that belongs to no partition."""
        name = f"key {key}"
        if name not in self._names:
            self._names.append(name)
            self._slots.append(slot)
            self._holders.append(None)
        return self._names.index(name)

    def known(self, partition: int) -> Node:
        """The node that holds a partition, as far as is known. Raises RedisUnavailable if none is."""
        node = self._holders[partition]
        if node is None:
            raise RedisUnavailable(self._problem or self._unheld(partition))
        return node

    async def holder(self, partition: int) -> Node:
        """The node that holds a partition; reads the map if that is not known, or in doubt. Raises RedisUnavailable."""
        node = self._holders[partition]
        if node is None or node in self._doubts or partition in self._doubts:
            since = math.nextafter(self._began, math.inf)
            async with self._reads:
                await self._renew(since)
            return self.known(partition)
        return node

    async def send(self, partition: int, to: Callable[[Node], Awaitable[T]], *, again: bool = True) -> T:
        """What `to` gives for the node that holds a partition. After a MOVED the map is read anew, and `to` called once more.

        Raises what `to` raises, or RedisUnavailable if no node is known.
        """
        while True:
            node = await self.holder(partition)
            asked = asyncio.get_running_loop().time()
            try:
                return await to(node)
            except asyncio.CancelledError:
                self.given_up(node, asked)
                raise
            except (RedisError, OSError) as error:
                if not (again and isinstance(error, MovedError)):
                    self.failed(partition, node, error)
                    raise
                again = False
                await self._follow(partition, node, error)

    def failed(self, partition: int, node: Node, error: Exception) -> None:
        """Notes on an error where it comes from, and on the node whether it may have lost its partitions."""
        say_whose(error, node.url, self._names[partition])
        away = isinstance(error, ConnectionError | TimeoutError | OSError | ReadOnlyError | ClusterDownError)
        if isinstance(error, MovedError):
            self._doubts[partition] = asyncio.get_running_loop().time()
        elif away or (isinstance(error, ResponseError) and str(error).startswith(_NOT_NOW)):
            self._doubts[node] = asyncio.get_running_loop().time()

    def given_up(self, node: Node, asked: float) -> None:
        """Notes that a caller did not wait longer for a node, which was `asked` then, on the event loop's clock.

        The node may be silent, and all its callers wait for less than a time-out.
        """
        now = asyncio.get_running_loop().time()
        if now - asked > STAGGER_SECONDS:
            self._doubts[node] = now

    async def aclose(self) -> None:
        """Closes all connections."""
        nodes = [*self._nodes.values(), *self._leaving]
        async with AsyncExitStack() as closing:
            for node in nodes:
                closing.push_async_callback(node.client.aclose)
                closing.push_async_callback(node.wire.close)

    async def _follow(self, partition: int, node: Node, error: MovedError) -> None:
        """Reads the map anew after a MOVED, unless it says already that the partition has left the node. Raises RedisUnavailable."""
        since = asyncio.get_running_loop().time()
        named = error.host if error.host not in ("", "?") else RedisUrl.parse(node.url).host
        async with self._reads:
            if self._holders[partition] is node:
                await self._renew(since, [(named, error.port)])

    async def _renew(self, since: float, first: Sequence[Address] = ()) -> None:
        """Reads the map, unless that was begun after `since`, on the event loop's clock; asks the nodes `first` before others.

        The caller has the lock: there is one reading at a time, and those who wait for it share it. Raises RedisUnavailable.
        """
        if self._began < since:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(self._began + PAUSE_SECONDS - loop.time(), 0))
            began = loop.time()
            try:
                self._take(await self._read(first), began)
                self._problem = ""
            except DispatcherError as error:
                self._problem = str(error)
            self._began = began
            await self._close_those_that_left(began)
        if self._problem:
            raise RedisUnavailable(self._problem)

    def _node(self, address: Address) -> Node:
        if address not in self._nodes:
            host, port = address
            url = replace(self._login, host=host, port=port).plain + (
                f"?{self._query}" if self._query else ""
            )
            client = connect_async(url)
            name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            self._nodes[address] = Node(name, url, client, Wire(client))
        return self._nodes[address]

    def _in_order(self, first: Iterable[Address]) -> Iterator[Address]:
        """Whom to ask: nodes that have failed come last, those that the last reading named in any order."""
        others = random.sample(self._others, len(self._others))
        doubted = {address for address, node in self._nodes.items() if node in self._doubts}
        asked = list(dict.fromkeys([*first, *others, *self._seeds]))
        yield from (address for address in asked if address not in doubted)
        yield from (address for address in asked if address in doubted)

    async def _read(self, first: Iterable[Address]) -> Slots:
        """The map, from the node that answers first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READ_SECONDS
        problems: list[str] = []
        asking: dict[asyncio.Task[Slots], Address] = {}
        addresses = self._in_order(first)
        try:
            while (left := deadline - loop.time()) > 0:
                if address := next(addresses, None):
                    asking[asyncio.create_task(self._ask(address))] = address
                elif not asking:
                    break
                done, _ = await asyncio.wait(
                    asking, timeout=STAGGER_SECONDS if address else left, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    del asking[task]
                    if not (error := task.exception()):
                        return task.result()
                    problems.append(str(error))
        finally:
            for task in asking:
                task.cancel()
        problems += [
            f"{self._node(one).name} does not answer in {READ_SECONDS:g} s" for one in asking.values()
        ]
        if len(problems) == 1:
            raise RedisUnavailable(problems[0])
        raise RedisUnavailable(
            f"None of {len(problems)} nodes says which node of the cluster holds what. The first: {problems[0]}"
        )

    async def _ask(self, address: Address) -> Slots:
        node = self._node(address)
        try:
            with translated(node.url):
                reply = await node.wire.call("CLUSTER", "SLOTS")
            return Slots.of(reply, self._slots, address[0])
        except _NO_MAP as error:
            raise RedisUnavailable(
                f"{safe_url(node.url)} does not give the cluster's map: {error}"
            ) from error

    def _take(self, slots: Slots, began: float) -> None:
        holders = [slots.holders.get(slot) for slot in self._slots]
        self._holders = [None if address is None else self._node(address) for address in holders]
        self._others = slots.nodes
        self._doubts = {one: failed for one, failed in self._doubts.items() if failed > began}
        for address in self._nodes.keys() - {*slots.nodes, *self._seeds}:
            self._leaving[self._nodes.pop(address)] = began

    async def _close_those_that_left(self, now: float) -> None:
        for node, since in list(self._leaving.items()):
            if now > since + LEAVE_SECONDS:
                del self._leaving[node]
                await node.wire.close()
                await node.client.aclose()

    def _unheld(self, partition: int) -> str:
        if self._began == -math.inf:
            return (
                f"which node of the cluster holds {self._names[partition]} is not known yet: none was asked"
            )
        return (
            f"no node of the cluster holds slot {self._slots[partition]}, that of {self._names[partition]}, or it has no "
            "address. Look at CLUSTER SLOTS: give the slot to a node (redis-cli --cluster fix), and each node an address "
            "(cluster-announce-ip, cluster-announce-hostname)"
        )
