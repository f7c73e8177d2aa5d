"""`dispatcher purge`: removes data that is not needed any more, after asking."""

import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from config.settings import Settings
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.endpoint_name import callback_id, subscription_of
from dispatcher.rules.outcomes import State
from dispatcher.rules.subscription import DEFAULT
from dispatcher.store.stored_callback import Pending
from dispatcher.store.subscriptions import found
from tasks import tables, terminal, wiring
from tasks.actions import endpoints, purge
from tasks.actions.events import ENDED
from tasks.actions.rejected import KEPT, Choice, remove
from tasks.commands.filters import Subscription
from tasks.commands.rejected import require_reason
from tasks.progress import progress

commands = typer.Typer(help="Remove callbacks or rejected entries, after asking.", no_args_is_help=True)

T = TypeVar("T")

Workspace = Annotated[str, typer.Option(help="Whose callbacks.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@commands.command()
def waiting(
    workspace: Workspace,
    subscription: Subscription = None,
    endpoint: Annotated[
        str | None, typer.Option(help="To this endpoint only (its URL).", show_default=False)
    ] = None,
    yes: Yes = False,
) -> None:
    """End waiting callbacks as failed (cancelled), except those being sent. They can be replayed.

    Example:

      dispatcher purge waiting --workspace acme --endpoint https://gone.acme.example
    """
    settings = terminal.settings()
    origin = parse_callback_url(endpoint, allow_http=True).origin if endpoint else None
    of = "" if subscription in (None, DEFAULT) else str(subscription)

    async def find(store: wiring.Store) -> list[Pending]:
        found(await store.workspaces.require(workspace), subscription or DEFAULT)  # raises NotFound
        chosen = (await endpoints.one(store, callback_id(workspace, of), origin)).id if origin else None
        with terminal.err.status("reading what waits"):
            return [
                one
                async for one in store.callbacks.pending(workspace, chosen)
                if subscription is None or subscription_of(one.event_id) == of
            ]

    async def end(store: wiring.Store) -> int:
        return await purge.cancel(store, workspace, origin, events, lambda steps: progress(steps, "ending"))

    events = terminal.run(_with(settings, find))
    if not sure(
        f"end {tables.counted(len(events), 'waiting callback', 'waiting callbacks')} of workspace {workspace} as failed",
        len(events),
        yes,
    ):
        return
    done = terminal.run(_with(settings, end))
    terminal.out.print(
        f"{tables.counted(done, 'callback has', 'callbacks have')} ended as failed (cancelled)"
    )


@commands.command()
def ended(
    workspace: Workspace,
    state: Annotated[
        str | None,
        typer.Option(help=f"All in this state: {', '.join(ENDED)}.", show_default=False),
    ] = None,
    message: Annotated[
        str | None, typer.Option(help="All of this message (its uuid).", show_default=False)
    ] = None,
    yes: Yes = False,
) -> None:
    """Remove ended callbacks and their bodies from the ledger, and from the archive.

    A status change with the same eventId is then accepted again.
    """
    settings = terminal.settings()
    if (state is None) == (message is None):
        terminal.fail("give either --state or --message", terminal.USAGE)
    terminal.require_one_of("a state", state, ENDED)
    chosen = State(state) if state else None
    events = terminal.run(_with(settings, lambda store: purge.ended(store, workspace, chosen, message)))
    archive = " and the archive" if settings.archive_url else ""
    what = f"remove {tables.counted(len(events), 'callback', 'callbacks')} of workspace {workspace} from the ledger{archive}"
    if not sure(what, len(events), yes):
        return

    async def forget(store: wiring.Store) -> tuple[int, int]:
        return await purge.forget(store, workspace, events, state=state, message=message)

    done, archived = terminal.run(_with(settings, forget))
    also = f", {archived:,} from the archive" if settings.archive_url else ""
    terminal.out.print(
        f"{tables.counted(done, 'callback is', 'callbacks are')} removed from the ledger{also}"
    )


@commands.command()
def rejected(
    reason: Annotated[str | None, typer.Option(help="Of this reason only.", show_default=False)] = None,
    yes: Yes = False,
) -> None:
    """Remove rejected entries."""
    settings, choice = terminal.settings(), Choice(reason=reason)
    require_reason(reason)

    async def find(store: wiring.Store) -> list[str]:
        return [entry.id for entry in await store.rejected.newest(KEPT, choice.has)]

    ids = terminal.run(_with(settings, find))
    if not sure(f"remove {tables.counted(len(ids), 'rejected entry', 'rejected entries')}", len(ids), yes):
        return
    removed = terminal.run(_with(settings, lambda store: remove(store, choice, ids)))
    terminal.out.print(f"{tables.counted(removed, 'rejected entry is', 'rejected entries are')} removed")


async def _with(settings: Settings, work: Callable[[wiring.Store], Awaitable[T]]) -> T:
    async with wiring.store(settings) as store:
        return await work(store)


def sure(what: str, count: int, yes: bool) -> bool:
    """Asks for confirmation, unless nothing would be removed or --yes was given."""
    if count == 0:
        terminal.out.print("there is nothing to remove")
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        terminal.fail(f"this would {what}: confirm with --yes", terminal.USAGE)
    terminal.let_errors_go_first()  # the end of a progress line would wipe the question
    if typer.confirm(f"This will {what}. Continue?"):
        return True
    terminal.out.print("nothing was done")
    return False
