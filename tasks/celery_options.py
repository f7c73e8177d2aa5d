"""Celery worker options that have no effect here: refused, each with what to use instead."""

from collections.abc import Mapping, Sequence

_PREFORK = "it is for Celery's pool `prefork`; a worker here is one process"
_QUEUES = "all hints are on one queue; to separate installations set DISPATCHER_KEY_PREFIX"
_BEAT = "nothing is scheduled by Celery here: each worker looks for due callbacks itself"
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
    "--max-tasks-per-child": _PREFORK,
    "--max-memory-per-child": _PREFORK,
    "--pool-start-method": _PREFORK,
}
"""What to use instead, by option. Celery's other options work: --hostname, --pidfile, --uid, --gid, --umask, …"""

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
}
_WITH_VALUE = ("-n", "--hostname", "-S", "--statedb", "-O", "-I", "--pidfile", "--uid", "--gid", "--umask")
"""Options whose value is the next argument, which may itself look like an option."""


def problem(arguments: Sequence[str]) -> str:
    """Why Celery must not be given these worker arguments, in one line; empty if it may."""
    is_value = False
    for number, argument in enumerate(arguments):
        if is_value:
            is_value = False
            continue
        name, _, value = argument.partition("=")
        if not argument.startswith("--"):
            name, value = _SHORT.get(argument[:2], argument[:2]), argument[2:]
        if name in REFUSED:
            return f"Celery's {argument.partition('=')[0]} has no effect here: {REFUSED[name]}"
        if name == "--pool":
            pool = value or next(iter(arguments[number + 1 :]), "")
            if pool != "threads":
                return f"the dispatcher runs in Celery's pool `threads`, not in {pool!r}: leave out --pool, or say --pool threads"
        is_value = argument in _WITH_VALUE
    return ""
