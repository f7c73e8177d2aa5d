"""Runs the Lua scripts. Calls made while others are under way travel together, as one pipeline."""

import asyncio
import functools
import hashlib
import re
import time
from importlib.resources import files
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError

from dispatcher.connection import translate, translated
from dispatcher.keys import Keys

NAMES = ("accept", "claim", "expire", "hurry", "lead", "reject", "settle", "stop", "wake")
MAX_PIPELINE = 200

_INCLUDE = re.compile(r"^-- include (\w+)$", re.MULTILINE)

Argument = str | bytes | int


@functools.cache
def source(name: str) -> str:
    """A script's text with its `-- include` lines replaced by the files they name."""
    text = (files("dispatcher") / "lua" / f"{name}.lua").read_text()
    return _INCLUDE.sub(lambda match: source(match.group(1)), text)


@functools.cache
def sha(name: str) -> str:
    """What EVALSHA knows a script by."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


class Scripts:
    """Runs scripts on one Redis; many coroutines may call at once."""

    def __init__(self, client: "redis.asyncio.Redis", keys: Keys, url: str) -> None:
        self._client = client
        self._root = keys.root
        self._url = url
        self._waiting: list[tuple[str, tuple[Argument, ...], asyncio.Future[Any]]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def run(self, name: str, *args: Argument) -> tuple[list[Any], float]:
        """The script's reply, and the monotonic time at which it was sent.

        Raises RedisUnavailable or RedisFull. Nothing is retried: after a time-out the script may
        have run.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((name, args, future))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        reply, sent = await future
        if isinstance(reply, Exception):
            raise translate(reply, self._url)
        return reply, sent

    async def _flush(self) -> None:
        try:
            while self._waiting:
                calls, self._waiting = self._waiting[:MAX_PIPELINE], self._waiting[MAX_PIPELINE:]
                sent = time.monotonic()
                try:
                    replies = await self._send(calls)
                except Exception as error:  # every caller gets it
                    replies = [error] * len(calls)
                for (_, _, future), reply in zip(calls, replies, strict=True):
                    if not future.done():
                        future.set_result((reply, sent))
        finally:
            self._flusher = None

    async def _send(self, calls: list[tuple[str, tuple[Argument, ...], asyncio.Future[Any]]]) -> list[Any]:
        with translated(self._url):
            replies = await self._pipeline(calls)
            missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if missing:  # Redis was restarted, or its scripts flushed
                for name in {calls[i][0] for i in missing}:
                    await self._client.script_load(source(name))
                again = await self._pipeline([calls[i] for i in missing])
                for i, reply in zip(missing, again, strict=True):
                    replies[i] = reply
            return replies

    async def _pipeline(
        self, calls: list[tuple[str, tuple[Argument, ...], asyncio.Future[Any]]]
    ) -> list[Any]:
        if len(calls) == 1:
            name, args, _ = calls[0]
            try:
                return [await self._client.evalsha(sha(name), 1, self._root, *args)]
            except NoScriptError as error:
                return [error]
        pipe = self._client.pipeline(transaction=False)
        for name, args, _ in calls:
            pipe.evalsha(sha(name), 1, self._root, *args)
        return await pipe.execute(raise_on_error=False)
