"""`dispatcher endpoint retry`: retries repaired endpoints at once."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.subscription import PAUSED
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.holds import at, held_by, problem, subscription_hold
from dispatcher.store.replies import Retried
from tasks import tables, terminal, wiring
from tasks.actions import endpoints
from tasks.actions.endpoints import ToRetry
from tasks.commands.endpoint import Json, document_of, run_on_one
from tasks.progress import progress

STATES = ("paused", "waiting")


def retry(
    workspace: Annotated[
        str | None, typer.Argument(help="Whose endpoints.", metavar="[WORKSPACE]", show_default=False)
    ] = None,
    url: Annotated[
        str | None,
        typer.Argument(
            help="One endpoint; without it, all of the workspace.",
            metavar="[URL]",
            show_default=False,
        ),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(help=f"Many: only those in this state: {', '.join(STATES)}.", show_default=False),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Many: of every workspace, whatever their state.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="For many: do it. Without it, only count.")] = False,
    as_json: Json = False,
) -> None:
    """Retry an endpoint now, or many, for example after a repair.

    An endpoint that the breaker paused is probed at once by one callback; if it succeeds the others follow. Callbacks that wait
    for their next attempt become due now, in order, and use one of their remaining attempts. Rates and limits still apply.
    A stopped endpoint stays stopped: `endpoint resume` resumes it. Many are only counted without --yes.

    Examples:

      dispatcher endpoint retry acme https://hooks.acme.example

      dispatcher endpoint retry acme --yes

      dispatcher endpoint retry --state paused --yes
    """
    terminal.require_one_of("a state to retry", state, STATES)
    if problem := _contradiction(workspace, url, state, everything):
        terminal.fail(problem, terminal.USAGE)
    if workspace and url:
        _retry_one(workspace, url, as_json)
    else:
        _retry_many(workspace, state, yes, as_json)


def _contradiction(workspace: str | None, url: str | None, state: str | None, everything: bool) -> str:
    """Why the options cannot be combined; empty if they can."""
    if url and (state or everything):
        return "--state and --all are for many: leave out the URL"
    if everything and (workspace or state):
        return "--all means every endpoint of every workspace: give it alone"
    if everything or state or workspace:
        return ""
    return "give a workspace and a URL, or for many: a workspace, --state paused or --all"


def _retry_one(workspace: str, url: str, as_json: bool) -> None:
    async def work(store: wiring.Store, endpoint: Endpoint) -> tuple[Endpoint, Endpoint, Retried]:
        retried = await endpoints.retry_one(store, endpoint)
        return endpoint, await endpoints.again(store, endpoint), retried

    before, after, retried = run_on_one(workspace, url, work)
    if as_json:
        probed = bool(retried.pause_ended_ms or retried.probe_ends_ms)
        facts = {"stopped": retried.stopped, "probed": probed, "madeDue": retried.made_due}
        terminal.print_json({**facts, "before": document_of(before), "after": document_of(after)})
    if retried.stopped:
        resume = f"; `dispatcher endpoint resume {before.name}` resumes it" if after.stopped_ms else ""
        terminal.fail(f"nothing was done: {held_by(after)}{resume}")
    if not as_json:
        terminal.say(_outcome(before, after, retried))


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
    return "; ".join(done) or f"nothing to retry; {held_by(after)}"


def _retry_many(workspace: str | None, state: str | None, yes: bool, as_json: bool) -> None:
    settings = terminal.settings()

    async def work() -> tuple[ToRetry, int, int]:
        async with wiring.store(settings) as store:
            found = await endpoints.to_retry(store, workspace, state)
            if not yes:
                return found, 0, 0
            return found, *await endpoints.retry_all(store, workspace, state, found.chosen, _shown)

    found, probed, made_due = terminal.run(work())
    count = len(found.chosen)
    if as_json:
        paused = {"subscriptionPaused": len(found.paused)} if found.paused else {}
        left = {"stopped": len(found.stopped), **paused}
        counts = {"endpoints": count, **left, "probed": probed, "madeDue": made_due}
        terminal.print_json({**counts, "done": yes})
    else:
        _print_many(found, f"{probed} probed now; {_made_due(made_due)}" if yes else "")


def _print_many(found: ToRetry, done: str) -> None:
    """`done` says what was done; it is empty if they were only counted."""
    count = len(found.chosen)
    if not count:
        terminal.say("no such endpoint has anything waiting: there is nothing to retry")
    elif done:
        terminal.say(f"{_endpoints(count)}: {done}")
    else:
        rows = [(e.owner, e.url, e.state, problem(e), e.waiting) for e in found.chosen[:20]]
        terminal.print_table(("workspace", "endpoint", "state", "problem", "waiting"), rows, "")
        terminal.say(f"{_endpoints(count)}; nothing was done: --yes retries what is counted here")
    if stopped := len(found.stopped):
        terminal.say(f"{_endpoints(stopped)} stopped, and left so: `dispatcher endpoint resume` resumes one")
    for owner in dict.fromkeys(one.owner for one in found.paused):
        of = EndpointName.parse(owner)
        terminal.say(f"endpoints of {owner} are left so: {subscription_hold(of, PAUSED)}")


def _shown(steps: Sequence[Endpoint]) -> Iterable[Endpoint]:
    return progress(steps, "retrying")


def _endpoints(count: int) -> str:
    return tables.counted(count, "endpoint", "endpoints")


def _made_due(count: int) -> str:
    return tables.counted(count, "callback", "callbacks") + " that waited for the next attempt due now"
