"""One `dispatcher grow` at a time: two that copy would remove what the other, or the installation since, has made."""

import asyncio
import secrets
import time
from types import TracebackType

from dispatcher.errors import InvalidInput, RedisUnavailable
from dispatcher.store.connection import translated
from dispatcher.store.keys import growing_key
from dispatcher.store.searches import RELEASE
from dispatcher.store.servers import Servers

LIFE_MS = 10_000
"""TTL of the lock, in case its process dies: longer than a call to a Redis that hangs."""
WAIT_SECONDS = LIFE_MS / 1000 + 1
"""How long another run is waited for: by then the lock of one that has died is over."""
LOOK_SECONDS = 0.2
RENEW = (
    "local holder = redis.call('GET', KEYS[1]) "
    "return (not holder or holder == ARGV[1]) and redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) or 0"
)
"""Takes it again where it was over and nobody has it since: reading may take longer than its life."""


class GrowthLock:
    """The lock of one run, which has it within `async with`."""

    def __init__(self, servers: Servers, prefix: str) -> None:
        self._servers = servers
        self._key = growing_key(prefix)
        self._token = secrets.token_hex(8)

    async def renew(self) -> None:
        """Call before each step that changes something. Raises InvalidInput if another run has the lock; or RedisUnavailable."""
        if not await self._call("EVAL", RENEW, 1, self._key, self._token, LIFE_MS):
            raise InvalidInput("another `dispatcher grow` began while this one stood still: run it again")

    async def __aenter__(self) -> "GrowthLock":
        until = time.monotonic() + WAIT_SECONDS
        while not await self._call("SET", self._key, self._token, "NX", "PX", LIFE_MS):
            if time.monotonic() >= until:
                raise InvalidInput("another `dispatcher grow` is under way: wait until it has ended")
            await asyncio.sleep(LOOK_SECONDS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._call("EVAL", RELEASE, 1, self._key, self._token)
        except RedisUnavailable:
            return  # it expires

    async def _call(self, *command: str | int) -> object:
        with translated(self._servers.url(0)):
            return await self._servers.call_for(self._key, *command)
