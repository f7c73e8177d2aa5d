"""`dispatcher rejected`: lists and requeues queue entries that could not be used."""

from typing import Annotated

import typer

from dispatcher.model import iso
from dispatcher.rules.outcomes import REJECTIONS
from dispatcher.store.rejected import RejectedEntry
from tasks import tables, terminal, wiring
from tasks.actions import workspaces
from tasks.actions.rejected import KEPT, Choice, Requeued, to_requeue
from tasks.actions.rejected import requeue as put_back

commands = typer.Typer(help="Queue entries that could not be used, and why.", no_args_is_help=True)

Reason = Annotated[
    str | None, typer.Option(help=f"Of this reason only: {', '.join(REJECTIONS)}.", show_default=False)
]
Workspace = Annotated[str | None, typer.Option(help="Of this workspace only.", show_default=False)]
Reveal = Annotated[bool, typer.Option("--reveal", help="With --json: the whole entries, with URLs.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@commands.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=KEPT, help="How many, newest first.")] = 20,
    reason: Reason = None,
    workspace: Workspace = None,
    reveal: Reveal = False,
    as_json: Json = False,
) -> None:
    """List the newest rejected entries."""
    settings = terminal.settings()

    require_reason(reason)

    async def work() -> tuple[list[RejectedEntry], dict[str, int]]:
        async with wiring.store(settings) as store:
            found = await store.rejected.newest(limit, Choice(None, reason, workspace).has)
            terminal.note(await workspaces.unknown(store, workspace))
            return found, await store.rejected.counts()

    entries, counts = terminal.run(work())
    if as_json:
        terminal.print_json([entry.as_json(reveal=reveal) for entry in entries])
        return
    rows = [(e.entry, iso(e.at_ms), e.reason, e.workspace, e.event_id, e.detail) for e in entries]
    terminal.print_table(
        ("entry", "at", "reason", "workspace", "eventId", "detail"), rows, _none(reason, workspace)
    )
    if counts:
        terminal.out.print(
            "ever rejected: " + ", ".join(f"{count} {reason}" for reason, count in counts.items())
        )


@commands.command()
def show(
    entry: Annotated[
        str, typer.Argument(help="The id of its queue entry.", metavar="ENTRY", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Show a rejected entry in full, with its URL and content."""
    settings = terminal.settings()

    async def work() -> list[RejectedEntry]:
        async with wiring.store(settings) as store:
            return await store.rejected.newest(1, Choice(entry).has)

    shown = terminal.run(work())
    if not shown:
        terminal.fail(f"no entry {entry} among the rejected ones; `dispatcher rejected list` shows them")
    (found,) = shown
    if as_json:
        terminal.print_json(found.as_json(reveal=True))
    else:
        terminal.print_table(("field", "value"), list(found.as_json(reveal=True).items()), "")


@commands.command()
def requeue(
    entry: Annotated[
        str | None, typer.Argument(help="One entry.", metavar="[ENTRY]", show_default=False)
    ] = None,
    reason: Reason = None,
    workspace: Workspace = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="For many: do it. Without it, only count.")] = False,
    as_json: Json = False,
) -> None:
    """Put rejected entries back on the queue unchanged, once the cause is fixed.

    Give one entry, or select many by reason and workspace; without --yes these are only counted. An
    eventId that was accepted in the meantime ends as a duplicate. --all leaves out entries that killed their
    readers (poisoned) or had no field `event`: select these with --reason.

    Examples:

      dispatcher rejected requeue 1781010297123-0

      dispatcher rejected requeue --reason unknown_workspace --workspace acme --yes
    """
    settings = terminal.settings()
    if (entry is not None) == bool(reason or workspace or everything):
        terminal.fail("say an entry, or --reason, --workspace or --all for many", terminal.USAGE)
    require_reason(reason)
    choice, do = Choice(entry, reason, workspace), yes or entry is not None

    async def work() -> Requeued:
        async with wiring.store(settings) as store:
            ids = await to_requeue(store, choice)
            terminal.note(await workspaces.unknown(store, workspace))
            return await put_back(store, choice, ids) if do else Requeued(len(ids))

    found = terminal.run(work())
    if as_json:
        terminal.print_json({"entries": found.entries, "requeued": found.requeued, "left": found.left})
    elif entry and not found.entries:
        terminal.fail(f"no entry {entry} among the rejected ones; `dispatcher rejected list` shows them")
    else:
        _print_requeued(found, done=do)


def require_reason(reason: str | None) -> None:
    """Ends the command if there is no such reason."""
    terminal.require_one_of("a reason", reason, REJECTIONS)


def _none(reason: str | None, workspace: str | None) -> str:
    """The text for an empty list."""
    which = [f"for {reason}"] * bool(reason) + [f"of workspace {workspace}"] * bool(workspace)
    return " ".join(["nothing", *which, "was rejected, or is kept any more" if which else "was rejected"])


def _print_requeued(found: Requeued, *, done: bool) -> None:
    if not done:
        terminal.out.print(
            f"{tables.counted(found.entries, 'entry', 'entries')}; nothing was done: --yes puts back what is counted"
        )
        return
    kept = f"; {found.left} were kept only in part or are gone, and stay" if found.left else ""
    terminal.out.print(
        f"{tables.counted(found.requeued, 'entry is', 'entries are')} on the queue again{kept}"
    )
