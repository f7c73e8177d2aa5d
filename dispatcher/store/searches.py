"""Limits searches: they use a key's rate by what they read, and each workspace has one long search at a time."""

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
"""Messages that cost as much of a key's rate as one call; the call itself pays for the first ones."""
MAX_SECONDS = 20
"""How long a search may take."""
LIFE_MS = 30_000
"""TTL of the guard, in case its process dies: longer than a search plus a Redis call that hangs."""
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class SearchRefused(Exception):
    """The search has to be repeated later; the text says why."""


class Searches:
    """Which workspaces have a long search under way: in Redis for all processes, and here in case Redis is full."""

    def __init__(self, call: Call, keys: Keys, api_keys: ApiKeys, url: str = "") -> None:
        self.api_keys = api_keys
        self._call = call
        self._keys = keys
        self._url = url
        self._here: set[str] = set()

    async def begin(self, workspace: str) -> str:
        """Begins a long search; returns its token, or '' if the workspace has one already. Raises RedisUnavailable."""
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
        """Lets the next long search begin. If Redis is unavailable, the guard expires by itself."""
        self._here.discard(workspace)
        try:
            with translated(self._url):
                await self._call("EVAL", RELEASE, 1, self._keys.search(workspace), token)
        except RedisUnavailable:
            return


class Search:
    """The search of one API call. Call `close` at its end."""

    def __init__(self, searches: Searches, key: ApiKey) -> None:
        self.spent: Spent | None = None
        """What is left of the key's rate; None until something was paid."""
        self._searches = searches
        self._key = key
        self._token = ""
        self._looked_at = 0
        self._ends = time.monotonic() + MAX_SECONDS

    async def look_at(self, count: int) -> None:
        """Pays for `count` messages that are to be read next; waits for the next second if the key's rate is used up.

        Raises SearchRefused if another long search is under way or this one takes too long, or RedisUnavailable.
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
        """Ends the search."""
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
