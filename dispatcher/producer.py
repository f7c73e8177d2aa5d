"""Puts status changes on the queue, for backends. Needs neither Celery nor a worker's packages.

redis-py is imported when a client is created, so that importing this module stays cheap.
"""

import time
from collections.abc import AsyncIterable, Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from dispatcher.errors import EnqueueInterrupted, InvalidInput, RedisFull, RedisUnavailable
from dispatcher.model import StatusChange, check_not_ahead, timestamp_ms
from dispatcher.records import Record

if TYPE_CHECKING:
    import redis.asyncio

    from dispatcher.store.keys import Keys

BATCH = 500
"""Status changes per round trip."""

SHOWN = 3
"""Problems that an error text lists; `problems` has all of them."""

Change = StatusChange | Mapping[str, Any]
"""A StatusChange, or a dict with the names as in JSON."""


class Ready(NamedTuple):
    """A validated status change, as it goes onto the queue."""

    event_id: str
    workspace: str
    raw: bytes


def ready(change: Change, now_ms: int, *, allow_http: bool = True) -> Ready:
    """Validates what every worker would reject: fields, length, an unusable callback URL, a time too far ahead.

    Raises InvalidInput.
    """
    one = change if isinstance(change, StatusChange) else StatusChange.from_dict(change)
    check_not_ahead(timestamp_ms(one.timestamp), now_ms)
    if one.callback_url is not None:
        _check_url(one.callback_url, allow_http)
    return Ready(one.event_id, one.workspace, one.to_json())


def unknown_workspace(workspace: str) -> str:
    """The error text for a status change of an unknown workspace."""
    return f"workspace: there is no workspace {workspace!r}"


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
        return self._enqueue(_looked_at(changes), False, check)

    def enqueue_many(
        self, changes: Iterable[Change], *, skip_invalid: bool = False, check: bool = False
    ) -> list[str]:
        """Enqueues many status changes in order, pipelined; returns their eventIds.

        If some are invalid, raises InvalidInput, whose `problems` name each by position, and enqueues none;
        with `skip_invalid` it enqueues the valid ones instead. `check` and the other errors are those of `enqueue`.
        """
        return self._enqueue(_looked_at(_several(changes)), skip_invalid, check)

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

    def _enqueue(self, looked_at: "_Looked", skip_invalid: bool, check: bool) -> list[str]:
        if check:
            looked_at.take_out(self.unknown_workspaces(looked_at.workspaces))
        looked_at.refuse(skip_invalid)
        return self.enqueue_ready(looked_at.valid)

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
        return await self._enqueue(_looked_at(changes), False, check)

    async def enqueue_many(
        self, changes: Iterable[Change], *, skip_invalid: bool = False, check: bool = False
    ) -> list[str]:
        """As `Dispatcher.enqueue_many`."""
        return await self._enqueue(_looked_at(_several(changes)), skip_invalid, check)

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

    async def _enqueue(self, looked_at: "_Looked", skip_invalid: bool, check: bool) -> list[str]:
        if check:
            looked_at.take_out(await self.unknown_workspaces(looked_at.workspaces))
        looked_at.refuse(skip_invalid)
        return await self.enqueue_ready(looked_at.valid)

    async def _send(self, batch: Sequence[Ready], confirmed: list[str]) -> list[Any]:
        pipe = self._client.pipeline(transaction=False)
        for one in batch:
            pipe.xadd(self._keys.events, {"event": one.raw})
        with _interruptible(confirmed, self._url):
            return await pipe.execute(raise_on_error=False)


class _Looked:
    """The given status changes by position: the valid ones, and the problems of the others."""

    def __init__(self) -> None:
        self._ready: dict[int, Ready] = {}
        self._problems: dict[int, str] = {}

    @property
    def valid(self) -> Iterable[Ready]:
        return self._ready.values()

    @property
    def workspaces(self) -> Iterable[str]:
        return (one.workspace for one in self._ready.values())

    def add(self, position: int, given: object) -> None:
        try:
            if not isinstance(given, StatusChange | Mapping):
                raise InvalidInput(_what_it_is(given))
            self._ready[position] = ready(given, round(time.time() * 1000))
        except InvalidInput as error:
            self._problems[position] = str(error)

    def take_out(self, unknown: Sequence[str]) -> None:
        """Marks those of unknown workspaces as invalid."""
        if unknown:
            wrong = {n: one.workspace for n, one in self._ready.items() if one.workspace in unknown}
            self._problems |= {number: unknown_workspace(workspace) for number, workspace in wrong.items()}
            self._ready = {number: one for number, one in self._ready.items() if number not in wrong}

    def refuse(self, skip_invalid: bool) -> None:
        """Raises InvalidInput if some are invalid and must not be skipped."""
        if not self._problems or skip_invalid:
            return
        problems = sorted(self._problems.items())
        if len(problems) + len(self._ready) == 1:
            raise InvalidInput(
                f"the status change is invalid, and was not enqueued: {problems[0][1]}", problems
            )
        shown = "; ".join(f"number {position}: {text}" for position, text in problems[:SHOWN])
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        count = "1 status change is" if len(problems) == 1 else f"{len(problems)} status changes are"
        raise InvalidInput(f"{count} invalid, none was enqueued: {shown}{more}", problems)


def _looked_at(changes: Iterable[object]) -> _Looked:
    looked_at = _Looked()
    for position, given in enumerate(changes):
        looked_at.add(position, given)
    return looked_at


def _several(changes: object) -> Iterable[object]:
    """The argument of `enqueue_many`, if it is an iterable of status changes. Raises InvalidInput."""
    if isinstance(changes, Record | Mapping):  # these are iterable too
        raise InvalidInput(
            "enqueue_many takes a list of status changes, or another iterable; enqueue takes one"
        )
    if isinstance(changes, Iterable) and not isinstance(changes, str | bytes | bytearray):
        return changes
    raise InvalidInput(
        f"enqueue_many takes a list of status changes, or another iterable: this {_kind(changes)}"
    )


def _what_it_is(given: object) -> str:
    """Explains why a value is not a status change."""
    if isinstance(given, str | bytes | bytearray | memoryview):
        return f"{_kind(given)}: give a StatusChange or a dict; StatusChange.from_json reads JSON"
    if isinstance(given, Iterable | AsyncIterable) and not isinstance(given, Record):
        return f"{_kind(given)}: enqueue takes status changes one by one; enqueue_many takes a list of them"
    if isinstance(given, Awaitable):
        return f"{_kind(given)} that was not awaited: give a StatusChange or a dict"
    return f"{_kind(given)}: give a StatusChange or a dict"


def _kind(given: object) -> str:
    if given is None:
        return "is None"
    name = type(given).__name__
    return f"is {'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _check_url(url: str, allow_http: bool) -> None:
    """Raises InvalidInput for a URL that no settings would allow."""
    from dispatcher.rules.addresses import parse_callback_url

    try:
        parse_callback_url(url, allow_http=allow_http)
    except ImportError:  # of idna, for a host that is not ASCII: a worker has it, and checks the URL
        return


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
