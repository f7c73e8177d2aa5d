"""Tells that an entry has come onto the queue of one of several partitions, over one connection per server.

A read that waits (XREADGROUP BLOCK) holds up its connection, and in a cluster it takes one queue only. So for several
partitions Redis tells instead that a queue's key has changed: `CLIENT TRACKING`, which is there from Redis 6.0 on. Each look at
a queue's length is told of once, by the next change; so one looks first, and reads after that.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import hiredis
import structlog
from redis.exceptions import ResponseError

from dispatcher.errors import RedisUnavailable
from dispatcher.store.connection import SOCKET_TIMEOUT_SECONDS, translated
from dispatcher.store.keys import Keys
from dispatcher.store.queue import Queue, QueueEntry
from dispatcher.store.sentinel import BecameReplica, FollowsPrimary
from dispatcher.store.servers import Node, Servers
from dispatcher.store.wire import WATCH_SECONDS, Argument, transport_of

ELSEWHERE = "MOVED ", "ASK ", "TRYAGAIN"
"""How a cluster's node says that it does not hold a key, or not all of a slot."""
CHECK_SECONDS = 10.0
"""How often it is looked which servers hold partitions."""
POLL_MS = 100
"""How often a queue is read on a server that tells nothing."""

log = structlog.get_logger()


class Arrivals:
    """What the servers tell of the queues of all partitions. `look` and `come` are for one partition each."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._partitions = {keys.events.encode(): keys.partition for keys in servers.keys}
        self._come = [asyncio.Event() for _ in servers.keys]
        self._listeners: dict[Node, _Listener] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._next_check = 0.0
        self._polled: set[Node] = set()
        """Servers of which was logged that they tell nothing."""

    def come(self, partition: int) -> asyncio.Event:
        """Set when the queue may have changed since the last look."""
        return self._come[partition]

    def are_told(self, partition: int) -> bool:
        """Whether the partition's server tells of changes, as far as is known; else its queue is looked at every POLL_MS."""
        with suppress(RedisUnavailable):  # no server of it is known
            listener = self._listeners.get(self._servers.node(partition))
            return listener is None or listener.refusal is None
        return True

    async def look(self, partition: int) -> int:
        """How many entries are on the queue; the next change after that is told. Raises RedisUnavailable."""
        node = self._servers.node(partition)
        with translated(node.url):
            try:
                listener = self._listener(node)
                length = await listener.length_of(self._servers.keys[partition].events)
            except ResponseError as error:
                if not str(error).startswith(ELSEWHERE):
                    raise
                return 1  # reading it finds the node, or says why there is none
        self._note_refusal(node, listener.refusal)
        return length

    def _note_refusal(self, node: Node, refusal: ResponseError | None) -> None:
        """Logs once of a server that it tells nothing."""
        if refusal is None:
            self._polled.discard(node)
        elif node not in self._polled:
            self._polled.add(node)
            effect = f"its queues are looked at every {POLL_MS} ms"
            log.warning("redis.polled", server=node.name, reason=str(refusal), effect=effect)

    def _listener(self, node: Node) -> "_Listener":
        known = self._listeners.get(node)
        if known and known.is_open:
            return known
        if known:
            self._close(known)
        self._listeners[node] = _Listener(node, self._tell)
        return self._listeners[node]

    def close_unused(self) -> None:
        """Closes the connections to servers that hold no partition any more, such as a node that left the cluster.

        Looks at most every CHECK_SECONDS; to be called now and then.
        """
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + CHECK_SECONDS
        used = set[Node]()
        for keys in self._servers.keys:
            with suppress(RedisUnavailable):  # no server of it is known now
                used.add(self._servers.node(keys.partition))
        for node in self._listeners.keys() - used:
            self._close(self._listeners.pop(node))
            self._polled.discard(node)

    def _close(self, listener: "_Listener") -> None:
        closing = asyncio.create_task(listener.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closed)

    def _closed(self, closing: "asyncio.Task[None]") -> None:
        self._closing.discard(closing)
        if not closing.cancelled() and (error := closing.exception()):
            log.error("redis.internal_error", action="going on with another connection", exc_info=error)

    def _tell(self, keys: "list[bytes] | None") -> None:
        """Notes that these keys changed; None: any may have."""
        for partition in (
            self._partitions.values()
            if keys is None
            else (self._partitions[key] for key in keys if key in self._partitions)
        ):
            self._come[partition].set()

    async def aclose(self) -> None:
        """Closes the connections."""
        for listener in list(self._listeners.values()):
            await listener.close()
        await asyncio.gather(*self._closing, return_exceptions=True)


def _is_refusal(error: ResponseError) -> bool:
    """Whether the server has no tracking, or we may not use it."""
    text = str(error).lower()
    return "noperm" in text or "no permissions" in text or "unknown" in text or "noproto" in text


class _Listener(asyncio.Protocol):
    """A connection to one server, which speaks RESP3 there: it tells of changes in between replies."""

    def __init__(self, node: Node, tell: Any) -> None:
        self._node = node
        self._tell = tell
        self._reader = hiredis.Reader(replyError=ResponseError)
        self._waiting: list[asyncio.Future[Any]] = []
        self._connecting: asyncio.Task[None] | None = None
        self._connection: Any = None
        self._transport: asyncio.Transport | None = None
        self.is_open = True
        """Until the connection breaks; then another listener takes its place, and asks the server anew to tell."""
        self.refusal: ResponseError | None = None
        """Why the server tells nothing; None: it tells."""

    async def length_of(self, queue: str) -> int:
        """The number of entries of a queue. Raises redis-py's errors."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        await asyncio.shield(self._connecting)
        return int(await self._call("XLEN", queue))

    async def _connect(self) -> None:
        try:
            self._connection = self._node.client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            await self._connection.connect()
            self._transport = transport_of(self._connection)
            self._transport.set_protocol(self)
            self._watch_primary()
            await self._ask_to_tell()
        except Exception as error:  # whatever it is, another listener tries again
            self._broken(error)
            raise

    def _watch_primary(self) -> None:
        """Leaves a primary that the sentinels replaced: it may hang. The wire of the server asks them, once a second."""
        if not self.is_open or not isinstance(self._connection, FollowsPrimary):
            return
        if self._connection.is_known_left:
            self._broken(BecameReplica("the primary has become a replica"))
        else:
            asyncio.get_running_loop().call_later(WATCH_SECONDS, self._watch_primary)

    async def _ask_to_tell(self) -> None:
        try:
            await self._call("HELLO", 3)
            await self._call("CLIENT", "TRACKING", "ON")
        except ResponseError as error:
            if not _is_refusal(error):
                raise
            self.refusal = error

    async def _call(self, *command: Argument) -> Any:
        if self._transport is None or not self.is_open:
            raise ConnectionError("the connection is closed")
        reply = asyncio.get_running_loop().create_future()
        self._waiting.append(reply)
        self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub says one
        try:
            async with asyncio.timeout(SOCKET_TIMEOUT_SECONDS):  # cheaper than `wait_for`
                return await reply
        except TimeoutError:
            error = ConnectionError(f"no answer in {SOCKET_TIMEOUT_SECONDS:g} s")
            self._broken(error)
            raise error from None

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if isinstance(reply, hiredis.PushNotification):
                if reply[0] == b"invalidate":
                    self._tell(reply[1])
            elif self._waiting:
                future = self._waiting.pop(0)
                if future.done():
                    continue
                if isinstance(reply, Exception):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self._broken(error or ConnectionError("Redis closed the connection"))

    def _broken(self, error: Exception) -> None:
        if not self.is_open:
            return
        self.is_open = False
        if self._transport:
            self._transport.abort()
        for future in self._waiting:
            if not future.done():
                future.set_exception(ConnectionError(str(error)))
                future.exception()  # a caller that has gone does not ask for it
        self._waiting.clear()
        self._tell(None)  # what was not told is read

    async def close(self) -> None:
        self._broken(ConnectionError("closed"))
        if self._connecting:
            with suppress(Exception, asyncio.CancelledError):  # those who looked have it
                await self._connecting
        if self._connection:
            await self._connection.disconnect(nowait=True)


class ToldQueue(Queue):
    """The queue of one of several partitions: it is read when something may have come."""

    def __init__(self, call: Any, keys: Keys, arrivals: Arrivals, url: str = "") -> None:
        super().__init__(call, keys, url)
        self._arrivals = arrivals
        self._partition = keys.partition
        self._come = arrivals.come(keys.partition)
        self._come.set()
        self._is_known = False
        """Whether there are entries, by the server that the lease is on."""
        self.about: Mapping[str, int] = {"partition": keys.partition}

    def note_unread(self, count: int) -> None:
        """Notes how many entries have not been read: nobody need have told of them."""
        self._is_known = count > 0
        if self._is_known:
            self._come.set()

    @property
    def may_have_more(self) -> bool:
        """As Queue's: not if no server has told of anything since the last look."""
        return self._come.is_set()

    async def read(self, count: int, wait_ms: int = 0) -> list[QueueEntry]:
        """As Queue's."""
        self._arrivals.close_unused()
        if not self._come.is_set() and not await self._has_come(wait_ms):
            return []
        self._come.clear()
        is_known, self._is_known = self._is_known, False
        try:
            length = await self._arrivals.look(self._partition)
            found = await super().read(count) if length or is_known else []
        except RedisUnavailable:
            self._come.set()
            raise
        if len(found) == count:
            self._come.set()
        return found

    async def _has_come(self, wait_ms: int) -> bool:
        """Waits up to `wait_ms` until something may have come; returns whether to read."""
        is_told = self._arrivals.are_told(self._partition)
        with suppress(TimeoutError):
            # makes no task, as `wait_for` does: each partition that is led waits here once a second
            async with asyncio.timeout((wait_ms if is_told else min(wait_ms, POLL_MS)) / 1000):
                await self._come.wait()
        return self._come.is_set() or (not is_told and wait_ms > 0)
