"""Connects to Redis and translates its errors. redis-py never retries; our callers decide."""

import functools
import re
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    ConnectionError,
    InvalidResponse,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)
from redis.retry import Retry

from dispatcher.errors import InvalidInput, RedisFull, RedisUnavailable, sentence
from dispatcher.store import sentinel
from dispatcher.store.pool_slots import Slots
from dispatcher.store.redis_url import RedisUrl
from dispatcher.store.topology import Kind, Topology
from dispatcher.store.topology import safe_url as safe_url

hiredis: Any
try:
    import hiredis
except ImportError:  # optional for producers: redis-py then packs commands itself
    hiredis = None

SOCKET_TIMEOUT_SECONDS = 5.0
POOL: dict[str, Any] = {"max_connections": 50, "timeout": SOCKET_TIMEOUT_SECONDS}
"""Connections per client. If all are in use, a caller waits up to `timeout` seconds, then gets RedisUnavailable."""

LACKS_RIGHT = "this user may not do that: docs/operations.md has a user for each role"
_FORBIDDEN = ("NOPERM", "The user executing the script can't", "ACL failure in script")
"""Error texts of a missing ACL permission: the second one comes from scripts on Redis 6.2, the third from scripts and
functions on later servers."""

_NOT_NOW = ("READONLY", "LOADING", "BUSY", "MISCONF", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "UNBLOCKED")

_WHOSE = "redis_server"
"""Attribute of an error that says which server it comes from, and what was wanted there."""


def connect(url: str) -> "redis.Redis":
    """A blocking client of one server, or of the primary that sentinels name. Raises InvalidInput for another URL."""
    found = _read(url)
    options = POOL | _options(found.server) | {"retry": Retry(NoBackoff(), 0), "queue_class": Slots}
    pool: Any = (
        sentinel.pool(found, options)
        if found.kind is Kind.SENTINEL
        else redis.BlockingConnectionPool.from_url(found.server.plain, **options)
    )
    pool.connection_class = _whole(pool.connection_class)
    return redis.Redis.from_pool(pool)


def connect_async(url: str) -> "redis.asyncio.Redis":
    """As `connect`, for asyncio."""
    found = _read(url)
    options = POOL | _options(found.server) | {"retry": AsyncRetry(NoBackoff(), 0)}
    pool: Any = (
        sentinel.async_pool(found, options)
        if found.kind is Kind.SENTINEL
        else redis.asyncio.BlockingConnectionPool.from_url(found.server.plain, **options)
    )
    if hiredis:
        pool.connection_class = _packing(pool.connection_class)
    return redis.asyncio.Redis.from_pool(pool)


@functools.cache
def _whole(kind: type[Any]) -> type[Any]:
    """A connection class that connects wholly or not at all: a signal handler may raise between the login and its answer."""

    class Whole(kind):  # type: ignore[misc]
        def connect(self) -> None:
            try:
                super().connect()
            except BaseException:
                self.disconnect()
                raise

    return Whole


@functools.cache
def _packing(kind: type[Any]) -> type[Any]:
    """A connection class that packs commands with hiredis, like redis-py's blocking one: five times as fast."""

    class Packing(kind):  # type: ignore[misc]
        def pack_command(self, *args: Any) -> list[bytes]:
            return [hiredis.pack_command((*args[0].split(), *args[1:]))]

        def pack_commands(self, commands: Iterable[Any]) -> list[bytes]:
            return [hiredis.pack_command(tuple(command)) for command in commands]

    return Packing


def _options(where: RedisUrl) -> dict[str, Any]:
    return {
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
        "protocol": 2,
        **where.others,
        **where.tls,
    }


def _read(url: str) -> Topology:
    try:
        found = Topology.parse(url)
    except InvalidInput as error:
        raise InvalidInput(f"the Redis URL {error}") from None
    if found.kind in (Kind.SEVERAL, Kind.CLUSTER):
        what = "a cluster" if found.kind is Kind.CLUSTER else found.kind
        raise InvalidInput(f"the Redis URL names {what}, and one server is needed here, or Sentinel")
    return found


async def redis_now_ms(client: Any) -> int:
    """Redis's clock, ms since 1970. Raises redis-py's errors."""
    seconds, microseconds = await client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Translates Redis's errors into ours, by the one table. Others (a bug, a wrong type) pass through."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise translate(error, url) from error


def say_whose(error: Exception, url: str, what: str) -> None:
    """Notes on an error which server it comes from, and what was wanted there: `translate` then says so, whatever URL it is given."""
    error.__dict__[_WHOSE] = url, what


def concerns_all(error: Exception) -> None:
    """Has `translate` name the server alone, and not what was wanted there: the error concerns all that is on it."""
    if _WHOSE in error.__dict__:
        error.__dict__[_WHOSE] = error.__dict__[_WHOSE][0], ""


def translate(error: Exception, url: str) -> Exception:
    """Our error for a Redis error; the error itself if we have none for it."""
    if isinstance(error, RedisUnavailable):
        return error
    url, what_for = error.__dict__.get(_WHOSE, (url, ""))
    where = f"{safe_url(url)} ({what_for})" if what_for else safe_url(url)
    text = str(error)
    if isinstance(error, sentinel.NoPrimary):
        return RedisUnavailable(tls_problem(error, safe_url(url)) or _no_primary(error, url))
    if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in text:
        return _refusal(RedisFull, where, "is full (maxmemory) and takes nothing new", "try again later")
    # asyncio's client wraps it
    own = error.__cause__ if isinstance(error.__cause__, AuthenticationError) else error
    refused = isinstance(own, AuthenticationError | NoPermissionError) or "NOAUTH" in text
    if refused or any(word in text for word in _FORBIDDEN):
        what = f"refuses us: {without_script(text)}"
        lacks_right = isinstance(own, NoPermissionError) or any(word in text for word in _FORBIDDEN)
        advice = LACKS_RIGHT if lacks_right else "check user and password in the URL"
        return _refusal(RedisUnavailable, where, what, advice)
    if isinstance(error, InvalidResponse) or "DB index is out of range" in text:
        return RedisUnavailable(f"{where} is no Redis, or has no such database. Check the URL")
    if sentinel.says_read_only(error) or isinstance(error, sentinel.BecameReplica):
        return _read_only(url, where)
    if isinstance(error, ConnectionError | TimeoutError | OSError):
        return RedisUnavailable(tls_problem(error, where) or _away(url, where, error))
    if isinstance(error, ResponseError) and (found := _of_cluster(error, bool(what_for)) or _for_now(error)):
        return _refusal(RedisUnavailable, where, *found)
    return error


def _for_now(error: ResponseError) -> tuple[str, str] | None:
    """What a Redis that cannot serve now says, and what to do; None if it says something else."""
    text = str(error)
    if "MISCONF" in text:
        return (
            f"refuses writes, because it cannot write its files ({_misconf(text)})",
            "make room on its disk",
        )
    if is_for_now(error):
        return f"cannot serve now: {without_script(text)}", "look at its log and INFO"
    if "exhausted the last possible ID" in text:  # store/growth.py made it so
        what = "takes no status changes any more, because its installation has grown into several partitions elsewhere"
        return (
            what,
            "give a producer the URL and the number of partitions that it has now; a worker that still has "
            "DISPATCHER_PREVIOUS_REDIS_URL is to leave it out (docs/partitions.md)",
        )
    if unknown := _EACH_REDIS_KNOWS.search(text):
        advice = "if it is a sentinel, the URL starts with redis+sentinel:// and ends in the primary's name"
        return f"is no Redis that holds data: it does not know {unknown[1].upper()}", advice
    return None


def _of_cluster(error: ResponseError, is_known: bool) -> tuple[str, str] | None:
    """What a cluster's node says of the slot of keys, and what to do; None if it says something else.

    is_known: whether we know that it is a cluster
    """
    if "cluster support disabled" in str(error):
        what = "is no node of a cluster (cluster-enabled no)"
        return what, "set DISPATCHER_REDIS_URL to a cluster, or to this server with redis:// or rediss://"
    if isinstance(error, TryAgainError | AskError) and not isinstance(error, MovedError):
        slot = f"slot {error.slot_id}" if isinstance(error, AskError) else "a slot"
        what = f"is moving {slot} to another node key by key; meanwhile nothing is done with its keys"
        return what, "work on them goes on when the move has ended (CLUSTER SETSLOT ... NODE on both nodes)"
    if not isinstance(error, MovedError):
        return None
    if not is_known:
        return (
            "is a node of a cluster",
            "set DISPATCHER_REDIS_URL to redis+cluster://, with its host and port",
        )
    what = f"says that slot {error.slot_id} is on {error.host}:{error.port}, where it is not by the cluster's map"
    return (
        what,
        "work on its keys goes on when the nodes agree; if they do not, look at redis-cli --cluster check",
    )


def _refusal(kind: type[RedisUnavailable], where: str, what: str, advice: str) -> RedisUnavailable:
    """The error for a Redis that answers and refuses."""
    text = f"Redis at {where} {sentence(what)} {advice[0].upper()}{advice[1:]}"
    return kind(text, f"Redis {what}", advice)


def refused(error: Exception, url: str) -> RedisUnavailable:
    """The error for a Redis that answers with an error of which `translate` knows nothing: a key of another type, a proxy."""
    said = without_script(str(error)) or type(error).__name__
    advice = "look at what it says, and at its log; nothing else is known of it here"
    return _refusal(RedisUnavailable, safe_url(url), f"refuses: {said}", advice)


def _read_only(url: str, where: str) -> RedisUnavailable:
    if "+sentinel:" in url.lower():
        what, advice = "has become a replica and refuses writes", "wait for the end of Sentinel's fail-over"
        return _refusal(RedisUnavailable, where, what, advice)
    what = "is a read-only replica and refuses writes"
    advice = "set DISPATCHER_REDIS_URL to its primary, or make it the primary: redis-cli REPLICAOF NO ONE"
    return _refusal(RedisUnavailable, where, what, advice)


def _no_primary(error: sentinel.NoPrimary, url: str) -> str:
    said = without_script(" ".join(str(error.__cause__ or "").split()))
    because = f" ({said})" if said and said != str(error) else ""
    return f"no primary at {safe_url(url)}: {error}{because}. {error.advice}"


_EACH_REDIS_KNOWS = re.compile(r"unknown command .(GET|MGET|SET|XADD|EXISTS|EVAL|EVALSHA|HGETALL)\b", re.I)
_SCRIPT_PLACE = re.compile(
    r"^Error running script \(call to f_\w+\): |@user_(?:script|function): ?\d+: |^-|"
    r",? script: \w+, on @user_(?:script|function):\d+\.?"
)
"""What Redis adds to an error in a script: 6.2 before the error, 7.0 and later after it."""


def without_script(text: str) -> str:
    """Redis's error text without the hash or name of the script and its line, and without a final full stop."""
    while (found := _SCRIPT_PLACE.sub("", text)) != text:
        text = found
    return text.rstrip(". ")


def is_for_now(error: ResponseError) -> bool:
    """Whether Redis says that it cannot do this now: it is loading, a replica, cut off."""
    return isinstance(error, ClusterDownError) or any(word in str(error) for word in _NOT_NOW)


def _misconf(text: str) -> str:
    """The reason in a MISCONF error: the append-only file's, or a failed snapshot."""
    _, found, reason = text.partition("AOF file: ")
    if not found:
        return "its last snapshot failed; its log says why"
    return "append-only file: " + reason.rstrip(".,')(")


def tls_problem(error: BaseException, shown: str) -> str:
    """What went wrong with TLS, in one line; empty if it was not TLS. `shown` is how to name the server."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    match cause:
        case ssl.SSLCertVerificationError():
            return (
                f"the certificate of {shown} is refused ({cause.verify_message.rstrip('.')}), and no password was "
                "sent. Is it the right server? A private authority belongs into DISPATCHER_REDIS_CA_FILE, or "
                "ssl_ca_certs= in the URL"
            )
        case ssl.SSLError():
            why = (cause.reason or str(cause)).lower().replace("_", " ")
            return (
                f"no TLS with {shown} ({why}). Does it speak TLS at this port, or want a certificate of ours?"
            )
    return ""


def _away(url: str, where: str, error: Exception) -> str:
    why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return (
        f"Redis at {where} is not reachable ({why}). Is it running, and is DISPATCHER_REDIS_URL right?"
        f"{other_scheme(why, url)}"
    )


def other_scheme(why: str, url: str) -> str:
    """A hint, if an error is what comes of TLS at one end of a connection only: Redis closes or resets it, or waits for more."""
    scheme = url.strip().partition("://")[0].lower()
    if scheme == "rediss" and "Timeout" in why:
        return " If it speaks no TLS at this port, the URL starts with redis://"
    if scheme == "redis" and ("closed by server" in why or "reset by peer" in why):
        return " If it speaks TLS at this port, the URL starts with rediss://"
    return ""
