"""Runs the Lua scripts: `lua/*.lua` are the commands, `lua/lib/*.lua` the fragments they include."""

import functools
import hashlib
import re
import time
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from dispatcher.store.connection import translated
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Argument, Call

NAMES = (
    "accept",
    "cancel",
    "claim",
    "expedite",
    "expire",
    "forget",
    "lead",
    "leave",
    "mend",
    "migrate",
    "move",
    "reject",
    "replay",
    "requeue",
    "retry",
    "settle",
    "stop",
    "sweep",
    "wake",
)

_FOLDER = files("dispatcher.store") / "lua"
_INCLUDE = re.compile(r"^-- include (\w+)$", re.MULTILINE)


def assembled(name: str) -> str:
    """A script's text with its `-- include` lines replaced by the fragments they name."""
    return _INCLUDE.sub(lambda match: fragment(match[1]), (_FOLDER / f"{name}.lua").read_text())


@functools.cache
def source(name: str) -> str:
    """What Redis gets: the assembled script.

    All that follows the prologue is one function. So the functions in it find the prologue's names in their outer
    function; Lua searches for a local of the script itself each time a function that uses it is made, in each run.
    """
    head, prologue, rest = assembled(name).partition(fragment("prologue"))
    return f"{head}{prologue}return (function() {rest}\nend)()\n"


@functools.cache
def fragment(name: str) -> str:
    """The text of a fragment; fragments include no others."""
    return (_FOLDER / "lib" / f"{name}.lua").read_text()


@functools.cache
def sha(name: str) -> str:
    """The SHA-1 by which EVALSHA finds a script."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


def read_all() -> None:
    """Reads every script now, because an upgrade may replace the files while the process runs. Raises OSError."""
    for name in NAMES:
        sha(name)


class Scripts:
    """Runs scripts on one Redis; many coroutines may call at once."""

    def __init__(self, call: Call, keys: Keys, url: str) -> None:
        self._call = call
        self._root = keys.root
        self._url = url

    async def run(self, name: str, *args: Argument) -> tuple[list[Any], float]:
        """Runs a script; returns its reply and the monotonic time at which it was sent.

        Raises RedisUnavailable or RedisFull. Retries nothing: after a time-out the script may
        nevertheless have run.
        """
        sent = time.monotonic()
        with translated(self._url):
            try:
                return await self._call("EVALSHA", sha(name), 1, self._root, *args), sent
            except NoScriptError:  # Redis was restarted, or its scripts flushed; the whole text always works
                sent = time.monotonic()
                return await self._call("EVAL", source(name), 1, self._root, *args), sent
