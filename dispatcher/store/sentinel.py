"""Connections to the primary that Redis Sentinel names (redis.io, "Redis Sentinel client spec").

Each new connection asks the sentinels where the primary is. One that finds itself at a replica closes, with the idle ones
of its pool, so that the next one asks again: a fail-over needs no restart.

After SENTINEL FAILOVER the old primary accepts writes for some 10 s more, which are lost when it becomes a replica. So the
sentinels are also asked every CHECK_SECONDS, and connections to a server that they no longer name are left.
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    InvalidResponse,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from dispatcher.store.redis_url import RedisUrl
from dispatcher.store.topology import Topology

TIMEOUT_SECONDS = 2.0
"""Of connecting to a sentinel, and of its answer, unless the URL says otherwise. They are asked one after another."""

CHECK_SECONDS = 1.0
"""How often the sentinels are asked while connections are used."""
CHECK_AGAIN_SECONDS = 10.0
"""The same after none of them named a primary: then the connections that there are go on."""

Address = tuple[str, int]


class Why(StrEnum):
    """Why no primary is known. If the sentinels disagree, the first of these that one of them says counts."""

    DOWN = "the sentinels hold the primary for down"
    UNKNOWN = "the sentinels know no primary of this name"
    REFUSED = "the sentinels refuse us"
    NO_SENTINEL = "what answers is no sentinel"
    AWAY = "no sentinel is reachable"


_ADVICE = {
    Why.DOWN: "They choose another one, if they can: look at their logs, and at SENTINEL MASTERS",
    Why.UNKNOWN: "SENTINEL MASTERS lists those they know: is the name in the URL right?",
    Why.REFUSED: "Check sentinel_username and sentinel_password in the URL",
    Why.NO_SENTINEL: "Name the sentinels in the URL, which most often have port 26379, not the servers",
    Why.AWAY: "Are they running, and is the URL right?",
}


class NoPrimary(ConnectionError):
    """The sentinels name no primary now; `advice` says what to do. The cause is what one of them said."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why

    def __reduce__(self) -> tuple[type["NoPrimary"], tuple[Why]]:
        """How it is copied, for each call that fails by it."""
        return type(self), (self.why,)

    @property
    def advice(self) -> str:
        """What to do about it."""
        return _ADVICE[self.why]


class BecameReplica(ConnectionError):
    """The server that we are connected to is no longer the primary; the connection is closed."""


def says_read_only(error: Exception) -> bool:
    """Whether a server refuses a write because it is a replica; in the error of a script it says so within the text."""
    return isinstance(error, ReadOnlyError) or (isinstance(error, ResponseError) and "READONLY" in str(error))


def address_in(state: Iterable[bytes], address: Iterable[bytes] | None) -> Address:
    """The primary's address in the replies to SENTINEL MASTER and SENTINEL GET-MASTER-ADDR-BY-NAME.

    Near the end of a fail-over the second one already names the new primary. Raises NoPrimary if it is held for down.
    """
    try:
        words = iter(state)
        known = {name.decode(): value.decode() for name, value in zip(words, words, strict=True)}
        host, port = (part.decode() for part in address or ())
        named, last, flags = (
            (host, int(port)),
            (known["ip"], int(known["port"])),
            set(known["flags"].split(",")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NoPrimary(Why.NO_SENTINEL) from None
    if named == last and ("master" not in flags or {"s_down", "o_down"} & flags):
        raise NoPrimary(Why.DOWN)
    return named


def no_primary(failures: list[Exception]) -> NoPrimary:
    """The error to raise if each sentinel failed in one of these ways."""
    order = list(Why)
    first = min(failures, key=lambda error: order.index(_why(error)))
    found = NoPrimary(_why(first))
    found.__cause__ = first
    return found


def _why(error: Exception) -> Why:
    text = str(error)
    if isinstance(error, NoPrimary):
        return error.why
    own = error.__cause__ if isinstance(error.__cause__, AuthenticationError) else error  # asyncio's wraps it
    if isinstance(own, AuthenticationError | NoPermissionError) or "NOAUTH" in text or "NOPERM" in text:
        return Why.REFUSED
    if isinstance(error, ResponseError) and "No such" in text:
        return Why.UNKNOWN
    return Why.NO_SENTINEL if isinstance(error, ResponseError | InvalidResponse) else Why.AWAY


class _Sentinels:
    """The sentinels of a URL; the one that answered last is asked first."""

    def __init__(self, topology: Topology, kinds: tuple[type[Any], type[Any]], retry: Any) -> None:
        self._options = [_options(RedisUrl.parse(url), retry) for url in topology.urls]
        self._kind = kinds[1] if topology.server.tls else kinds[0]

    def _connections(self) -> list[tuple[Any, Any]]:
        """A new connection for each, with what to prefer if it answers."""
        return [(self._kind(**options), options) for options in self._options]

    def _prefer(self, options: Any) -> None:
        self._options = [options] + [other for other in self._options if other is not options]


class Sentinels(_Sentinels):
    """Asks with blocking connections."""

    def discover_master(self, name: str) -> Address:
        """The primary's address. Raises NoPrimary."""
        failures: list[Exception] = []
        for connection, options in self._connections():
            try:
                connection.connect()
                connection.send_command("SENTINEL", "MASTER", name)
                state = connection.read_response()
                connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
                found = address_in(state, connection.read_response())
            except (RedisError, OSError) as error:
                failures.append(error)
            else:
                self._prefer(options)
                return found
            finally:
                connection.disconnect()
        raise no_primary(failures)


class AsyncSentinels(_Sentinels):
    """Asks with asyncio's connections."""

    async def discover_master(self, name: str) -> Address:
        """The primary's address. Raises NoPrimary."""
        failures: list[Exception] = []
        for connection, options in self._connections():
            try:
                await connection.connect()
                await connection.send_command("SENTINEL", "MASTER", name)
                state = await connection.read_response()
                await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
                found = address_in(state, await connection.read_response())
            except (RedisError, OSError) as error:
                failures.append(error)
            else:
                self._prefer(options)
                return found
            finally:
                await connection.disconnect(nowait=True)
        raise no_primary(failures)


class _Connection(redis.sentinel.SentinelManagedConnection):
    def read_response(self, *args: Any, **options: Any) -> Any:
        """As redis-py's, but also sees READONLY in the error of a script."""
        try:
            return super(redis.sentinel.SentinelManagedConnection, self).read_response(*args, **options)
        except ResponseError as error:
            if not says_read_only(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            if pool := self.connection_pool.connection_pool_ref():
                pool.disconnect(inuse_connections=False)
            raise BecameReplica("the primary has become a replica") from error


class _TlsConnection(_Connection, redis.SSLConnection):
    pass


class FollowsPrimary(redis.asyncio.sentinel.SentinelManagedConnection):
    """asyncio's connection to the primary."""

    async def is_left(self) -> bool:
        """Whether the sentinels now name another server; False if none of them answers."""
        with suppress(NoPrimary):
            return bool(await self.connection_pool.get_master_address() != (self.host, self.port))
        return False

    @property
    def is_known_left(self) -> bool:
        """Whether another connection of the pool was told of another server since; asks nobody."""
        return self.connection_pool.master_address not in (None, (self.host, self.port))

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """As redis-py's, but also sees READONLY in the error of a script."""
        try:
            return await super(redis.asyncio.sentinel.SentinelManagedConnection, self).read_response(
                *args, **options
            )
        except ResponseError as error:
            if not says_read_only(error):
                raise
            await self.disconnect()
            await self.connection_pool.disconnect(inuse_connections=False)
            raise BecameReplica("the primary has become a replica") from error


class _AsyncTlsConnection(FollowsPrimary, redis.asyncio.SSLConnection):
    pass


class Pool(redis.sentinel.SentinelConnectionPool, redis.BlockingConnectionPool):
    """Blocking connections to the primary; a caller waits while all are in use."""

    _check_at = 0.0

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """As redis-py's, to the server that the sentinels name now."""
        if self.master_address and (now := time.monotonic()) >= self._check_at:
            self._check_at = now + CHECK_AGAIN_SECONDS
            with suppress(NoPrimary):
                self.get_master_address()  # type: ignore[no-untyped-call]
                self._check_at = now + CHECK_SECONDS
        return super().get_connection(*args, **options)  # type: ignore[no-untyped-call]


class AsyncPool(redis.asyncio.sentinel.SentinelConnectionPool, redis.asyncio.BlockingConnectionPool):
    """asyncio's connections to the primary; a caller waits while all are in use."""

    _check_at = 0.0

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        """As redis-py's, to the server that the sentinels name now."""
        if self.master_address and (now := time.monotonic()) >= self._check_at:
            self._check_at = now + CHECK_AGAIN_SECONDS
            with suppress(NoPrimary):
                await self.get_master_address()  # type: ignore[no-untyped-call]
                self._check_at = now + CHECK_SECONDS
        return await super().get_connection(*args, **options)  # type: ignore[no-untyped-call]


def pool(topology: Topology, options: Mapping[str, Any]) -> Pool:
    """A pool of connections to the primary; `options` are redis-py's for pool and connections."""
    asked = Sentinels(topology, (redis.Connection, redis.SSLConnection), Retry(NoBackoff(), 0))
    kind = _TlsConnection if topology.server.tls else _Connection
    return Pool(topology.master, asked, connection_class=kind, **_login(topology.server), **options)  # type: ignore[no-untyped-call]


def async_pool(topology: Topology, options: Mapping[str, Any]) -> AsyncPool:
    """As `pool`, for asyncio."""
    kinds = redis.asyncio.Connection, redis.asyncio.SSLConnection
    asked = AsyncSentinels(topology, kinds, AsyncRetry(NoBackoff(), 0))
    kind = _AsyncTlsConnection if topology.server.tls else FollowsPrimary
    return AsyncPool(topology.master, asked, connection_class=kind, **_login(topology.server), **options)  # type: ignore[no-untyped-call]


def _options(where: RedisUrl, retry: Any) -> dict[str, Any]:
    return {
        "host": where.host,
        "port": where.port,
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "protocol": 2,
        "retry": retry,
        **_login(where),
        **where.others,
        **where.tls,
    }


def _login(where: RedisUrl) -> dict[str, Any]:
    return {"db": where.db, "username": where.username or None, "password": where.password or None}
