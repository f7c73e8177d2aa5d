"""`dispatcher worker`: a Celery worker with this project's settings."""

import os
import sys

import typer

from config import logs
from tasks import celery_options, console, interrupt

CELERY = ("-m", "tasks.celery_worker", "-A", "tasks", "--quiet", "worker")


def worker(context: typer.Context) -> None:
    """Run a worker; further options are Celery's.

    Run as many as you like, on as many machines. TERM ends one cleanly, exit code 0: callbacks in flight end
    and are recorded. Ctrl-C does the same, exit code 130. HUP starts it anew in the same process, with the settings of .env
    as they are by then; on a terminal HUP ends it.

    Of Celery's options --hostname, --pidfile, --uid and --gid are of use; those that would not do what they say are refused,
    with the setting that does.
    """
    console.service_settings()  # says in one line what is wrong with them
    if problem := celery_options.problem(context.args):
        console.fail(problem, console.USAGE)
    node = () if _names_node(context.args) else (f"--hostname=dispatcher-{os.getpid()}@%h",)
    sys.stdout.flush()
    logs.flush()
    interrupt.hold()  # until the worker's first line
    os.execv(sys.executable, [sys.executable, *CELERY, *node, *context.args])  # noqa: S606  becomes the worker


def _names_node(args: list[str]) -> bool:
    return any(arg.startswith(("--hostname", "-n")) for arg in args)
