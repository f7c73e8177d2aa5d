"""`dispatcher erase`: erases what is known of a phone number, a message or a workspace, after asking."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import typer
from pydantic.alias_generators import to_camel

from dispatcher.store.traces import Wanted
from tasks import terminal, wiring
from tasks.actions import erase
from tasks.actions.erase import Counts
from tasks.commands.filters import Json
from tasks.commands.purge import sure

commands = typer.Typer(
    help="Erase what is known of a person, after asking; the same status change does not happen again.",
    no_args_is_help=True,
)

Workspace = Annotated[str, typer.Argument(help="Whose messages.", metavar="WORKSPACE", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count; change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

WORDS = {
    "queued": "status changes on the queue",
    "callbacks": "callbacks in Redis",
    "waiting": "  of these waiting: cancelled first",
    "archived": "callbacks in the archive",
    "messages": "messages in the message store",
    "archived_messages": "messages in the archive",
    "rejected": "rejected entries",
}


@commands.command()
def phone(
    workspace: Workspace,
    number: Annotated[str, typer.Argument(help="As in message.dest.", metavar="NUMBER", show_default=False)],
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Erase all that is known of the messages to a phone number.

    They are found by their records in Redis, however the number is written there, and in the archive as it was given,
    or with + or 00 before it, or neither.

    Example:

      dispatcher erase phone acme +393331234567 --dry-run
    """
    _run(Wanted(workspace, number=number), f"a phone number of workspace {workspace}", dry_run, yes, as_json)


@commands.command()
def message(
    workspace: Workspace,
    uuid: Annotated[str, typer.Argument(help="The message's uuid.", metavar="UUID", show_default=False)],
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Erase all that is known of one message, in Redis and in the archive."""
    _run(Wanted(workspace, message=uuid), f"a message of workspace {workspace}", dry_run, yes, as_json)


@commands.command()
def workspace(workspace: Workspace, dry_run: DryRun = False, yes: Yes = False, as_json: Json = False) -> None:
    """Erase all messages and callbacks of a workspace; the workspace itself stays, until `workspace remove`."""
    _run(Wanted(workspace), f"all messages of workspace {workspace}", dry_run, yes, as_json)


def _run(wanted: Wanted, what: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    if as_json and not (dry_run or yes):
        terminal.fail("--json needs --dry-run or --yes", terminal.USAGE)
    settings = terminal.settings()

    async def with_store(work: Callable[[wiring.Store, Wanted], Awaitable[Counts]]) -> Counts:
        async with wiring.store(settings) as store:
            with terminal.err.status("looking for it"):
                return await work(store, wanted)

    found = terminal.run(with_store(erase.count))
    if dry_run:
        _show(found, "found", wanted.workspace, as_json)
        return
    if not as_json:
        _print(found, "found")
        if not sure(f"erase what is known of {what}, for good", found.total + found.sending, yes):
            return
    done = terminal.run(with_store(erase.erase))
    _show(done, "erased", wanted.workspace, as_json)
    if done.sending:
        terminal.fail(f"{done.sending:,} of its callbacks are being sent now and are left: run this again")


def _show(counts: Counts, word: str, workspace: str, as_json: bool) -> None:
    if as_json:
        document = {to_camel(name): getattr(counts, name) for name in WORDS}
        terminal.print_json({"workspace": workspace, word: document, "beingSent": counts.sending})
    else:
        _print(counts, word)


def _print(counts: Counts, word: str) -> None:
    rows = [(text, f"{getattr(counts, name):,}") for name, text in WORDS.items()]
    if counts.sending and word == "found":
        rows.append(("being sent: for the next run", f"{counts.sending:,}"))
    terminal.print_table(("what", word), rows, "")
