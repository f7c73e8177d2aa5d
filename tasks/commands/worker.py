"""`dispatcher worker`: a Celery worker with this project's settings."""

import os

import typer

from tasks import console

CELERY_OPTIONS = ("worker", "--without-gossip", "--without-mingle")


def worker(context: typer.Context) -> None:
    """Run a worker. Further options are Celery's, such as --hostname or --loglevel.

    Run as many as you like, on as many machines; TERM ends one cleanly: callbacks in flight end
    and are recorded.
    """
    console.settings()
    node = () if _names_node(context.args) else (f"--hostname=dispatcher-{os.getpid()}@%h",)
    from tasks.app import app  # Celery is loaded for this command only

    app.start(["--quiet", *CELERY_OPTIONS, *node, *context.args])


def _names_node(args: list[str]) -> bool:
    return any(arg == "-n" or arg.startswith(("--hostname", "-n")) for arg in args)
