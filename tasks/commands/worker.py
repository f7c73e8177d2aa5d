"""`dispatcher worker`: a Celery worker with this project's settings."""

import os
import sys

import typer

from dispatcher.__main__ import COMMAND
from tasks import console


def worker(context: typer.Context) -> None:
    """Run a worker; further options are Celery's.

    Run as many as you like, on as many machines. TERM ends one cleanly: callbacks in flight end
    and are recorded.
    """
    console.settings()  # says in one line what is wrong with them
    from celery.bin.celery import celery  # only here: it takes a third of a second

    node = () if _names_node(context.args) else (f"--hostname=dispatcher-{os.getpid()}@%h",)
    sys.argv = [*COMMAND[1:], "worker", *context.args]  # what Celery starts again after a HUP
    celery(["-A", "tasks", "--quiet", "worker", *node, *context.args], "dispatcher")


def _names_node(args: list[str]) -> bool:
    return any(arg.startswith(("--hostname", "-n")) for arg in args)
