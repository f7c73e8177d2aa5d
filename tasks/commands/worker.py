"""`dispatcher worker`: a Celery worker with this project's settings."""

import os
from importlib import import_module

import typer
from click import Abort, ClickException

from tasks import celery_options, console, interrupt


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
    interrupt.end_at_once()  # until Celery has handlers of its own
    celery = import_module("celery.bin.celery").celery  # which no other command needs
    node = () if _names_node(context.args) else (f"--hostname=dispatcher-{os.getpid()}@%h",)
    try:
        code = celery(
            ["-A", "tasks", "--quiet", "worker", *node, *context.args], "dispatcher", standalone_mode=False
        )
    except ClickException as error:  # Celery does not know an option, or what it says
        console.fail(" ".join(error.format_message().split()), console.USAGE)
    except Abort:
        code = interrupt.CODE
    raise typer.Exit(code or 0)


def _names_node(args: list[str]) -> bool:
    return any(arg.startswith(("--hostname", "-n")) for arg in args)
