"""The texts of the Lua scripts: `lua/*.lua` are the commands, `lua/lib/*.lua` the fragments they include."""

import functools
import hashlib
import re
from importlib.resources import files

NAMES = (
    "accept",
    "beat",
    "cancel",
    "claim",
    "erase",
    "expedite",
    "expire",
    "forget",
    "forward",
    "forwarded",
    "lead",
    "leave",
    "members",
    "mend",
    "migrate",
    "move",
    "reject",
    "replay",
    "requeue",
    "retire",
    "retire_messages",
    "retry",
    "settle",
    "stop",
    "sweep",
    "unlist",
    "wake",
)

_FOLDER = files("dispatcher.store") / "lua"
_INCLUDE = re.compile(r"^-- include (\w+)$", re.MULTILINE)


def assembled(name: str) -> str:
    """A script's text with its `-- include` lines replaced by the fragments they name."""
    return _INCLUDE.sub(lambda match: fragment(match[1]), text_of(name))


@functools.cache
def text_of(name: str) -> str:
    """A script's text as it stands in its file."""
    return (_FOLDER / f"{name}.lua").read_text()


def with_archive(text: str) -> str:
    """A text as an installation with an archive has it: what ends is noted in `ended`. Others pay nothing for it."""
    return text.replace("local ARCHIVES = false", "local ARCHIVES = true")


@functools.cache
def source(name: str, *, archives: bool = False) -> str:
    """What Redis gets: the assembled script; `archives`: the installation has an archive.

    All that follows the prologue is one function. So the functions in it find the prologue's names in their outer
    function; Lua searches for a local of the script itself each time a function that uses it is made, in each run.
    """
    head, prologue, rest = assembled(name).partition(fragment("prologue"))
    if archives:
        rest = with_archive(rest)
    return f"{head}{prologue}return (function() {rest}\nend)()\n"


@functools.cache
def fragment(name: str) -> str:
    """The text of a fragment; fragments include no others."""
    return (_FOLDER / "lib" / f"{name}.lua").read_text()


@functools.cache
def sha(name: str, *, archives: bool = False) -> str:
    """The SHA-1 by which EVALSHA finds a script."""
    return hashlib.sha1(source(name, archives=archives).encode(), usedforsecurity=False).hexdigest()
