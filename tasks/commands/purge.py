"""`dispatcher purge`: removes what nobody wants any more, after asking."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import groupby
from operator import attrgetter
from typing import Annotated, TypeVar

import typer

from config.settings import Settings
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import State
from dispatcher.store.callbacks import LISTED
from dispatcher.store.keys import endpoint_id
from dispatcher.store.stored_callback import Pending, StoredCallback
from tasks import console, wiring
from tasks.commands.rejected import KEPT

commands = typer.Typer(help="Remove what nobody wants any more, after asking.", no_args_is_help=True)

BATCH = 500

T = TypeVar("T")

Workspace = Annotated[str, typer.Option(help="Whose.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@commands.command()
def waiting(
    workspace: Workspace,
    endpoint: Annotated[
        str | None, typer.Option(help="To this endpoint only (its URL).", show_default=False)
    ] = None,
    yes: Yes = False,
) -> None:
    """End waiting callbacks as failed (cancelled); what is being sent goes on. They can be replayed.

    Example:

      dispatcher purge waiting --workspace acme --endpoint https://gone.acme.example
    """
    settings = console.settings()
    origin = parse_callback_url(endpoint, allow_http=True).origin if endpoint else None
    chosen = endpoint_id(EndpointName(workspace, origin)) if origin else None

    async def find(store: wiring.Store) -> list[Pending]:
        await store.workspaces.require(workspace)
        with console.err.status("reading what waits"):
            return [one async for one in store.callbacks.pending(workspace, chosen)]

    async def end(store: wiring.Store, found: list[Pending]) -> int:
        by_endpoint = groupby(sorted(found, key=attrgetter("endpoint")), attrgetter("endpoint"))
        batches = [(to, ids) for to, group in by_endpoint for ids in _batched(one.event_id for one in group)]
        count = 0
        async with store.audit.steps("callbacks.cancel", workspace, endpoint=origin) as done:
            for to, ids in console.progress(batches, "ending"):
                count += await store.ledger.cancel(to, ids)
                done["cancelled"] = count
        return count

    events = console.run(_with(settings, find))
    if not _sure(f"end {len(events)} waiting callbacks of workspace {workspace} as failed", len(events), yes):
        return
    done = console.run(_with(settings, lambda store: end(store, events)))
    console.out.print(f"{done} callbacks have ended as failed (cancelled)")


@commands.command()
def ended(
    workspace: Workspace,
    state: Annotated[
        str | None,
        typer.Option(help=f"All in this state: {', '.join(s.value for s in LISTED)}.", show_default=False),
    ] = None,
    message: Annotated[
        str | None, typer.Option(help="All of this message (its uuid).", show_default=False)
    ] = None,
    yes: Yes = False,
) -> None:
    """Remove callbacks that have ended from the ledger, with their bodies: as if they had never been.

    Their eventIds can happen again then.
    """
    settings = console.settings()
    if (state is None) == (message is None):
        console.fail("say --state or --message, one of them", console.USAGE)
    if state is not None and state not in [s.value for s in LISTED]:
        console.fail(f"a state is one of {', '.join(s.value for s in LISTED)}, not {state!r}", console.USAGE)

    async def find(store: wiring.Store) -> list[StoredCallback]:
        await store.workspaces.require(workspace)
        if message:
            return [event for event in await store.callbacks.of_message(workspace, message) if event.ended]
        return await _all(store.callbacks.ended([workspace], State(state or "")))

    async def forget(store: wiring.Store, events: list[StoredCallback]) -> int:
        count = 0
        async with store.audit.steps("callbacks.forget", workspace, state=state, message=message) as done:
            for ids in _batched(e.event_id for e in events):
                count += await store.ledger.forget(workspace, ids)
                done["forgotten"] = count
        return count

    events = console.run(_with(settings, find))
    if not _sure(
        f"remove {len(events)} callbacks of workspace {workspace} from the ledger", len(events), yes
    ):
        return
    done = console.run(_with(settings, lambda store: forget(store, events)))
    console.out.print(f"{done} callbacks are removed from the ledger")


@commands.command()
def rejected(
    reason: Annotated[str | None, typer.Option(help="Of this reason only.", show_default=False)] = None,
    yes: Yes = False,
) -> None:
    """Remove rejected entries."""
    settings = console.settings()

    async def find(store: wiring.Store) -> list[str]:
        return [entry.id for entry in await store.rejected.newest(KEPT) if reason in (None, entry.reason)]

    ids = console.run(_with(settings, find))
    if not _sure(f"remove {len(ids)} rejected entries", len(ids), yes):
        return

    async def remove(store: wiring.Store) -> None:
        await store.rejected.remove(ids)
        await store.audit.add("rejected.purge", after={"reason": reason, "removed": len(ids)})

    console.run(_with(settings, remove))
    console.out.print(f"{len(ids)} rejected entries are removed")


async def _with(settings: Settings, work: Callable[[wiring.Store], Awaitable[T]]) -> T:
    async with wiring.store(settings) as store:
        return await work(store)


async def _all(events: AsyncIterator[StoredCallback]) -> list[StoredCallback]:
    return [event async for event in events]


def _batched(ids: Iterable[str]) -> Iterable[list[str]]:
    found = list(ids)
    return [found[first : first + BATCH] for first in range(0, len(found), BATCH)]


def _sure(what: str, count: int, yes: bool) -> bool:
    """Asks, unless there is nothing to do or nothing to ask."""
    if count == 0:
        console.out.print("there is nothing to remove")
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        console.fail(f"this would {what}: say --yes", console.USAGE)
    if typer.confirm(f"This will {what}. Go on?"):
        return True
    console.out.print("nothing was done")
    return False
