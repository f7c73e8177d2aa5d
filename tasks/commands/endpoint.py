"""`dispatcher endpoint`: where callbacks go, and what holds them up."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.subscription import ACTIVE
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.holds import by_trouble, held_by, problem
from dispatcher.store.replies import Stopped
from tasks import terminal, wiring
from tasks.actions import endpoints

commands = typer.Typer(help="Where callbacks go: what waits, what is paused, and why.", no_args_is_help=True)

STATES = ("stopped", "paused", "probing", "waiting", "idle")
SORTS = ("trouble", "waiting")

Workspace = Annotated[
    str,
    typer.Argument(help="Whose endpoint it is: acme, or acme.crm for a subscription.", show_default=False),
]
Url = Annotated[
    str,
    typer.Argument(help="Its URL; path and query are ignored.", metavar="URL", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

COLUMNS = {
    "workspace": "workspace",
    "endpoint": "endpoint",
    "state": "state",
    "problem": "problem",
    "waiting": "waiting",
    "inFlight": "in flight",
    "failures": "failures",
    "p95Ms": "p95 ms",
    "downSince": "down since",
    "nextProbeAt": "next probe",
    "oldestDueAt": "oldest due",
    "lastError": "last error",
    "lastFailedAt": "last failed",
    "lastAnswer": "last answer",
}
"""The fields that `list` shows, and their column heads."""


@commands.command("list")
def list_(
    workspace: Annotated[str | None, typer.Option(help="Of this workspace only.", show_default=False)] = None,
    state: Annotated[
        str | None, typer.Option(help=f"In this state only: {', '.join(STATES)}.", show_default=False)
    ] = None,
    sort: Annotated[
        str, typer.Option(help="trouble: the most troubled first; waiting: the most waiting first.")
    ] = SORTS[0],
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    as_json: Json = False,
) -> None:
    """List endpoints: their state, what is wrong with them, what waits, and since when.

    stopped: by the operator. paused: by the breaker, after failures in a row, or because the endpoint asked for it.
    probing: one callback probes it. waiting: callbacks wait for their next attempt, a slot, or the endpoint's rate.
    """
    settings = terminal.settings()
    terminal.require_one_of("a state", state, STATES)
    terminal.require_one_of("--sort", sort, SORTS)

    async def work() -> tuple[list[Endpoint], int]:
        async with wiring.store(settings) as store:
            chosen = await endpoints.chosen(store, workspace, state)
            found = sorted(chosen, key=by_trouble) if sort == "trouble" else chosen
            return await store.endpoints.with_answers(found[:limit]), len(found) - limit

    found, left = terminal.run(work())
    documents = [document_of(endpoint) for endpoint in found]
    if as_json:
        terminal.print_json(documents)
        return
    rows = [
        [endpoint.owner, *(document[name] for name in list(COLUMNS)[1:])]
        for endpoint, document in zip(found, documents, strict=True)
    ]
    terminal.print_table(tuple(COLUMNS.values()), rows, "no such endpoints")
    if left > 0:
        terminal.err.print(f"{left} more; --limit shows them")


@commands.command()
def show(workspace: Workspace, url: Url, as_json: Json = False) -> None:
    """Show one endpoint: what its callbacks wait for, and the answer of its last failed attempt."""

    async def work(store: wiring.Store, endpoint: Endpoint) -> tuple[Endpoint, float | None]:
        found = await store.workspaces.find(endpoint.workspace)
        of = found and (found.subscriptions.get(endpoint.subscription) if endpoint.subscription else found)
        return await endpoints.with_answer(store, endpoint), of.rate_per_second if of else None

    found, rate = run_on_one(workspace, url, work)
    held = held_by(found)
    if rate and found.state == "waiting" and found.subscription_state == ACTIVE:
        held += f"; its workspace's rate is {rate:g} a second"
    document = {name: found.as_json()[name] for name in ("workspace", "endpoint", "state")}
    document |= {"problem": problem(found), "heldBy": held, **found.as_json()}
    if as_json:
        terminal.print_json(document)
    else:
        terminal.print_table(("field", "value"), list(document.items()), "")


@commands.command()
def stop(workspace: Workspace, url: Url) -> None:
    """Stop an endpoint: nothing is sent to it until you resume it; waiting callbacks still expire."""

    async def work(store: wiring.Store, endpoint: Endpoint) -> tuple[Endpoint, Stopped]:
        return endpoint, await endpoints.stop(store, endpoint, resume=False)

    endpoint, word = run_on_one(workspace, url, work)
    if word is Stopped.CHANGED:
        until = " until it is resumed, or until they expire" if endpoint.waiting else ""
        terminal.say(f"stopped; {_callbacks(endpoint.waiting)}{until}")
    else:
        terminal.say(f"nothing was changed: {held_by(endpoint)}; {_callbacks(endpoint.waiting)}")


@commands.command(hidden=True)
def pause(workspace: Workspace, url: Url) -> None:
    """Stop an endpoint: the old name of `stop`, because `paused` is what the breaker does."""
    terminal.note("`endpoint pause` is the old name of `endpoint stop`")
    stop(workspace, url)


@commands.command()
def resume(workspace: Workspace, url: Url) -> None:
    """Resume a stopped endpoint, and show what still holds it up.

    One that the breaker paused resumes by itself: it is probed when its pause ends. `endpoint retry` probes it now.
    """

    async def work(store: wiring.Store, endpoint: Endpoint) -> tuple[Endpoint, Stopped]:
        word = await endpoints.stop(store, endpoint, resume=True)
        return await endpoints.again(store, endpoint), word

    endpoint, word = run_on_one(workspace, url, work)
    done = "not stopped any more" if word is Stopped.CHANGED else "was not stopped"
    terminal.say(f"{done}; {held_by(endpoint)}{_hint(endpoint)}")


def run_on_one(workspace: str, url: str, work: Callable[[wiring.Store, Endpoint], Awaitable[Any]]) -> Any:
    """Finds an endpoint, runs a command's work on it, and returns the result."""
    settings = terminal.settings()
    origin = parse_callback_url(url, allow_http=True).origin

    async def run() -> Any:
        async with wiring.store(settings) as store:
            return await work(store, await endpoints.one(store, workspace, origin))

    return terminal.run(run())


def document_of(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint as JSON, for programs."""
    return endpoint.as_json() | {"problem": problem(endpoint)}


def _hint(endpoint: Endpoint) -> str:
    """The command that makes an endpoint send sooner, unless it is stopped."""
    if endpoint.subscription_state != ACTIVE:  # held_by names the command that helps
        return ""
    command = f"`dispatcher endpoint retry {endpoint.name}`"
    if endpoint.state == "paused":
        return f"; {command} probes now"
    if endpoint.state == "idle" and endpoint.paused_until_ms > endpoint.now_ms:
        return f"; {command} has the next callback probe it"
    if endpoint.state == "waiting" and (endpoint.oldest_due_ms or 0) > endpoint.now_ms:
        return f"; {command} makes what waits due now"
    return ""


def _callbacks(count: int) -> str:
    return "nothing waits for it" if count == 0 else f"{count} callback{'s wait' if count > 1 else ' waits'}"
