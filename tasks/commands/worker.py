"""`dispatcher worker`: a Celery worker with this project's settings."""

import os
import sys

import typer

from config import logs
from tasks import console

CELERY = ("-m", "celery", "-A", "tasks", "--quiet", "worker")


def worker(context: typer.Context) -> None:
    """Run a worker; further options are Celery's.

    Run as many as you like, on as many machines. TERM ends one cleanly: callbacks in flight end
    and are recorded.
    """
    console.settings()  # says in one line what is wrong with them
    node = () if _names_node(context.args) else (f"--hostname=dispatcher-{os.getpid()}@%h",)
    sys.stdout.flush()
    logs.flush()
    os.execv(sys.executable, [sys.executable, *CELERY, *node, *context.args])  # noqa: S606  becomes the worker


def _names_node(args: list[str]) -> bool:
    return any(arg.startswith(("--hostname", "-n")) for arg in args)
