"""The scripts that run most often, as a library of Redis functions (Redis 7, Valkey).

A script makes its Lua functions anew in each run; that is a third of a short run. Those of a library are made once, when
it is loaded. So a library's text is the scripts' text in another order: what defines stays, what a run computes becomes
the body of a function. These rules say which is which, by the statements that begin in the first column:

- `local function`, `do`, and `local` without a value define; a run does not set the latter anew, so what a run finds
  there it must have written itself;
- so does a `local` in capitals whose value calls nothing and reads no argument: a constant;
- a `local` whose value is an empty table is that in each run: the same one, if the run before left it empty;
- any other `local` is set anew in each run;
- everything else runs.
"""

import functools
import hashlib
import re
from collections.abc import Iterator

from dispatcher.store.script_text import fragment, text_of, with_archive

NAMES = ("accept", "claim", "settle", "wake")

_GOES_ON = re.compile(r"\s|(?:end|else|elseif|\}|\))\b|[})]")
_LOCAL = re.compile(r"local ([\w, ]+?)(?:\s*=\s*(.+))?(?:\s*--.*)?", re.DOTALL)
_CONSTANTS = re.compile(r"[A-Z\d_]+(?:, [A-Z\d_]+)*")
_OF_A_RUN = re.compile(r"[\w)]\(|\b(?:KEYS|ARGV|now)\b")
_EMPTY = re.compile(r"\{\}(?:, \{\})*")
_ALLOWS_OOM = re.compile(r"^redis\.call\('DEL', PREFIX \.\. 'never'\).*$", re.MULTILINE)
"""How a script says that it works when Redis is full; a function has a flag for that."""
LUA_NAMES = (
    "redis, string, math, table, tonumber, tostring, unpack, select, ipairs, pairs, next, pcall, error, type"
)
_GLOBALS = f"""local register = redis.register_function
local function globals() return {LUA_NAMES} end
local {LUA_NAMES}
local function look_up_names()
{LUA_NAMES} = globals()
end
"""
"""Lua's names as locals of the library: a function of Redis finds a global only behind several tables.

They are not there yet when the library is loaded, so its first run looks them up.
"""
_INCLUDE = re.compile(r"^-- include (\w+)$", re.MULTILINE)


@functools.cache
def library(*, archives: bool = False) -> tuple[str, str]:
    """The library's name, which its content decides, and its text for FUNCTION LOAD; `archives`: as script_text.source."""
    body = "\n".join(_function(name) for name in NAMES)
    if archives:
        body = with_archive(body)
    name = f"dispatcher_{hashlib.sha256(body.encode()).hexdigest()[:16]}"
    return name, f"#!lua name={name}\nlocal LIBRARY = '{name}'\n{_GLOBALS}{body}"


@functools.cache
def function_name(name: str, *, archives: bool = False) -> str:
    """The name by which FCALL finds a script's function; no two libraries have the same."""
    return f"{library(archives=archives)[0]}_{name}"


def is_of_another_version(name: str, *, archives: bool = False) -> bool:
    """Whether a library of this name is ours, with another text."""
    return (
        name != library(archives=archives)[0] and re.fullmatch(r"dispatcher_[0-9a-f]{16}", name) is not None
    )


def _function(name: str) -> str:
    script = text_of(name)
    # Lua allows a function 200 locals: so each script has one of its own
    lines, resets = ["do", "local function define()", "local KEYS, ARGV"], []
    for included in _INCLUDE.findall(script):
        defined, run = _split(fragment(included))
        lines += defined
        resets += run
    defined, run = _split(_ALLOWS_OOM.sub("", script))
    # Lua allows a function 60 names from outside: so the body calls one function that resets those of all fragments
    lines += ["local function reset()", *resets, "end", *defined]
    lines += [
        "local function run(keys, arguments)",
        "KEYS, ARGV = keys, arguments",
        "if not redis then look_up_names() end",
        "reset()",
        *run,
        "end",
    ]
    flags = "{ 'allow-oom' }" if _ALLOWS_OOM.search(script) else "{}"
    lines.append(f"register{{ function_name = LIBRARY .. '_{name}', callback = run, flags = {flags} }}")
    return "\n".join([*lines, "end", "define()", "end", ""])


def _split(text: str) -> tuple[list[str], list[str]]:
    """What defines, and what runs."""
    defined, run = [], []
    for statement in _statements(text):
        found = _LOCAL.fullmatch(statement)
        if statement.startswith(("local function ", "do")) or (found and not found[2]):
            defined.append(statement)
        elif not found:
            run.append(statement)
        elif _CONSTANTS.fullmatch(found[1]) and not _OF_A_RUN.search(found[2]):
            defined.append(statement)
        elif _EMPTY.fullmatch(found[2]):
            defined.append(statement)
            run += [f"if next({name}) then {name} = {{}} end" for name in found[1].split(", ")]
        else:
            defined.append(f"local {found[1]}")
            run.append(statement.removeprefix("local "))
    return defined, run


def _statements(text: str) -> Iterator[str]:
    """The statements that begin in the first column; without comments there."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line or line.startswith("--"):
            continue
        if lines and not _GOES_ON.match(line):
            yield "\n".join(lines)
            lines = []
        lines.append(line)
    if lines:
        yield "\n".join(lines)
