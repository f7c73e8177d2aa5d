"""Puts status changes on the queue, for backends. Needs neither Celery nor a worker's packages.

redis-py is imported when a client is created, so that importing this module stays cheap.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Self

from dispatcher.errors import DispatcherError, InvalidInput
from dispatcher.given import Change as Change
from dispatcher.given import Given, looked_at, several
from dispatcher.given import Ready as Ready
from dispatcher.given import ready as ready
from dispatcher.given import unknown_workspace as unknown_workspace

if TYPE_CHECKING:
    import asyncio

    import redis.asyncio

    from dispatcher.store.round_trips import AsyncNodes, Nodes

BATCH = 500
"""Status changes per round trip."""

SLICE, SLICE_BYTES = 50, 64 * 1024
"""Status changes, and bytes of them, that AsyncDispatcher validates before the event loop serves other tasks: about 2 ms."""


class Dispatcher:
    """Enqueues status changes. Thread-safe; one per process is enough.

    >>> dispatcher = Dispatcher.from_url("redis://127.0.0.1:6379/0")
    >>> dispatcher.enqueue(StatusChange(workspace="acme", status="DELIVERED", ...))

    `from_url` makes one from a URL. The constructor takes a client that you have:

    client: a redis.Redis; `close` closes it
    url: where it leads, for error texts only, which leave out user and
        password
    key_prefix: prefix of every key: the workers' DISPATCHER_KEY_PREFIX,
        1 to 32 letters, digits, _, . or -
    partitions, widths: as `from_url` takes them
    """

    def __init__(
        self,
        client: "redis.Redis | Nodes",
        url: str = "",
        key_prefix: str = "dispatcher",
        *,
        partitions: int = 1,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        _refuse_no_client(self, client)
        from dispatcher.store.connection import connect
        from dispatcher.store.producer_servers import queue_of
        from dispatcher.store.round_trips import Nodes

        self._nodes = client if isinstance(client, Nodes) else Nodes(connect, {url: client})
        is_url = isinstance(client, Nodes)
        self._queue = queue_of(url, key_prefix, partitions, widths, BATCH, is_url=is_url)

    @classmethod
    def from_url(
        cls,
        redis_url: str,
        *,
        key_prefix: str = "dispatcher",
        partitions: int = 1,
        widths: Mapping[str, int] | None = None,
    ) -> Self:
        """Creates a client, which connects at the first call and gives up after 5 s without an answer.

        redis_url: redis://, rediss:// (TLS) or unix://, as in
            DISPATCHER_REDIS_URL; with partitions also several of these,
            separated by blanks or commas, or redis+cluster://host:port,…
        key_prefix: prefix of every key: the workers' DISPATCHER_KEY_PREFIX
        partitions: the workers' DISPATCHER_PARTITIONS (docs/partitions.md)
        widths: over how many partitions a workspace is spread, for
            workspaces with more than one. A wrong or missing number loses
            nothing: a worker hands the status change on.

        Raises InvalidInput if one of them is invalid.
        """
        from dispatcher.store.connection import connect
        from dispatcher.store.round_trips import Nodes

        return cls(Nodes(connect), redis_url, key_prefix, partitions=partitions, widths=widths)

    def enqueue(self, *changes: Change, check: bool = False, durable: bool | int = False) -> list[str]:
        """Enqueues status changes and returns their eventIds; enqueues none if one is invalid.

        With `check` it first asks Redis whether the workspaces exist, and refuses an unknown one here instead of leaving it
        for a worker to reject. With `durable` it returns once Redis has the status changes in its append-only file on disk and,
        if a replica is attached, at one of these; a number above 1 is how many replicas must have them. Without it Redis alone
        decides when (appendfsync). Redis before 7.2 confirms only replicas.

        Raises InvalidInput, RedisFull, or EnqueueInterrupted (a RedisUnavailable), which lists what is certainly on the queue,
        and with `durable` what was confirmed: if less is confirmed within 5 s, the rest may nevertheless be on the queue.
        """
        return self._enqueue(looked_at(changes), False, check, durable)

    def enqueue_many(
        self,
        changes: Iterable[Change],
        *,
        skip_invalid: bool = False,
        check: bool = False,
        durable: bool | int = False,
    ) -> list[str]:
        """Enqueues many status changes in order, pipelined; returns their eventIds.

        If some are invalid, raises InvalidInput, whose `problems` name each by position, and enqueues none;
        with `skip_invalid` it enqueues the valid ones instead. `check`, `durable` and the other errors are those of `enqueue`.
        With partitions the order is kept within each, so also of one message's changes. A server that is away stops its own
        partitions; what goes to the others is enqueued, and confirmed in the error.
        """
        return self._enqueue(looked_at(several(changes)), skip_invalid, check, durable)

    def enqueue_ready(self, changes: Iterable[Ready], *, durable: bool | int = False) -> list[str]:
        """Enqueues status changes that are validated; for this package's own programs, which do that first.

        Raises RedisFull or EnqueueInterrupted.
        """
        from dispatcher.store.durability import read_durable

        return self._nodes.run(self._queue.enqueue(changes, read_durable(durable)))

    def unknown_workspaces(self, workspaces: Iterable[str]) -> list[str]:
        """Returns which of the workspaces do not exist, in one round trip. Raises RedisUnavailable."""
        return self._nodes.run(self._queue.unknown(workspaces))

    def queued(self) -> int:
        """How many status changes are on the queue, of all partitions. Raises RedisUnavailable."""
        return self._nodes.run(self._queue.length())

    def close(self) -> None:
        """Closes the connections."""
        self._nodes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _enqueue(self, given: Given, skip_invalid: bool, check: bool, durable: bool | int) -> list[str]:
        if check:
            given.take_out(self.unknown_workspaces(given.workspaces))
        given.refuse(skip_invalid)
        return self.enqueue_ready(given.valid, durable=durable)


class AsyncDispatcher:
    """Enqueues status changes from asyncio; methods and arguments are those of Dispatcher.

    One belongs to the event loop of its first call; after `close` it may be used in another. A call that is
    cancelled, or is out of time, raises and does not say what is on the queue: enqueue all of it again.
    """

    def __init__(
        self,
        client: "redis.asyncio.Redis | AsyncNodes",
        url: str = "",
        key_prefix: str = "dispatcher",
        *,
        partitions: int = 1,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        _refuse_no_client(self, client)
        from dispatcher.store.connection import connect_async
        from dispatcher.store.producer_servers import queue_of
        from dispatcher.store.round_trips import AsyncNodes

        self._nodes = client if isinstance(client, AsyncNodes) else AsyncNodes(connect_async, {url: client})
        is_url = isinstance(client, AsyncNodes)
        self._queue = queue_of(url, key_prefix, partitions, widths, BATCH, is_url=is_url)
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def from_url(
        cls,
        redis_url: str,
        *,
        key_prefix: str = "dispatcher",
        partitions: int = 1,
        widths: Mapping[str, int] | None = None,
    ) -> Self:
        """As `Dispatcher.from_url`."""
        from dispatcher.store.connection import connect_async
        from dispatcher.store.round_trips import AsyncNodes

        return cls(AsyncNodes(connect_async), redis_url, key_prefix, partitions=partitions, widths=widths)

    async def enqueue(self, *changes: Change, check: bool = False, durable: bool | int = False) -> list[str]:
        """As `Dispatcher.enqueue`."""
        return await self._enqueue(changes, False, check, durable)

    async def enqueue_many(
        self,
        changes: Iterable[Change],
        *,
        skip_invalid: bool = False,
        check: bool = False,
        durable: bool | int = False,
    ) -> list[str]:
        """As `Dispatcher.enqueue_many`."""
        return await self._enqueue(several(changes), skip_invalid, check, durable)

    async def enqueue_ready(self, changes: Iterable[Ready], *, durable: bool | int = False) -> list[str]:
        """As `Dispatcher.enqueue_ready`."""
        from dispatcher.store.durability import read_durable

        self._stay_in_loop()
        return await self._nodes.run(self._queue.enqueue(changes, read_durable(durable)))

    async def unknown_workspaces(self, workspaces: Iterable[str]) -> list[str]:
        """As `Dispatcher.unknown_workspaces`."""
        self._stay_in_loop()
        return await self._nodes.run(self._queue.unknown(workspaces))

    async def queued(self) -> int:
        """As `Dispatcher.queued`."""
        self._stay_in_loop()
        return await self._nodes.run(self._queue.length())

    async def close(self) -> None:
        """Closes the connections."""
        self._stay_in_loop()
        await self._nodes.aclose()
        self._loop = None

    aclose = close  # what contextlib.aclosing calls

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _enqueue(
        self, changes: Iterable[object], skip_invalid: bool, check: bool, durable: bool | int
    ) -> list[str]:
        import asyncio

        given, count, length = Given(), 0, 0
        for position, change in enumerate(changes):
            if count == SLICE or length >= SLICE_BYTES:
                await asyncio.sleep(0)  # lets other tasks run
                count, length = 0, 0
            length += given.add(position, change)
            count += 1
        if check:
            given.take_out(await self.unknown_workspaces(given.workspaces))
        given.refuse(skip_invalid)
        return await self.enqueue_ready(given.valid, durable=durable)

    def _stay_in_loop(self) -> None:
        """Raises DispatcherError in another event loop than that of the connections."""
        import asyncio

        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise DispatcherError(
                "this AsyncDispatcher was first used in another event loop, to which its connections belong: make one in each "
                "asyncio.run, or close it at the end of each"
            )
        self._loop = loop


def _refuse_no_client(dispatcher: "Dispatcher | AsyncDispatcher", client: object) -> None:
    """Raises InvalidInput for what is no client of redis-py's, or one of the other kind."""
    modules = {one.__module__ for one in type(client).__mro__}
    is_async = isinstance(dispatcher, AsyncDispatcher)
    is_other = "redis.client" in modules and ("redis.asyncio.client" in modules) != is_async
    is_ours = "dispatcher.store.round_trips" in modules
    if is_other or not (is_ours or hasattr(client, "pipeline")):
        name, wanted = type(dispatcher).__name__, "redis.asyncio.Redis" if is_async else "redis.Redis"
        raise InvalidInput(f"{name} takes a {wanted}; {name}.from_url takes a URL")
