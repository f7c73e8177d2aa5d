"""Searches: paid for by what they read, and a long one of a workspace at a time, over all processes."""

import asyncio
import secrets
import time

from dispatcher.errors import RedisFull, RedisUnavailable
from dispatcher.store.api_keys import ApiKey, ApiKeys, Spent
from dispatcher.store.connection import translated
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Call

FREE = 1000
"""Messages that one call may look at before it is a long search."""
A_CALL = 500
"""Messages whose reading costs as much of a key's rate as a call; the first ones are paid by the call itself."""
MAX_SECONDS = 20
"""How long a search may take."""
LIFE_MS = 30_000
"""How long the guard stays where a process that holds it dies: longer than a search, and a call to Redis that hangs."""
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class SearchRefused(Exception):
    """A search has to be asked for again, later; the text says why."""


class Searches:
    """Which workspaces have a long search under way: in Redis for all processes, and here for while Redis is full."""

    def __init__(self, call: Call, keys: Keys, api_keys: ApiKeys, url: str = "") -> None:
        self.api_keys = api_keys
        self._call = call
        self._keys = keys
        self._url = url
        self._here: set[str] = set()

    async def begin(self, workspace: str) -> str:
        """The token of a long search that begins; '' where the workspace has one already. Raises RedisUnavailable."""
        if workspace in self._here:
            return ""
        self._here.add(workspace)
        token = secrets.token_hex(8)
        try:
            with translated(self._url):
                taken = await self._call("SET", self._keys.search(workspace), token, "NX", "PX", str(LIFE_MS))
        except RedisFull:
            return token
        except BaseException:
            self._here.discard(workspace)
            raise
        if not taken:
            self._here.discard(workspace)
        return token if taken else ""

    async def end(self, workspace: str, token: str) -> None:
        """The next one may begin. While Redis is away the guard ends by itself."""
        self._here.discard(workspace)
        try:
            with translated(self._url):
                await self._call("EVAL", RELEASE, 1, self._keys.search(workspace), token)
        except RedisUnavailable:
            return


class Search:
    """What one call looks at. Leave it by `close`."""

    def __init__(self, searches: Searches, key: ApiKey) -> None:
        self.spent: Spent | None = None
        """What is left of the key's rate, once something was paid."""
        self._searches = searches
        self._key = key
        self._token = ""
        self._looked_at = 0
        self._ends = time.monotonic() + MAX_SECONDS

    async def look_at(self, count: int) -> None:
        """Says that so many messages are to be read next; waits for the key's next second where its rate is used up.

        Raises SearchRefused where another long search is under way or this one takes too long, RedisUnavailable.
        """
        paid = max(0, self._looked_at - 1) // A_CALL
        self._looked_at += count
        if self._looked_at > FREE and not self._token:
            self._token = await self._searches.begin(self._key.workspace)
            if not self._token:
                raise SearchRefused("one long search at a time: wait for the one before")
        for _ in range(max(0, self._looked_at - 1) // A_CALL - paid):
            await self._pay()

    async def close(self) -> None:
        """The search is over."""
        if self._token:
            await self._searches.end(self._key.workspace, self._token)

    async def _pay(self) -> None:
        self.spent = await self._searches.api_keys.spend(self._key)
        while self.spent.remaining < 0:
            await asyncio.sleep(max(0, self.spent.reset - time.time()))
            self.spent = await self._searches.api_keys.spend(self._key)
            if time.monotonic() > self._ends:
                raise SearchRefused(
                    f"the search takes more than {MAX_SECONDS} s at this key's rate: narrow it"
                )
