"""`dispatcher`: the command line, as a table of contents."""

import os
import sys
from typing import Annotated

import typer
from redis.exceptions import RedisError

from config import logs
from dispatcher import __version__
from dispatcher.errors import DispatcherError, visible
from tasks import console
from tasks.commands import api_key, audit, endpoint, event, purge, rejected, workspace
from tasks.commands.api import api
from tasks.commands.check import check
from tasks.commands.config import config
from tasks.commands.demo import demo
from tasks.commands.enqueue import enqueue
from tasks.commands.exporter import exporter
from tasks.commands.listen import listen
from tasks.commands.ping import ping
from tasks.commands.replay import replay
from tasks.commands.stats import stats
from tasks.commands.tail import tail
from tasks.commands.worker import worker

EXAMPLES = """
Examples:

  dispatcher demo                                   see it work, with nothing installed
  dispatcher workspace add acme --dialect zeckta --callback-url https://example.com/hooks
  dispatcher enqueue status-changes.jsonl           put status changes on the queue
  dispatcher worker                                 deliver them
  dispatcher workspace ping acme                    a signed test callback, now
  dispatcher event list --message 0b6b0c4e          what became of a message's callbacks
  dispatcher event list --state failed --since 6h   what was given up
  dispatcher event replay evt_1 --workspace acme    send it once more
  dispatcher stats                                  rates, ends, latency
  dispatcher tail                                   attempts as they are made
  dispatcher endpoint list                          what waits where, and why
  dispatcher audit list                             who changed what
  dispatcher check                                  would this installation lose data?
  dispatcher exporter                               figures for Prometheus
  dispatcher api                                    status of messages over HTTP, for customers

Settings come from the environment (DISPATCHER_…) and .env; `dispatcher config` shows them.
Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 Redis not reachable.
"""

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command()(demo)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(worker)
app.command()(enqueue)
event.commands.command()(replay)
workspace.commands.command()(ping)
workspace.commands.add_typer(api_key.of_workspaces, name="api-key")
app.add_typer(workspace.commands, name="workspace")
app.add_typer(api_key.of_producers, name="producer-key")
app.add_typer(event.commands, name="event")
app.add_typer(endpoint.commands, name="endpoint")
app.add_typer(rejected.commands, name="rejected")
app.add_typer(purge.commands, name="purge")
app.add_typer(audit.commands, name="audit")
app.command()(stats)
app.command()(tail)
app.command()(listen)
app.command()(check)
app.command()(exporter)
app.command()(api)
app.command()(config)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True)] = False,
) -> None:
    """Turns message status changes on a Redis queue into signed HTTP callbacks."""
    if version:
        console.out.print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        typer.echo(EXAMPLES)


def main() -> None:
    """Runs a command: errors become one line and an exit code."""
    logs.guard_standard_error()
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  began with it closed
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        text = error.format_message()  # of a group without its command: its help
        console.err.print(text if text.startswith("Usage:") else f"error: {text}", markup=False)
        code = error.exit_code
    except typer.Abort:
        code = 130
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # whoever read has enough
        _write_no_more()
        code = console.DONE
    except OSError as error:
        _write_no_more()
        console.err.print(f"error: {visible(error)}", markup=False)
        code = console.NO
    except DispatcherError as error:
        console.err.print(f"error: {visible(error)}", markup=False)
        code = console.code_of(error)
    except RedisError as error:  # a key that somebody wrote over
        hint = "; see docs/operations.md, A key was written over by hand" if "WRONGTYPE" in str(error) else ""
        console.err.print(f"error: Redis: {visible(error)}{hint}", markup=False)
        code = console.NO
    sys.exit(code)


def _write_no_more() -> None:
    """Drops what standard output still holds, or Python tries to write it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
