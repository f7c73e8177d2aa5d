"""`dispatcher endpoint`: where callbacks go, and what holds them up."""

from collections.abc import Awaitable, Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any

import typer

from dispatcher.errors import NotFound
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.store.holds import at, by_trouble, held_by, problem
from dispatcher.store.lookup import Endpoint
from dispatcher.store.replies import Retried, Stopped
from tasks import console, wiring

commands = typer.Typer(help="Where callbacks go: what waits, what is paused, and why.", no_args_is_help=True)

STATES = ("stopped", "paused", "probing", "waiting", "idle")
RETRIED_STATES = ("paused", "waiting")
SORTS = ("trouble", "waiting")
NAMED = 3
"""Endpoints that are named where one is not known."""

Workspace = Annotated[str, typer.Argument(help="Whose endpoint it is.", show_default=False)]
Url = Annotated[
    str,
    typer.Argument(
        help="Its URL; what is behind the port does not matter.", metavar="URL", show_default=False
    ),
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
"""Fields that `list` shows, and their headings."""


@commands.command("list")
def list_(
    workspace: Annotated[str | None, typer.Option(help="Of this workspace only.", show_default=False)] = None,
    state: Annotated[
        str | None, typer.Option(help=f"In this state only: {', '.join(STATES)}.", show_default=False)
    ] = None,
    sort: Annotated[
        str, typer.Option(help="trouble: what is held up first; waiting: the most waiting first.")
    ] = SORTS[0],
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    as_json: Json = False,
) -> None:
    """List endpoints: their state, what is wrong with them, what waits, and since when.

    stopped: by the operator. paused: by the breaker, after failures in a row, or because the endpoint asked for it.
    probing: one callback tries it. waiting: callbacks wait for their next attempt, a slot, or the endpoint's rate.
    """
    settings = console.settings()
    if state is not None and state not in STATES:
        console.fail(f"a state is one of {', '.join(STATES)}, not {state!r}", console.USAGE)
    if sort not in SORTS:
        console.fail(f"--sort is one of {', '.join(SORTS)}, not {sort!r}", console.USAGE)

    async def work() -> tuple[list[Endpoint], int]:
        async with wiring.store(settings) as store:
            chosen = await _chosen(store, workspace, state)
            found = sorted(chosen, key=by_trouble) if sort == "trouble" else chosen
            return await store.lookup.with_answers(found[:limit]), len(found) - limit

    found, left = console.run(work())
    documents = [_document(endpoint) for endpoint in found]
    if as_json:
        console.print_json(documents)
        return
    rows = [[document[name] for name in COLUMNS] for document in documents]
    console.print_table(tuple(COLUMNS.values()), rows, "no such endpoints")
    if left > 0:
        console.err.print(f"{left} more; --limit shows them")


@commands.command()
def show(workspace: Workspace, url: Url, as_json: Json = False) -> None:
    """Show one endpoint: what its callbacks wait for, and what its last failed attempt brought."""

    async def work(store: wiring.Store, endpoint: Endpoint) -> tuple[Endpoint, float | None]:
        found = await store.workspaces.get(workspace)
        return await _with_answer(store, endpoint), found.rate_per_second if found else None

    found, rate = _run(workspace, url, work)
    held = held_by(found)
    if rate and found.state == "waiting":
        held += f"; its workspace's rate is {rate:g} a second"
    document = {name: found.as_json()[name] for name in ("workspace", "endpoint", "state")}
    document |= {"problem": problem(found), "heldBy": held, **found.as_json()}
    if as_json:
        console.print_json(document)
    else:
        console.print_table(("field", "value"), list(document.items()), "")


@commands.command()
def stop(workspace: Workspace, url: Url) -> None:
    """Stop an endpoint: nothing more is sent to it until you resume it; what waits still expires."""

    async def work(store: wiring.Store, endpoint: Endpoint) -> tuple[Endpoint, Stopped]:
        return endpoint, await _stop(store, endpoint, resume=False)

    endpoint, word = _run(workspace, url, work)
    if word is Stopped.CHANGED:
        until = " until it is resumed, or until they expire" if endpoint.waiting else ""
        _say(f"stopped; {_callbacks(endpoint.waiting)}{until}")
    else:
        _say(f"nothing was changed: {held_by(endpoint)}; {_callbacks(endpoint.waiting)}")


commands.command("pause", hidden=True)(stop)


@commands.command()
def resume(workspace: Workspace, url: Url) -> None:
    """Let an endpoint go on that was stopped, and say what holds it still.

    One that the breaker paused goes on by itself: it is probed when its pause ends. `endpoint retry` probes now.
    """

    async def work(store: wiring.Store, endpoint: Endpoint) -> tuple[Endpoint, Stopped]:
        word = await _stop(store, endpoint, resume=True)
        return await _again(store, endpoint), word

    endpoint, word = _run(workspace, url, work)
    done = "not stopped any more" if word is Stopped.CHANGED else "was not stopped"
    _say(f"{done}; {held_by(endpoint)}{_hint(endpoint)}")


@commands.command()
def retry(
    workspace: Annotated[
        str | None, typer.Argument(help="Whose.", metavar="[WORKSPACE]", show_default=False)
    ] = None,
    url: Annotated[
        str | None,
        typer.Argument(
            help="One endpoint, at once; without it, all of the workspace.",
            metavar="[URL]",
            show_default=False,
        ),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            help=f"Many: those in this state only: {', '.join(RETRIED_STATES)}.", show_default=False
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Many: of every workspace, whatever their state.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Of many: do it. Without it, only count.")] = False,
    as_json: Json = False,
) -> None:
    """Try an endpoint now, or many: "it is mended, go on".

    What the breaker paused is probed at once by one callback; one success lets the others follow. What waits for its
    next attempt becomes due now, in order, and uses one of the attempts it has left. Rates and limits hold as always. What is
    stopped stays so: `endpoint resume` lets it go on. Many are only counted without --yes.

    Examples:

      dispatcher endpoint retry acme https://hooks.acme.example

      dispatcher endpoint retry acme --yes

      dispatcher endpoint retry --state paused --yes
    """
    if state is not None and state not in RETRIED_STATES:
        console.fail(f"a state to retry is one of {', '.join(RETRIED_STATES)}, not {state!r}", console.USAGE)
    if url and (state or everything):
        console.fail("--state and --all are for many: leave out the URL", console.USAGE)
    if everything and (workspace or state):
        console.fail("--all is every endpoint of every workspace: say it alone", console.USAGE)
    if workspace and url:
        _retry_one(workspace, url, as_json)
    elif workspace or state or everything:
        _retry_many(workspace, state, yes, as_json)
    else:
        console.fail(
            "say a workspace and a URL, or for many: a workspace, --state paused or --all", console.USAGE
        )


def _retry_one(workspace: str, url: str, as_json: bool) -> None:
    async def work(store: wiring.Store, endpoint: Endpoint) -> tuple[Endpoint, Endpoint, Retried]:
        retried = await _retry(store, endpoint)
        if retried.changed:
            about = {"endpoint": endpoint.url, "probed": bool(retried.pause_ended_ms)}
            await store.audit.add("endpoint.retry", workspace, after=about | {"madeDue": retried.made_due})
        return endpoint, await _again(store, endpoint), retried

    before, after, retried = _run(workspace, url, work)
    if as_json:
        probed = bool(retried.pause_ended_ms or retried.probe_ends_ms)
        facts = {"stopped": retried.stopped, "probed": probed, "madeDue": retried.made_due}
        console.print_json({**facts, "before": _document(before), "after": _document(after)})
    if retried.stopped:
        console.fail(
            f"nothing was done: {held_by(after)}; `dispatcher endpoint resume {workspace} {before.url}` lets it go on"
        )
    if not as_json:
        _say(_outcome(before, after, retried))


def _outcome(before: Endpoint, after: Endpoint, retried: Retried) -> str:
    if not before.waiting:
        next_ = "the next callback probes it" if retried.pause_ended_ms else "there is nothing to retry"
        return f"nothing waits for it: {next_}"
    done = []
    if retried.pause_ended_ms:
        done.append(f"probing now; was {held_by(before)}")
    elif retried.probe_ends_ms:
        done.append(f"is being probed already, until {at(retried.probe_ends_ms, after.now_ms)} at the latest")
    if retried.made_due:
        done.append(_made_due(retried.made_due))
    return "; ".join(done) or f"nothing to hasten; {held_by(after)}"


def _retry_many(workspace: str | None, state: str | None, yes: bool, as_json: bool) -> None:
    settings = console.settings()

    async def work() -> tuple[list[Endpoint], list[Endpoint], int, int]:
        async with wiring.store(settings) as store:
            found = [e for e in await _chosen(store, workspace, state) if _can_be_retried(e)]
            stopped = [e for e in found if e.state == "stopped"]
            chosen = sorted((e for e in found if e.state != "stopped"), key=by_trouble)
            done = await _retry_all(store, workspace or "", state, chosen) if yes else (0, 0)
            return chosen, stopped, *done

    chosen, stopped, probed, made_due = console.run(work())
    if as_json:
        counts = {"endpoints": len(chosen), "stopped": len(stopped), "probed": probed, "madeDue": made_due}
        console.print_json({**counts, "done": yes})
        return
    if chosen and not yes:
        rows = [(e.workspace, e.url, e.state, problem(e), e.waiting) for e in chosen[:20]]
        console.print_table(("workspace", "endpoint", "state", "problem", "waiting"), rows, "")
        _say(f"{_endpoints(len(chosen))}; nothing was done: --yes retries what is counted here")
    elif chosen:
        _say(f"{_endpoints(len(chosen))}: {probed} probed now; {_made_due(made_due)}")
    else:
        _say("no such endpoint has anything waiting: there is nothing to retry")
    if stopped:
        _say(f"{_endpoints(len(stopped))} stopped, and left so: `dispatcher endpoint resume` lets one go on")


async def _retry_all(
    store: wiring.Store, workspace: str, state: str | None, chosen: Sequence[Endpoint]
) -> tuple[int, int]:
    """How many are probed, and how many callbacks were made due."""
    probed = made_due = 0
    async with store.audit.steps("endpoint.retry", workspace, state=state) as done:
        for number, endpoint in enumerate(console.progress(chosen, "retrying"), 1):
            retried = await _retry(store, endpoint)
            probed += bool(retried.pause_ended_ms)
            made_due += retried.made_due
            done |= {"endpoints": number, "probed": probed, "madeDue": made_due}
    return probed, made_due


async def _retry(store: wiring.Store, endpoint: Endpoint) -> Retried:
    if not _can_be_retried(endpoint):
        return Retried(stopped=endpoint.stopped_ms is not None)
    return await store.ledger.retry(endpoint.id, await store.lookup.later(endpoint)) or Retried()


@commands.command()
def ping(
    workspace: Workspace,
    url: Annotated[
        str,
        typer.Argument(
            help="Its URL: in full, or without a path where callbacks wait or the workspace's callback URL is there.",
            metavar="URL",
            show_default=False,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Send a signed test callback to an endpoint, the way its deliveries go, and show what came back.

    Nothing is kept of it: neither the breaker nor what waits learns from it. Exit code 1 if it was not taken.
    """
    settings, sending = console.settings(), import_module("tasks.commands.ping")  # HTTP: only this needs it
    given = parse_callback_url(url, allow_http=True)

    async def work() -> Any:
        async with wiring.store(settings) as store:
            found = await store.workspaces.require(workspace)
            endpoint = await store.lookup.endpoint(f"{workspace} {given.origin}")
            known = await store.lookup.next_url(endpoint) if endpoint else None
            if not known and found.callback_url:
                own = parse_callback_url(found.callback_url, allow_http=True)
                known = own.url if own.origin == given.origin else None
            if not (known or endpoint):
                raise await _unknown(store, workspace, given.origin)
            if not given.target and not known:
                console.fail(
                    "nothing waits there, so the path is not known: give the URL in full", console.USAGE
                )
            now_ms = await store.lookup.now_ms()
            return await sending.ping_url(settings, found, now_ms, given.url if given.target else known or "")

    sending.answered(console.run(work()), as_json)


async def _with_answer(store: wiring.Store, endpoint: Endpoint) -> Endpoint:
    [found] = await store.lookup.with_answers([endpoint])
    return found


async def _again(store: wiring.Store, endpoint: Endpoint) -> Endpoint:
    """The endpoint as it is by now."""
    return await store.lookup.endpoint(f"{endpoint.workspace} {endpoint.url}") or endpoint


async def _stop(store: wiring.Store, endpoint: Endpoint, *, resume: bool) -> Stopped:
    word = await store.ledger.stop(endpoint.id, resume=resume)
    if word is Stopped.CHANGED:
        what = "endpoint.resume" if resume else "endpoint.stop"
        await store.audit.add(what, endpoint.workspace, after={"endpoint": endpoint.url})
    return word


def _run(workspace: str, url: str, work: Callable[[wiring.Store, Endpoint], Awaitable[Any]]) -> Any:
    """What a command's work on one endpoint returns."""
    settings = console.settings()
    origin = parse_callback_url(url, allow_http=True).origin

    async def run() -> Any:
        async with wiring.store(settings) as store:
            found = await store.lookup.endpoint(f"{workspace} {origin}")
            if found is None:
                await store.workspaces.require(workspace)
                raise await _unknown(store, workspace, origin)
            return await work(store, found)

    return console.run(run())


async def _chosen(store: wiring.Store, workspace: str | None, state: str | None) -> list[Endpoint]:
    found = await store.lookup.endpoints()
    chosen = [e for e in found if workspace in (None, e.workspace)]
    if workspace and not chosen:
        await store.workspaces.require(workspace)
    return [e for e in chosen if state in (None, e.state)]


async def _unknown(store: wiring.Store, workspace: str, origin: str) -> NotFound:
    """What there is in place of an endpoint that is not: the nearest of its workspace's."""
    found = [e.url for e in sorted(await _chosen(store, workspace, None), key=by_trouble)]
    if not found:
        return NotFound(f"workspace {workspace} has no endpoint yet: no callback of it was accepted")
    near = get_close_matches(origin, found, NAMED, 0.5) or found[:NAMED]
    more = f" and {len(found) - len(near)} more" if len(found) > len(near) else ""
    return NotFound(
        f"workspace {workspace} has no endpoint {origin}; it has {', '.join(near)}{more} "
        f"(`dispatcher endpoint list --workspace {workspace}`)"
    )


def _document(endpoint: Endpoint) -> dict[str, Any]:
    return endpoint.as_json() | {"problem": problem(endpoint)}


def _hint(endpoint: Endpoint) -> str:
    """What makes an endpoint go on that is not stopped."""
    command = f"`dispatcher endpoint retry {endpoint.workspace} {endpoint.url}`"
    if endpoint.state == "paused":
        return f"; {command} probes now"
    if endpoint.state == "idle" and endpoint.paused_until_ms > endpoint.now_ms:
        return f"; {command} has the next callback probe it"
    if endpoint.state == "waiting" and (endpoint.oldest_due_ms or 0) > endpoint.now_ms:
        return f"; {command} makes what waits due now"
    return ""


def _can_be_retried(endpoint: Endpoint) -> bool:
    """Whether something waits for it, or would."""
    return endpoint.waiting > 0 or endpoint.paused_until_ms > endpoint.now_ms


def _endpoints(count: int) -> str:
    return f"{count} endpoint{'' if count == 1 else 's'}"


def _made_due(count: int) -> str:
    return f"{count} callback{'' if count == 1 else 's'} that waited for the next attempt due now"


def _callbacks(count: int) -> str:
    return "nothing waits for it" if count == 0 else f"{count} callback{'s wait' if count > 1 else ' waits'}"


def _say(text: str) -> None:
    console.out.print(text, markup=False, soft_wrap=True)
