"""`dispatcher history`: exports what is in the archive."""

import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Annotated

import typer

from config.settings import Settings
from dispatcher.codec import iso
from dispatcher.errors import InvalidInput, NotFound
from dispatcher.rules.outcomes import State
from dispatcher.rules.workspace import Workspace as Known
from dispatcher.store.archive.archive import Archive
from dispatcher.store.archive.ends import Step, archived, ended_at, read
from dispatcher.store.archive.which import Which
from dispatcher.store.subscriptions import found as subscription_of
from tasks import terminal, wiring
from tasks.actions.events import ANY_END, ENDED, Filter, which
from tasks.actions.export import Form, Writer, writer
from tasks.commands.filters import Error, Since, Subscription, Until, Url, Workspace

SHOWN_EVERY = 1000
"""Callbacks between two changes of the progress."""
STATES = (*ENDED, State.DELIVERED.value)


def history(
    workspace: Workspace = None,
    message: Annotated[
        str | None, typer.Option(help="Of this message (its uuid) only.", show_default=False)
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(help=f"Ended in this state only: {', '.join(STATES)}.", show_default=False),
    ] = None,
    subscription: Subscription = None,
    endpoint: Url = None,
    error: Error = None,
    since: Since = None,
    until: Until = None,
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            help="JSON lines, each as `event show --json`; CSV; or Parquet, with the extra `parquet`.",
        ),
    ] = Form.JSONL,
) -> None:
    """Export what is in the archive, as JSON lines, CSV or Parquet.

    To standard output, latest end first. What ended within DISPATCHER_ARCHIVE_AFTER_SECONDS is not there yet.
    A workspace or subscription that was removed can be named for as long as the archive has something of it.
    If the archive does not answer, the command fails, and what it has written until then is not whole.

    Examples:

      dispatcher history --workspace acme --since 30d > acme.jsonl

      dispatcher history --state failed --since 2026-06-01T00:00 --until 2026-07-01T00:00 --format csv > june.csv
    """
    settings = terminal.settings()
    terminal.require_one_of("a state", state, STATES)
    asked = Filter(state or ANY_END, workspace, endpoint, error, since, until, subscription, message)
    out = writer(form)
    count = terminal.run(_export(settings, asked, out))
    terminal.note(f"{count:,} callbacks")


async def _export(settings: Settings, asked: Filter, out: Writer) -> int:
    """Writes the callbacks; returns how many."""
    count = 0
    async with wiring.store(settings) as store:
        if store.archive is None:
            raise InvalidInput("there is no archive: DISPATCHER_ARCHIVE_URL names it (docs/archive.md)")
        workspace = await _workspace(store, store.archive, asked.workspace)
        found = await _found(store, store.archive, asked)
        with ExitStack() as shown:
            status = terminal.err.status("exporting")
            if not sys.stdout.isatty():  # else the rows are shown, and it would be among them
                shown.enter_context(status)
            async for (ms, *_), one in found:
                if one:
                    out.write(one)
                    count += 1
                if one is None or count % SHOWN_EVERY == 0:
                    status.update(f"exporting: {count:,} callbacks, back to {iso(ms)}")
        if workspace and asked.subscription and not count:
            subscription_of(workspace, asked.subscription)  # raises NotFound
    out.close()
    return count


async def _workspace(store: wiring.Store, archive: Archive, name: str | None) -> Known | None:
    """The workspace, if one is asked for; None with a note for one that was removed, and of which the archive has something.

    Raises NotFound.
    """
    if name is None:
        return None
    try:
        return await store.workspaces.require(name)
    except NotFound as error:
        callbacks = await archive.ended(Which(workspace=name), None, 1)
        if not callbacks.found and not await archive.messages.some(name, 1):
            raise
        terminal.note(str(error))
        return None


async def _found(store: wiring.Store, archive: Archive, asked: Filter) -> AsyncIterator[Step]:
    wanted = which(asked, await store.installation.now_ms())
    if asked.message is None:
        return archived(archive, wanted)
    names = [asked.workspace] if asked.workspace else await store.workspaces.names()
    of = [read(one) for name in names for one in await archive.of_message(name, asked.message)]
    matching = [one for one in of if one and wanted.has(one)]

    async def steps() -> AsyncIterator[Step]:
        for one in sorted(matching, key=ended_at, reverse=True):
            yield ended_at(one), one

    return steps()
