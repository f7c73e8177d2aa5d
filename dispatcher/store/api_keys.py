"""API keys of customers and producers: shown once, stored as digests, each with a rate limit.

A key is `<id>.<secret>`: the id finds its record, the 32 random bytes prove it. A plain SHA-256 suffices as digest,
because the secret is random.
"""

import asyncio
import hmac
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from dispatcher.errors import InvalidInput, NotFound, RedisFull
from dispatcher.rules.partitions import Partitioning
from dispatcher.store.connection import translated
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Call

PRODUCERS = "*"
"""In place of workspace and platform: the key enqueues, for all workspaces."""
OPERATORS = "+"
"""In place of a workspace: the key opens the console, with the role in `platform` (`console:operator`)."""
MAX_RATE = 10_000
MAX_NAME = 64
RATE_LIFE_SECONDS = 5
"""How long Redis keeps the count of a key's calls in one second."""
UNDIVIDED = Partitioning()
_FORM = re.compile(r"key_[0-9a-f]{12}\.[A-Za-z0-9_-]{43}")
_NOBODY = sha256(b"nobody").hexdigest()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key's owner and permissions, without its secret."""

    id: str
    workspace: str
    """PRODUCERS for a key that enqueues, OPERATORS for one of the console."""
    platform: str
    """The platform whose API it opens."""
    name: str
    created_ms: int
    rate_per_second: int
    read_only: bool = False
    """It may query, but not change where callbacks go."""


@dataclass(frozen=True, slots=True)
class Spent:
    """A key's rate limit after a call."""

    limit: int
    remaining: int
    """Calls left in this second; negative if this call exceeds the rate."""
    reset: int
    """When the next second begins, in seconds since 1970."""


class ApiKeys:
    """Reads and changes API keys in Redis. Every method raises RedisUnavailable."""

    def __init__(self, call: Call, keys: Keys, url: str = "", partitioning: Partitioning = UNDIVIDED) -> None:
        self._call = call
        self._keys = keys
        self._url = url
        self._home = partitioning.home
        self._here: dict[str, int] = {}

    async def add(
        self,
        workspace: str,
        platform: str,
        name: str,
        *,
        now_ms: int,
        rate_per_second: int,
        read_only: bool = False,
    ) -> tuple[ApiKey, str]:
        """Creates a key; returns it with its text, which is not stored.

        Raises InvalidInput, or NotFound if the workspace is removed meanwhile.
        """
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise InvalidInput(f"an API key's name is 1 to {MAX_NAME} characters that can be printed")
        if not 1 <= rate_per_second <= MAX_RATE:
            raise InvalidInput(
                f"an API key's rate is 1 to {MAX_RATE:,} calls a second, not {rate_per_second}"
            )
        id_, secret = self._new_id(workspace), secrets.token_urlsafe(32)
        named = ("workspace", workspace, "platform", platform, "name", name)
        counted = ("created", now_ms, "rate", rate_per_second, "digest", _digest(secret))
        limited = ("read_only", 1) if read_only else ()
        with translated(self._url):
            await self._call("SADD", self._keys.api_keys(workspace), id_)
            await self._call("HSET", self._keys.api_key(id_), *named, *counted, *limited)
            if not await self._is_there(workspace, id_):
                await self._call("DEL", self._keys.api_key(id_))
                await self._call("SREM", self._keys.api_keys(workspace), id_)
                raise NotFound(f"workspace {workspace!r} was removed meanwhile")
        made = ApiKey(id_, workspace, platform, name, now_ms, rate_per_second, read_only)
        return made, f"{id_}.{secret}"

    def _new_id(self, workspace: str) -> str:
        """A random id whose partition is the workspace's home: a key is found by its id alone, and lies with its workspace."""
        while True:
            id_ = f"key_{secrets.token_hex(6)}"
            if self._home(id_) == self._home(workspace):
                return id_

    async def _is_there(self, workspace: str, id_: str) -> bool:
        """Whether a key's workspace exists, and knows it: it may be removed at any moment while a key is added."""
        exists = workspace in (PRODUCERS, OPERATORS) or await self._call(
            "SISMEMBER", self._keys.workspaces, workspace
        )
        return bool(exists and await self._call("SISMEMBER", self._keys.api_keys(workspace), id_))

    async def list(self, workspace: str) -> "list[ApiKey]":
        """A workspace's keys, oldest first."""
        found = await self._read_all(await self._ids(workspace))
        return sorted(found, key=lambda key: (key.created_ms, key.id))

    async def _ids(self, workspace: str) -> Sequence[str]:
        """The ids of a workspace's keys."""
        with translated(self._url):
            found = await self._call("SMEMBERS", self._keys.api_keys(workspace))
        return [id_.decode(errors="replace") for id_ in found]

    async def _read_all(self, ids: Sequence[str]) -> Sequence[ApiKey]:
        """The keys with these ids, without those that there are not."""
        with translated(self._url):
            found = [(id_, _fields(await self._call("HGETALL", self._keys.api_key(id_)))) for id_ in ids]
        return [_read(id_, h) for id_, h in found if h]

    async def _forget(self, id_: str) -> None:
        """Removes a key's record alone: `verify` refuses it from now on."""
        with translated(self._url):
            await self._call("DEL", self._keys.api_key(id_))

    async def revoke(self, workspace: str, id_: str) -> None:
        """Revokes a key of a workspace: `verify` refuses it from now on. Raises NotFound."""
        with translated(self._url):
            if not await self._call("SISMEMBER", self._keys.api_keys(workspace), id_):
                raise no_such_key(id_)
            await self._call("DEL", self._keys.api_key(id_))
            await self._call("SREM", self._keys.api_keys(workspace), id_)

    async def verify(self, text: str) -> ApiKey | None:
        """The key of this text, or None. Takes the same time for any well-formed key."""
        key, _ = await self.identify(text)
        return key

    async def identify(self, text: str) -> tuple[ApiKey | None, str]:
        """Like `verify`; also returns the id in the text if a key with that id exists, else ''."""
        if not _FORM.fullmatch(text):
            return None, ""
        id_, _, secret = text.partition(".")
        with translated(self._url):
            h = _fields(await self._call("HGETALL", self._keys.api_key(id_)))
        digest = h.get(b"digest", _NOBODY.encode()).decode()
        proved = hmac.compare_digest(digest, _digest(secret))
        return _read(id_, h) if proved and h else None, id_ if h else ""

    async def spend(self, key: ApiKey) -> Spent:
        """Counts a call against a key's rate, in windows of one second, across all servers."""
        second = int(time.time())
        counted = self._keys.api_rate(key.id, second)
        try:
            with translated(self._url):
                calls, _ = await asyncio.gather(
                    self._call("INCR", counted), self._call("EXPIRE", counted, RATE_LIFE_SECONDS)
                )
        except RedisFull:  # reads still work: count in this process
            calls = self._here[counted] = self._here.get(counted, 0) + 1
            self._here = {one: n for one, n in self._here.items() if one.endswith(f":{second}")}
        return Spent(key.rate_per_second, key.rate_per_second - calls, second + 1)


def no_such_key(id_: str) -> NotFound:
    """The error for a key that a workspace does not have."""
    return NotFound(f"there is no such API key: {id_}")


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _fields(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _read(id_: str, h: Mapping[bytes, bytes]) -> ApiKey:
    return ApiKey(
        id_,
        h[b"workspace"].decode(),
        h[b"platform"].decode(),
        h[b"name"].decode(),
        int(h[b"created"]),
        int(h[b"rate"]),
        b"read_only" in h,
    )
