"""`dispatcher event replay`: sends ended callbacks once more."""

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from config.settings import Settings
from dispatcher.rules.subscription import ACTIVE
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.holds import by_trouble, held_by
from tasks import tables, terminal, wiring
from tasks.actions.events import ENDED, Filter
from tasks.actions.replay import (
    NOT_RENDERED,
    REPLAYED,
    SUBSCRIPTION_REMOVED,
    WORKSPACE_REMOVED,
    How,
    Replayed,
    ToReplay,
    counted,
    held,
    replay_all,
    replay_one,
    replayable,
)
from tasks.commands.filters import Error, Json, Since, Subscription, Until, Url, Workspace

WHY_NOT = {
    "unknown": "the ledger has no such event: it was never accepted, or its retention is over",
    "not_ended": "it has not ended",
    "ended_again": "it was replayed since it was selected, and has ended again",
    "fanned_out": "it went to other subscriptions alone; `dispatcher event show` names their callbacks, which can be replayed",
    "no_body": "its body is not kept any more (DISPATCHER_DELIVERED_BODY_SECONDS, DISPATCHER_LEDGER_RETENTION_SECONDS)",
    "superseded": "a newer status of its message went out, and the workspace's order is `latest`",
    "full": "too many wait for its endpoint (DISPATCHER_MAX_WAITING_PER_ENDPOINT): try again when fewer wait",
    NOT_RENDERED: "it has no body: its subscription's URL or dialect could not be read when it was accepted",
    WORKSPACE_REMOVED: "its workspace was removed",
    SUBSCRIPTION_REMOVED: "its subscription was removed since; one of the same name that was added later is another",
    "busy": "another callback of its message is under way, and the workspace's order is `latest`: try again later",
}
"""Why a callback is not replayed, by the ledger's word."""


def replay(
    event_id: Annotated[
        str | None, typer.Argument(help="One event.", metavar="[EVENT_ID]", show_default=False)
    ] = None,
    workspace: Workspace = None,
    subscription: Subscription = None,
    state: Annotated[
        str | None,
        typer.Option(help=f"Many: all in this state ({', '.join(ENDED)}).", show_default=False),
    ] = None,
    endpoint: Url = None,
    error: Error = None,
    since: Since = None,
    until: Until = None,
    as_new: Annotated[
        bool,
        typer.Option("--as-new", help="With a new eventId, so that a receiver that deduplicates accepts it."),
    ] = False,
    rate: Annotated[float, typer.Option(min=0.1, max=10_000, help="For many: how many a second.")] = 50,
    yes: Annotated[bool, typer.Option("--yes", help="For many: do it. Without it, only count.")] = False,
    as_json: Json = False,
) -> None:
    """Send an ended event once more, or many by filter; without --yes these are only counted.

    Each gets fresh attempts and a new expiry. It keeps its eventId, so a receiver that already has it ignores
    it; --as-new gives it a new one. Many are spread over time (--rate), so that live callbacks are not
    delayed. After an interruption run the same command again: it skips what was replayed.

    Examples:

      dispatcher event replay evt_1 --workspace acme

      dispatcher event replay --state failed --workspace acme --since 6h --error http_503 --yes
    """
    settings = terminal.settings()
    if (event_id is None) == (state is None):
        terminal.fail("say an eventId, or --state for many", terminal.USAGE)
    terminal.require_one_of("a state to replay", state, ENDED)
    how = How(settings.expiry_seconds, as_new, rate)
    if event_id:
        _replay_one(settings, event_id, workspace, how, as_json)
    else:
        _replay_many(
            settings,
            Filter(state or "", workspace, endpoint, error, since, until, subscription),
            how,
            yes,
            as_json,
        )


def _replay_many(settings: Settings, asked: Filter, how: How, yes: bool, as_json: bool) -> None:
    async def work() -> Replayed:
        async with wiring.store(settings) as store:
            with terminal.err.status("looking for them"):
                events = await replayable(store, asked)
            return (
                await replay_all(store, asked, events, how, _shown) if yes else await counted(store, events)
            )

    found = terminal.run(work())
    if as_json:
        counts = {"events": found.count, "endpoints": found.by_endpoint, "results": found.words}
        terminal.print_json({**counts, "done": yes})
    else:
        print_many(found, how.rate, done=yes)
    if yes and found.words and not found.words[REPLAYED]:
        raise typer.Exit(terminal.NO)


def _shown(events: Sequence[ToReplay]) -> Iterator[ToReplay]:
    """Yields the events, with a progress bar on a terminal."""
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=terminal.err, transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        task = progress.add_task("", total=len(events))
        for event in events:
            yield event
            progress.advance(task)


def print_many(found: Replayed, rate: float, *, done: bool) -> None:
    """Prints how many callbacks were replayed, or would be, and what holds their endpoints."""
    count = found.count
    terminal.print_table(("endpoint", "events"), found.by_endpoint.most_common(20), "no such events")
    if count and not done:
        terminal.print_text(
            f"nothing was done; with --yes {_events(count)} {'is' if count == 1 else 'are'}{_over(count, rate)}"
        )
    for word, number in found.words.items():
        if word == REPLAYED:
            terminal.print_text(f"{_events(number)} replayed: they are{_over(number, rate)}, as new attempts")
        else:
            terminal.print_text(f"{_events(number)} not replayed: {WHY_NOT[word]}")
    for endpoint in sorted(found.held, key=by_trouble)[:20]:
        terminal.print_text(f"{endpoint.name} is {_held(endpoint)}")


def _held(endpoint: Endpoint) -> str:
    """Why nothing is sent to an endpoint now, and what ends that."""
    if endpoint.subscription_state != ACTIVE and endpoint.state != "stopped":
        return f"held: {held_by(endpoint)}"
    command = "resume" if endpoint.state == "stopped" else "retry"
    return f"{held_by(endpoint)}; `dispatcher endpoint {command} {endpoint.name}`"


def _events(count: int) -> str:
    return tables.counted(count, "event", "events")


def _over(count: int, rate: float) -> str:
    """Over how long they are sent, and at what rate."""
    if count == 1:
        return " scheduled at once"
    return f" scheduled over {tables.duration((count - 1) / rate)}, {rate:g} a second"


def _replay_one(settings: Settings, event_id: str, workspace: str | None, how: How, as_json: bool) -> None:
    if workspace is None:
        terminal.fail("say --workspace: an eventId belongs to one workspace", terminal.USAGE)

    async def work() -> tuple[str, str, list[Endpoint]]:
        async with wiring.store(settings) as store:
            word, id_ = await replay_one(store, workspace, event_id, how)
            event = await store.callbacks.get(workspace, id_)
            return word, id_, await held(store, [event.endpoint_name] if event else [])

    word, id_, waits = terminal.run(work())
    if word != REPLAYED:
        terminal.fail(f"event {event_id} of workspace {workspace} is not replayed: {WHY_NOT[word]}")
    if as_json:
        terminal.print_json({"eventId": id_, "replayOf": event_id if how.as_new else None})
    else:
        terminal.out.print(
            f"event {event_id} is sent once more{f' as {id_}' if how.as_new else ''}; "
            f"`dispatcher event show {id_} --workspace {workspace}` shows it",
            markup=False,
        )
        for endpoint in waits:
            terminal.print_text(f"it waits: its endpoint is {_held(endpoint)}")
