"""`dispatcher worker`: runs a Celery worker with this project's settings."""

import os
from importlib import import_module

import typer
from click import Abort, ClickException

from config import broker
from tasks import celery_options, interrupt, terminal


def worker(context: typer.Context) -> None:
    """Run a worker; further options are Celery's.

    Run any number of workers, on any number of machines. TERM ends one cleanly with exit code 0: callbacks in flight finish
    and are recorded. Ctrl-C does the same with exit code 130. HUP restarts it in the same process, so that it reads .env
    again; on a terminal HUP ends it.

    Of Celery's options --hostname, --pidfile, --uid, --gid and --umask are useful; those that have no effect here are refused with
    the setting to use instead.
    """
    settings = terminal.service_settings()  # an invalid one ends the command with one line
    broker.of(settings.celery_url, settings.redis_ca_file)  # so does what Celery would refuse
    if problem := celery_options.problem(context.args):
        terminal.fail(problem, terminal.USAGE)
    interrupt.end_at_once()  # until Celery has handlers of its own
    celery = import_module("celery.bin.celery").celery  # no other command needs it
    node = () if _names_node(context.args) else (f"--hostname=dispatcher-{os.getpid()}@%h",)
    try:
        code = celery(
            ["-A", "tasks", "--quiet", "worker", *node, *context.args], "dispatcher", standalone_mode=False
        )
    except ClickException as error:  # an unknown option of Celery's, or an invalid value
        terminal.fail(" ".join(error.format_message().split()), terminal.USAGE)
    except Abort:
        code = interrupt.CODE
    raise typer.Exit(code or 0)


def _names_node(args: list[str]) -> bool:
    return any(arg.startswith(("--hostname", "-n")) for arg in args)
