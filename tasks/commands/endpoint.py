"""`dispatcher endpoint`: where callbacks go, and what holds them up."""

from typing import Annotated

import typer

from dispatcher.addresses import parse_callback_url
from dispatcher.errors import NotFound
from dispatcher.keys import endpoint_id
from dispatcher.lookup import Endpoint
from tasks import console, wiring

commands = typer.Typer(help="Where callbacks go: what waits, what is paused, and why.", no_args_is_help=True)

STATES = ("stopped", "paused", "probing", "waiting", "idle")

Workspace = Annotated[str, typer.Argument(help="Whose endpoint it is.", show_default=False)]
Url = Annotated[
    str,
    typer.Argument(
        help="Its URL; what is behind the port does not matter.", metavar="URL", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@commands.command("list")
def list_(
    workspace: Annotated[str | None, typer.Option(help="Of this workspace only.", show_default=False)] = None,
    state: Annotated[
        str | None, typer.Option(help=f"In this state only: {', '.join(STATES)}.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, those with the most waiting first.")] = 100,
    as_json: Json = False,
) -> None:
    """List endpoints: their state, what waits, and since when."""
    settings = console.settings()
    if state is not None and state not in STATES:
        console.fail(f"a state is one of {', '.join(STATES)}, not {state!r}", console.USAGE)

    async def work() -> list[Endpoint]:
        async with wiring.store(settings) as store:
            return await store.lookup.endpoints()

    found = [e for e in console.run(work()) if workspace in (None, e.workspace) and state in (None, e.state)]
    if as_json:
        console.print_json([endpoint.as_json() for endpoint in found[:limit]])
        return
    documents = [endpoint.as_json() for endpoint in found[:limit]]
    fields = (
        "workspace",
        "endpoint",
        "state",
        "waiting",
        "inFlight",
        "failures",
        "p95Ms",
        "nextProbeAt",
        "oldestDueAt",
    )
    columns = (
        "workspace",
        "endpoint",
        "state",
        "waiting",
        "in flight",
        "failures",
        "p95 ms",
        "next probe",
        "oldest due",
    )
    console.print_table(
        columns, [[document[name] for name in fields] for document in documents], "no such endpoints"
    )
    if len(found) > limit:
        console.err.print(f"{len(found) - limit} more; --limit shows them")


@commands.command()
def show(workspace: Workspace, url: Url, as_json: Json = False) -> None:
    """Show one endpoint."""
    settings = console.settings()
    name = _name(workspace, url)

    async def work() -> Endpoint | None:
        async with wiring.store(settings) as store:
            return await store.lookup.endpoint(name)

    found = console.run(work())
    if found is None:
        raise _unknown(name)
    if as_json:
        console.print_json(found.as_json())
    else:
        console.print_table(("field", "value"), list(found.as_json().items()), "")


@commands.command()
def pause(workspace: Workspace, url: Url) -> None:
    """Stop an endpoint: nothing more is sent to it until you resume it."""
    _stop(workspace, url, going=False)
    console.out.print("stopped; what waits goes on waiting, until it expires", markup=False)


@commands.command()
def resume(workspace: Workspace, url: Url) -> None:
    """Let a stopped endpoint go on."""
    _stop(workspace, url, going=True)
    console.out.print("going on", markup=False)


def _stop(workspace: str, url: str, *, going: bool) -> None:
    settings = console.settings()
    name = _name(workspace, url)

    async def work() -> bool:
        async with wiring.store(settings) as store:
            known = await store.ledger.stop(endpoint_id(name), going=going)
            if known:
                what = "endpoint.resume" if going else "endpoint.pause"
                await store.audit.add(what, workspace, after={"endpoint": name.partition(" ")[2]})
            return known

    if not console.run(work()):
        raise _unknown(name)


def _name(workspace: str, url: str) -> str:
    return f"{workspace} {parse_callback_url(url, allow_http=True).origin}"


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no endpoint {name}; `dispatcher endpoint list` shows them")
