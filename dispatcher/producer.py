"""Puts status changes on the queue, for backends. Needs neither Celery nor a worker's packages.

redis-py is imported when a client is created, so that importing this module stays cheap.
"""

from collections.abc import Awaitable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from dispatcher.errors import EnqueueInterrupted, RedisFull, RedisUnavailable
from dispatcher.given import Change as Change
from dispatcher.given import Given, looked_at, several
from dispatcher.given import Ready as Ready
from dispatcher.given import ready as ready
from dispatcher.given import unknown_workspace as unknown_workspace

if TYPE_CHECKING:
    import redis.asyncio

    from dispatcher.store.keys import Keys

BATCH = 500
"""Status changes per round trip."""


class Dispatcher:
    """Enqueues status changes. Thread-safe; one per process is enough.

    >>> dispatcher = Dispatcher.from_url("redis://127.0.0.1:6379/0")
    >>> dispatcher.enqueue(StatusChange(workspace="acme", status="DELIVERED", ...))
    """

    def __init__(self, client: "redis.Redis", url: str = "", key_prefix: str = "dispatcher") -> None:
        from dispatcher.store.keys import Keys

        self._client = client
        self._url = url
        self._keys = Keys(key_prefix)

    @classmethod
    def from_url(cls, redis_url: str, *, key_prefix: str = "dispatcher") -> Self:
        """Creates a client, which connects at the first call and gives up after 5 s without an answer. Raises InvalidInput for an invalid URL."""
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
        """Enqueues validated status changes. Raises RedisFull or EnqueueInterrupted."""
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
    """Enqueues status changes from asyncio; methods are those of Dispatcher."""

    def __init__(self, client: "redis.asyncio.Redis", url: str = "", key_prefix: str = "dispatcher") -> None:
        from dispatcher.store.keys import Keys

        self._client = client
        self._url = url
        self._keys = Keys(key_prefix)

    @classmethod
    def from_url(cls, redis_url: str, *, key_prefix: str = "dispatcher") -> Self:
        """As `Dispatcher.from_url`."""
        from dispatcher.store.connection import connect_async

        return cls(connect_async(redis_url), redis_url, key_prefix)

    async def enqueue(self, *changes: Change, check: bool = False) -> list[str]:
        """As `Dispatcher.enqueue`."""
        return await self._enqueue(looked_at(changes), False, check)

    async def enqueue_many(
        self, changes: Iterable[Change], *, skip_invalid: bool = False, check: bool = False
    ) -> list[str]:
        """As `Dispatcher.enqueue_many`."""
        return await self._enqueue(looked_at(several(changes)), skip_invalid, check)

    async def enqueue_ready(self, changes: Iterable[Ready]) -> list[str]:
        """As `Dispatcher.enqueue_ready`."""
        confirmed: list[str] = []
        for batch in _batches(changes):
            _confirm(batch, await self._send(batch, confirmed), confirmed, self._url)
        return confirmed

    async def unknown_workspaces(self, workspaces: Iterable[str]) -> list[str]:
        """As `Dispatcher.unknown_workspaces`."""
        names = list(dict.fromkeys(workspaces))
        if not names:
            return []
        with _asking(self._url, self._keys):
            asked: Awaitable[Any] = self._client.smismember(self._keys.workspaces, names)
            there = await asked
        return _absent(names, there)

    async def queued(self) -> int:
        """As `Dispatcher.queued`."""
        from dispatcher.store.connection import translated

        with translated(self._url):
            return int(await self._client.xlen(self._keys.events))

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    aclose = close  # what contextlib.aclosing calls

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _enqueue(self, given: Given, skip_invalid: bool, check: bool) -> list[str]:
        if check:
            given.take_out(await self.unknown_workspaces(given.workspaces))
        given.refuse(skip_invalid)
        return await self.enqueue_ready(given.valid)

    async def _send(self, batch: Sequence[Ready], confirmed: list[str]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for one in batch:
            pipe.xadd(self._keys.events, {"event": one.raw})
        with _interruptible(confirmed, self._url):
            return await pipe.execute(raise_on_error=False)


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
        if "NOPERM" in str(error) or "no permissions" in str(error):
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
        count = (
            f"{len(confirmed)} status changes are on the queue for certain"
            if confirmed
            else "none is confirmed"
        )
        return EnqueueInterrupted(f"{str(ours).rstrip('?')}; of what was to be enqueued {count}", confirmed)
    return ours
