"""`dispatcher event`: what became of a status change."""

from typing import Annotated

import typer

from dispatcher.lookup import Event
from dispatcher.model import iso
from tasks import console, wiring

commands = typer.Typer(help="What became of a status change.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@commands.command()
def show(
    event_id: Annotated[str, typer.Argument(help="The eventId.", metavar="EVENT_ID", show_default=False)],
    workspace: Annotated[str, typer.Option(help="Whose event it is.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show one event: its state and every attempt."""
    settings = console.settings()

    async def work() -> Event | None:
        async with wiring.store(settings) as store:
            return await store.lookup.event(workspace, event_id)

    event = console.run(work())
    if event is None:
        console.fail(
            f"the ledger has no event {event_id} of workspace {workspace}: either it was never accepted (its status "
            "causes no callback, it was rejected, or it still waits on the queue), or its retention is over"
        )
    if as_json:
        console.print_json(event.as_json())
    else:
        _print(event)


@commands.command("list")
def list_(
    message: Annotated[str, typer.Option(help="The message's uuid.", show_default=False)],
    workspace: Annotated[str | None, typer.Option(help="Whose message; all are searched otherwise.")] = None,
    as_json: Json = False,
) -> None:
    """List the events of one message, in order of acceptance."""
    settings = console.settings()

    async def work() -> list[Event]:
        async with wiring.store(settings) as store:
            names = [workspace] if workspace else await store.workspaces.names()
            return [event for name in names for event in await store.lookup.events_of_message(name, message)]

    events = console.run(work())
    if as_json:
        console.print_json([event.as_json() for event in events])
        return
    rows = [
        (e.event_id, e.workspace, e.event_type, e.state, len(e.attempts), _last(e), _iso(e.next_attempt_ms))
        for e in events
    ]
    columns = ("eventId", "workspace", "type", "state", "attempts", "last answer", "next attempt")
    console.print_table(columns, rows, f"no events of message {message}")


def _print(event: Event) -> None:
    fields = event.as_json()
    del fields["attempts"]
    console.print_table(("field", "value"), list(fields.items()), "")
    rows = [
        (n, iso(a.started_at_ms), f"{a.duration_ms} ms", a.http_status, a.error)
        for n, a in enumerate(event.attempts, 1)
    ]
    console.out.print()
    console.print_table(("attempt", "started", "took", "HTTP status", "error"), rows, "no attempt yet")


def _last(event: Event) -> str | None:
    if not event.attempts:
        return None
    last = event.attempts[-1]
    return last.error or str(last.http_status)


def _iso(ms: int | None) -> str | None:
    return None if ms is None else iso(ms)
