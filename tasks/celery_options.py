"""Celery worker options that have no effect here, or values that cannot work: refused, each with what to use instead."""

import grp
import os
import pwd
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

_PREFORK = "it is for Celery's pool `prefork`; a worker here is one process"
_QUEUES = "all hints are on one queue; to separate installations set DISPATCHER_KEY_PREFIX"
_BEAT = "nothing is scheduled by Celery here: each worker looks for due callbacks itself"
_HINTS = "a hint takes no time: the worker hands it to its engine"
_PARALLEL = "set DISPATCHER_MAX_IN_FLIGHT (POSTs in flight from one worker), or run more workers"

REFUSED: Mapping[str, str] = {
    "--loglevel": "set DISPATCHER_LOG_LEVEL",
    "--logfile": "logs go to standard error: redirect it with 2>>FILE, or let systemd or the container keep them",
    "--detach": "run it under systemd (deploy/systemd has a unit), or in a container",
    "--executable": "it goes with --detach; run it under systemd, or in a container",
    "--concurrency": _PARALLEL,
    "--autoscale": _PARALLEL,
    "--queues": _QUEUES,
    "--exclude-queues": _QUEUES,
    "--beat": _BEAT,
    "--schedule": _BEAT,
    "--schedule-filename": _BEAT,
    "--scheduler": _BEAT,
    "--purge": "hints are sent again; `dispatcher purge` removes callbacks",
    "--discard": "hints are sent again; `dispatcher purge` removes callbacks",
    "--time-limit": "set DISPATCHER_REQUEST_TIMEOUT_SECONDS",
    "--soft-time-limit": "set DISPATCHER_REQUEST_TIMEOUT_SECONDS",
    "--prefetch-multiplier": _HINTS,
    "--disable-prefetch": _HINTS,
    "--optimization": _HINTS,
    "--statedb": "a worker remembers nothing about tasks: what counts is in Redis",
    "--include": "the only task is the dispatcher's own",
    "--heartbeat-interval": "a worker's heartbeat goes to Redis each second (`dispatcher check`)",
    "--max-tasks-per-child": _PREFORK,
    "--max-memory-per-child": _PREFORK,
    "--pool-start-method": _PREFORK,
}
"""What to use instead, by option. --hostname, --pidfile, --uid, --gid, --umask and --task-events work; --without-… change nothing."""

_SHORT: Mapping[str, str] = {
    "-l": "--loglevel",
    "-f": "--logfile",
    "-D": "--detach",
    "-c": "--concurrency",
    "-Q": "--queues",
    "-X": "--exclude-queues",
    "-B": "--beat",
    "-s": "--schedule",
    "-P": "--pool",
    "-S": "--statedb",
    "-O": "--optimization",
    "-I": "--include",
    "-n": "--hostname",
}
_WITH_VALUE = ("--hostname", "--pidfile", "--uid", "--gid", "--umask", "--pool")
"""Options whose value is the next argument, unless it follows a `=`."""

_NEAR = 0.85
"""From which likeness on a name is taken for a refused one misspelt: Celery would suggest that one."""
_FLAGS = ("-E", "--task-events", "--events", "--without-gossip", "--without-mingle", "--without-heartbeat")


def problem(arguments: Sequence[str]) -> str:
    """Why Celery must not be given these worker arguments, in one line; empty if it may."""
    after_unknown = False
    for name, shown, value in _options(arguments):
        is_option = shown.startswith("-") and shown not in ("-", "--")
        if not is_option and not after_unknown:
            return f"a worker takes options only, not {shown!r}: settings come from the environment and .env"
        if name in REFUSED:
            return f"Celery's {shown} has no effect here: {REFUSED[name]}"
        if name not in (*_WITH_VALUE, *_FLAGS) and (near := get_close_matches(name, REFUSED, 1, _NEAR)):
            return f"there is no option {shown}, and {near[0]} has no effect here: {REFUSED[near[0]]}"
        if name in _CHECKS and value and (wrong := _CHECKS[name](value)):
            return f"{shown} {value}: {wrong}"
        after_unknown = is_option and name not in (*_WITH_VALUE, *_FLAGS)
    return ""


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Each option's name, how it is written, and its value."""
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("--"):
            shown, has_value, value = argument.partition("=")
        elif argument.startswith("-"):
            shown, has_value, value = argument[:2], argument[2:], argument[2:]
        else:
            shown, has_value, value = argument, "", ""
        name = _SHORT.get(shown, shown)
        yield name, shown, next(rest, "") if name in _WITH_VALUE and not has_value else value


def _pool(value: str) -> str:
    return (
        ""
        if value == "threads"
        else "the dispatcher runs in Celery's pool `threads`: leave out --pool, or say --pool threads"
    )


def _pidfile(value: str) -> str:
    folder = Path(value).absolute().parent
    if "%" in str(folder):  # Celery puts the node's name there
        return ""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    return "" if os.access(folder, os.W_OK) else f"the folder {folder} cannot be written to"


def _umask(value: str) -> str:
    with suppress(ValueError):
        int(value, 8)
        return ""
    return "it is an octal number, such as 027"


def _user(value: str) -> str:
    return _missing("user", pwd.getpwnam, value)


def _group(value: str) -> str:
    return _missing("group", grp.getgrnam, value)


def _missing(what: str, look_up: Callable[[str], object], value: str) -> str:
    try:
        if not value.isdigit():
            look_up(value)
    except KeyError:
        return f"there is no such {what} on this machine"
    return ""


_CHECKS: Mapping[str, Callable[[str], str]] = {
    "--pool": _pool,
    "--pidfile": _pidfile,
    "--umask": _umask,
    "--uid": _user,
    "--gid": _group,
}
"""What is wrong with an option's value, in words; empty if nothing is."""
