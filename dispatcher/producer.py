"""Puts status changes on the queue: for backends. Needs neither Celery nor the rest of this package."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Self

import redis
import redis.asyncio

from dispatcher.connection import connect, connect_async, translate, translated
from dispatcher.errors import EnqueueInterrupted, InvalidInput, RedisFull, RedisUnavailable
from dispatcher.keys import Keys
from dispatcher.model import StatusChange

BATCH = 500
"""Status changes per round trip."""

Change = StatusChange | dict[str, Any]
_Prepared = tuple[str, bytes]


class Dispatcher:
    """Enqueues status changes; thread-safe, one per process is enough.

    >>> dispatcher = Dispatcher.from_url("redis://127.0.0.1:6379/0")
    >>> dispatcher.enqueue(StatusChange(workspace="acme", status="DELIVERED", ...))
    """

    def __init__(self, client: "redis.Redis", url: str = "", key_prefix: str = "dispatcher") -> None:
        self._client = client
        self._url = url
        self._stream = Keys(key_prefix).events

    @classmethod
    def from_url(cls, redis_url: str, *, key_prefix: str = "dispatcher") -> Self:
        """Connects at the first call. A call gives up after 5 s without an answer."""
        return cls(connect(redis_url), redis_url, key_prefix)

    def enqueue(self, *changes: Change) -> list[str]:
        """Enqueues status changes (all or, where one is invalid, none); returns their eventIds.

        Raises InvalidInput; RedisFull; or EnqueueInterrupted, a RedisUnavailable that lists what is
        on the queue for certain.
        """
        return self.enqueue_many(changes)

    def enqueue_many(self, changes: Iterable[Change], *, skip_invalid: bool = False) -> list[str]:
        """Enqueues many status changes, pipelined, in order; returns their eventIds.

        Where some are invalid, raises InvalidInput whose `problems` name each by position, and
        enqueues none of them; with `skip_invalid` the valid ones are enqueued instead.
        """
        confirmed: list[str] = []
        for batch in _batches(_prepare(changes, skip_invalid)):
            replies = self._send(batch, confirmed)
            _confirm(batch, replies, confirmed, self._url)
        return confirmed

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _send(self, batch: Sequence[_Prepared], confirmed: list[str]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for _, raw in batch:
            pipe.xadd(self._stream, {"event": raw})
        try:
            return pipe.execute(raise_on_error=False)
        except (redis.RedisError, OSError) as error:
            raise _interrupted(error, confirmed, self._url) from error


class AsyncDispatcher:
    """The same for asyncio."""

    def __init__(self, client: "redis.asyncio.Redis", url: str = "", key_prefix: str = "dispatcher") -> None:
        self._client = client
        self._url = url
        self._stream = Keys(key_prefix).events

    @classmethod
    def from_url(cls, redis_url: str, *, key_prefix: str = "dispatcher") -> Self:
        """Connects at the first call. A call gives up after 5 s without an answer."""
        return cls(connect_async(redis_url), redis_url, key_prefix)

    async def enqueue(self, *changes: Change) -> list[str]:
        """As `Dispatcher.enqueue`."""
        return await self.enqueue_many(changes)

    async def enqueue_many(self, changes: Iterable[Change], *, skip_invalid: bool = False) -> list[str]:
        """As `Dispatcher.enqueue_many`."""
        confirmed: list[str] = []
        for batch in _batches(_prepare(changes, skip_invalid)):
            replies = await self._send(batch, confirmed)
            _confirm(batch, replies, confirmed, self._url)
        return confirmed

    async def queued(self) -> int:
        """How many status changes are on the queue. Raises RedisUnavailable."""
        with translated(self._url):
            return int(await self._client.xlen(self._stream))

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _send(self, batch: Sequence[_Prepared], confirmed: list[str]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for _, raw in batch:
            pipe.xadd(self._stream, {"event": raw})
        try:
            return await pipe.execute(raise_on_error=False)
        except (redis.RedisError, OSError) as error:
            raise _interrupted(error, confirmed, self._url) from error


def _prepare(changes: Iterable[Change], skip_invalid: bool) -> list[_Prepared]:
    prepared: list[_Prepared] = []
    problems: list[tuple[int, str]] = []
    for position, given in enumerate(changes):
        try:
            change = given if isinstance(given, StatusChange) else StatusChange.from_dict(given)
            prepared.append((change.event_id, change.to_json()))
        except InvalidInput as error:
            problems.append((position, str(error)))
    if problems and not skip_invalid:
        shown = "; ".join(f"number {position}: {text}" for position, text in problems[:3])
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InvalidInput(
            f"{len(problems)} status changes are invalid, none was enqueued: {shown}{more}", problems
        )
    return prepared


def _batches(prepared: list[_Prepared]) -> Iterator[list[_Prepared]]:
    rest = iter(prepared)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _confirm(batch: Sequence[_Prepared], replies: Sequence[Any], confirmed: list[str], url: str) -> None:
    error = next((reply for reply in replies if isinstance(reply, Exception)), None)
    confirmed += [
        event_id
        for (event_id, _), reply in zip(batch, replies, strict=True)
        if not isinstance(reply, Exception)
    ]
    if error is not None:
        raise _interrupted(error, confirmed, url) from error


def _interrupted(error: Exception, confirmed: list[str], url: str) -> Exception:
    ours = translate(error, url)
    if isinstance(ours, RedisFull) and not confirmed:
        return ours
    if isinstance(ours, RedisUnavailable):
        return EnqueueInterrupted(
            f"{ours}; {len(confirmed)} status changes are on the queue for certain", confirmed
        )
    return ours
