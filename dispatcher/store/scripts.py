"""Runs the Lua scripts: those that run most often as functions, where Redis has them (functions.py says why)."""

import time
from typing import Any

import structlog
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from dispatcher.store import functions
from dispatcher.store.connection import is_for_now, translated
from dispatcher.store.keys import Keys
from dispatcher.store.script_text import NAMES, sha, source
from dispatcher.store.wire import Argument, Call

log = structlog.get_logger()


def read_all(*, archives: bool = False) -> None:
    """Reads every script now, because an upgrade may replace the files while the process runs. Raises OSError."""
    for name in NAMES:
        sha(name, archives=archives)
    functions.library(archives=archives)


class Scripts:
    """Runs scripts on one Redis; many coroutines may call at once. `archives`: as script_text.source."""

    def __init__(self, call: Call, keys: Keys, url: str, *, archives: bool = False) -> None:
        self._call = call
        self._archives = archives
        self._root = keys.root
        self._url = url
        self._uses_functions = True
        self._deleted_others = False

    async def run(self, name: str, *args: Argument) -> tuple[list[Any], float]:
        """Runs a script; returns its reply and the monotonic time at which it was sent.

        Raises RedisUnavailable or RedisFull. Retries nothing: after a time-out the script may
        nevertheless have run.
        """
        with translated(self._url):
            if name in functions.NAMES and self._uses_functions:
                found = await self._run_function(name, args)
                if found:
                    return found
            sent = time.monotonic()
            try:
                return await self._call(
                    "EVALSHA", sha(name, archives=self._archives), 1, self._root, *args
                ), sent
            except NoScriptError:  # Redis was restarted, or its scripts flushed; the whole text always works
                sent = time.monotonic()
                return await self._call(
                    "EVAL", source(name, archives=self._archives), 1, self._root, *args
                ), sent

    async def _run_function(self, name: str, args: tuple[Argument, ...]) -> tuple[list[Any], float] | None:
        """Runs a script as a function; None if nothing ran, and the script itself has to."""
        for _ in range(2):
            sent = time.monotonic()
            try:
                return await self._call(
                    "FCALL", functions.function_name(name, archives=self._archives), 1, self._root, *args
                ), sent
            except OutOfMemoryError:  # Redis refuses a function at once; a script may have nothing to write
                return None
            except ResponseError as error:
                if "unknown command" in str(error):  # Redis 6.2
                    self._uses_functions = False
                    return None
                if "'fcall'" in str(error):  # an ACL without it
                    self._use_scripts(error)
                    return None
                if "Function not found" not in str(error):  # redis-py drops "ERR"
                    raise
            if not await self._load():
                return None
        return None

    def _use_scripts(self, error: ResponseError) -> None:
        """Runs no function any more: they are only faster."""
        if not self._uses_functions:  # another call met the same
            return
        self._uses_functions = False
        log.info(
            "redis.scripts", reason=str(error), effect="the ledger's scripts run as scripts, not as functions"
        )

    async def _load(self) -> bool:
        """Loads the library; False if it is not there now."""
        try:
            await self._call("FUNCTION", "LOAD", "REPLACE", functions.library(archives=self._archives)[1])
        except OutOfMemoryError:
            return False
        except ResponseError as error:  # an ACL, or a service that has no functions
            if is_for_now(error):
                raise
            self._use_scripts(error)
            return False
        if not self._deleted_others:
            self._deleted_others = True
            await self._delete_others()
        return True

    async def _delete_others(self) -> None:
        """Deletes the libraries of other versions, once in a process's life: one that is still used is loaded again."""
        try:
            for found in await self._call("FUNCTION", "LIST", "LIBRARYNAME", "dispatcher_*"):
                raw = found[b"library_name"] if isinstance(found, dict) else found[1]  # RESP3 and RESP2
                if functions.is_of_another_version(raw.decode(), archives=self._archives):
                    await self._call("FUNCTION", "DELETE", raw)
        except ResponseError as error:  # somebody else deleted it, or we may not
            if is_for_now(error):
                raise
