"""Puts status changes on the queue, for backends. Needs neither Celery nor a worker's packages.

redis-py is imported when a client is created, so that importing this module stays cheap.
"""

from collections.abc import Awaitable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from dispatcher.errors import (
    DispatcherError,
    EnqueueInterrupted,
    InvalidInput,
    RedisFull,
    RedisUnavailable,
    sentence,
    visible,
)
from dispatcher.given import Change as Change
from dispatcher.given import Given, looked_at, several
from dispatcher.given import Ready as Ready
from dispatcher.given import ready as ready
from dispatcher.given import unknown_workspace as unknown_workspace

if TYPE_CHECKING:
    import asyncio

    import redis.asyncio

    from dispatcher.store.keys import Keys

BATCH = 500
"""Status changes per round trip."""

SLICE = 50
"""Status changes that AsyncDispatcher validates before the event loop serves other tasks: about 2 ms."""


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
    """

    def __init__(self, client: "redis.Redis", url: str = "", key_prefix: str = "dispatcher") -> None:
        _refuse_no_client(self, client)
        self._client = client
        self._url = url
        self._keys = _keys(key_prefix)

    @classmethod
    def from_url(cls, redis_url: str, *, key_prefix: str = "dispatcher") -> Self:
        """Creates a client, which connects at the first call and gives up after 5 s without an answer.

        redis_url: redis://, rediss:// (TLS) or unix://, as in DISPATCHER_REDIS_URL
        key_prefix: prefix of every key: the workers' DISPATCHER_KEY_PREFIX

        Raises InvalidInput if either is invalid.
        """
        from dispatcher.store.connection import connect

        return cls(connect(redis_url), redis_url, key_prefix)

    def enqueue(self, *changes: Change, check: bool = False) -> list[str]:
        """Enqueues status changes and returns their eventIds; enqueues none if one is invalid.

        With `check` it first asks Redis whether the workspaces exist, and refuses an unknown one here instead of leaving it
        for a worker to reject. Raises InvalidInput, RedisFull, or EnqueueInterrupted (a RedisUnavailable), which lists what
        is certainly on the queue.
        """
        return self._enqueue(looked_at(changes), False, check)

    def enqueue_many(
        self, changes: Iterable[Change], *, skip_invalid: bool = False, check: bool = False
    ) -> list[str]:
        """Enqueues many status changes in order, pipelined; returns their eventIds.

        If some are invalid, raises InvalidInput, whose `problems` name each by position, and enqueues none;
        with `skip_invalid` it enqueues the valid ones instead. `check` and the other errors are those of `enqueue`.
        """
        return self._enqueue(looked_at(several(changes)), skip_invalid, check)

    def enqueue_ready(self, changes: Iterable[Ready]) -> list[str]:
        """Enqueues what `dispatcher.given.ready` returned; for this package's own programs, which validate first.

        Raises RedisFull or EnqueueInterrupted.
        """
        confirmed: list[str] = []
        for batch in _batches(changes):
            _confirm(batch, self._send(batch, confirmed), confirmed, self._url)
        return confirmed

    def unknown_workspaces(self, workspaces: Iterable[str]) -> list[str]:
        """Returns which of the workspaces do not exist, in one round trip. Raises RedisUnavailable."""
        names = list(dict.fromkeys(workspaces))
        if not names:
            return []
        with _asking(self._url, self._keys):
            there: Any = self._client.smismember(self._keys.workspaces, names)
        return _absent(names, there)

    def queued(self) -> int:
        """How many status changes are on the queue. Raises RedisUnavailable."""
        from dispatcher.store.connection import translated

        with translated(self._url):
            count: Any = self._client.xlen(self._keys.events)
        return int(count)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _enqueue(self, given: Given, skip_invalid: bool, check: bool) -> list[str]:
        if check:
            given.take_out(self.unknown_workspaces(given.workspaces))
        given.refuse(skip_invalid)
        return self.enqueue_ready(given.valid)

    def _send(self, batch: Sequence[Ready], confirmed: list[str]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for one in batch:
            pipe.xadd(self._keys.events, {"event": one.raw})
        with _interruptible(confirmed, self._url):
            return pipe.execute(raise_on_error=False)


class AsyncDispatcher:
    """Enqueues status changes from asyncio; methods and arguments are those of Dispatcher.

    One belongs to the event loop of its first call; after `close` it may be used in another. A call that is
    cancelled, or is out of time, raises and does not say what is on the queue: enqueue all of it again.
    """

    def __init__(self, client: "redis.asyncio.Redis", url: str = "", key_prefix: str = "dispatcher") -> None:
        _refuse_no_client(self, client)
        self._client = client
        self._url = url
        self._keys = _keys(key_prefix)
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def from_url(cls, redis_url: str, *, key_prefix: str = "dispatcher") -> Self:
        """As `Dispatcher.from_url`."""
        from dispatcher.store.connection import connect_async

        return cls(connect_async(redis_url), redis_url, key_prefix)

    async def enqueue(self, *changes: Change, check: bool = False) -> list[str]:
        """As `Dispatcher.enqueue`."""
        return await self._enqueue(changes, False, check)

    async def enqueue_many(
        self, changes: Iterable[Change], *, skip_invalid: bool = False, check: bool = False
    ) -> list[str]:
        """As `Dispatcher.enqueue_many`."""
        return await self._enqueue(several(changes), skip_invalid, check)

    async def enqueue_ready(self, changes: Iterable[Ready]) -> list[str]:
        """As `Dispatcher.enqueue_ready`."""
        confirmed: list[str] = []
        for batch in _batches(changes):
            _confirm(batch, await self._send(batch, confirmed), confirmed, self._url)
        return confirmed

    async def unknown_workspaces(self, workspaces: Iterable[str]) -> list[str]:
        """As `Dispatcher.unknown_workspaces`."""
        from dispatcher.store.cancellable import cancellable

        names = list(dict.fromkeys(workspaces))
        if not names:
            return []
        self._stay_in_loop()
        with _asking(self._url, self._keys):
            asked: Awaitable[Any] = self._client.smismember(self._keys.workspaces, names)
            there = await cancellable(asked)
        return _absent(names, there)

    async def queued(self) -> int:
        """As `Dispatcher.queued`."""
        from dispatcher.store.cancellable import cancellable
        from dispatcher.store.connection import translated

        self._stay_in_loop()
        with translated(self._url):
            return int(await cancellable(self._client.xlen(self._keys.events)))

    async def close(self) -> None:
        """Closes the connections."""
        self._stay_in_loop()
        await self._client.aclose()
        self._loop = None

    aclose = close  # what contextlib.aclosing calls

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _enqueue(self, changes: Iterable[object], skip_invalid: bool, check: bool) -> list[str]:
        import asyncio

        given = Given()
        for position, change in enumerate(changes):
            if position % SLICE == SLICE - 1:
                await asyncio.sleep(0)  # lets other tasks run
            given.add(position, change)
        if check:
            given.take_out(await self.unknown_workspaces(given.workspaces))
        given.refuse(skip_invalid)
        return await self.enqueue_ready(given.valid)

    async def _send(self, batch: Sequence[Ready], confirmed: list[str]) -> list[Any]:
        from dispatcher.store.cancellable import cancellable

        self._stay_in_loop()
        pipe = self._client.pipeline(transaction=False)
        for one in batch:
            pipe.xadd(self._keys.events, {"event": one.raw})
        with _interruptible(confirmed, self._url):
            return await cancellable(pipe.execute(raise_on_error=False))

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
    if is_other or not hasattr(client, "pipeline"):
        name, wanted = type(dispatcher).__name__, "redis.asyncio.Redis" if is_async else "redis.Redis"
        raise InvalidInput(f"{name} takes a {wanted}; {name}.from_url takes a URL")


def _keys(key_prefix: str) -> "Keys":
    """Raises InvalidInput for a prefix that no worker can have."""
    from dispatcher.store.keys import Keys, is_prefix

    if not is_prefix(key_prefix):
        raise InvalidInput(
            f"key_prefix is {visible(repr(key_prefix))[:50]}: give the workers' DISPATCHER_KEY_PREFIX, which is "
            "1 to 32 letters, digits, _, . or -"
        )
    return Keys(key_prefix)


def _batches(changes: Iterable[Ready]) -> Iterator[list[Ready]]:
    rest = iter(changes)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _absent(names: Sequence[str], there: Sequence[int]) -> list[str]:
    return [name for name, is_there in zip(names, there, strict=True) if not is_there]


@contextmanager
def _asking(url: str, keys: "Keys") -> Iterator[None]:
    """Translates Redis's errors; tells a Redis user without the permission which rule it needs."""
    from dispatcher.store.connection import translated

    try:
        with translated(url):
            yield
    except RedisUnavailable as error:
        if "NOPERM" in str(error) or "no permissions" in str(error).lower():
            raise RedisUnavailable(
                f"this Redis user may not ask which workspaces there are; check=True needs `~{keys.workspaces} +smismember` "
                "(ACL SETUSER; see docs/operations.md)"
            ) from error
        raise


@contextmanager
def _interruptible(confirmed: list[str], url: str) -> Iterator[None]:
    """Translates Redis's errors, with what is certainly on the queue."""
    from redis.exceptions import RedisError

    try:
        yield
    except (RedisError, OSError) as error:
        raise _interrupted(error, confirmed, url) from error


def _confirm(batch: Sequence[Ready], replies: Sequence[Any], confirmed: list[str], url: str) -> None:
    error = next((reply for reply in replies if isinstance(reply, Exception)), None)
    confirmed += [
        one.event_id for one, reply in zip(batch, replies, strict=True) if not isinstance(reply, Exception)
    ]
    if error is not None:
        raise _interrupted(error, confirmed, url) from error


def _interrupted(error: Exception, confirmed: list[str], url: str) -> Exception:
    from dispatcher.store.connection import translate

    ours = translate(error, url)
    if isinstance(ours, RedisFull) and not confirmed:
        return ours
    if isinstance(ours, RedisUnavailable):
        known = (
            f"{len(confirmed):,} {'is' if len(confirmed) == 1 else 'are'} on the queue for certain"
            if confirmed
            else "none is confirmed"
        )
        return EnqueueInterrupted(f"{sentence(str(ours))} Of what was to be enqueued {known}", confirmed)
    return ours
