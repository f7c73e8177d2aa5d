"""`dispatcher event`: what became of a status change, and sending it once more."""

import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from config.settings import Settings
from dispatcher.addresses import parse_callback_url
from dispatcher.errors import NotFound
from dispatcher.events import LISTED, Event, next_step
from dispatcher.keys import endpoint_id
from dispatcher.model import iso
from dispatcher.outcomes import State
from tasks import console, wiring

commands = typer.Typer(help="What became of a status change; sending it once more.", no_args_is_help=True)

WAITING = "waiting"
STATES = (WAITING, *(state.value for state in LISTED))

WHY_NOT = {
    "unknown": "the ledger does not have it any more",
    "not_ended": "it has not ended",
    "no_body": "its body is not kept any more (DELIVERED_BODY_SECONDS, LEDGER_RETENTION_SECONDS)",
    "superseded": "a newer status of its message went out, and the workspace's order is `latest`",
    "full": "too many wait for its endpoint (MAX_WAITING_PER_ENDPOINT): go on when some have gone",
    "busy": "another callback of its message is under way, and the workspace's order is `latest`: say it again later",
}
"""Why a callback is not replayed, by the word of the ledger."""

Workspace = Annotated[str | None, typer.Option(help="Of this workspace only.", show_default=False)]
Url = Annotated[
    str | None,
    typer.Option(
        "--endpoint", help="To this endpoint only (its URL); needs --workspace.", show_default=False
    ),
]
Error = Annotated[
    str | None,
    typer.Option(help="Whose last attempt said this only: timeout, http_500, …", show_default=False),
]
Since = Annotated[
    str | None, typer.Option(help="Ended since: 2026-06-09T13:00, or 90m, 6h, 2d ago.", show_default=False)
]
Until = Annotated[str | None, typer.Option(help="Ended until: as --since.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@commands.command()
def show(
    event_id: Annotated[str, typer.Argument(help="The eventId.", metavar="EVENT_ID", show_default=False)],
    workspace: Annotated[str, typer.Option(help="Whose event it is.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show one event: what happened to it, every attempt, and what happens next."""
    settings = console.settings()

    async def work() -> tuple[Event, str] | None:
        async with wiring.store(settings) as store:
            event = await store.events.get(workspace, event_id)
            return (event, await _next_step(store, event)) if event else None

    found = console.run(work())
    if found is None:
        console.fail(
            f"the ledger has no event {event_id} of workspace {workspace}: either it was never accepted (its status "
            "causes no callback, it was rejected, or it still waits on the queue), or its retention is over"
        )
    event, next_ = found
    if as_json:
        console.print_json(event.as_json() | {"nextStep": next_})
    else:
        _print(event, next_)


@commands.command("list")
def list_(
    message: Annotated[
        str | None, typer.Option(help="All events of this message (its uuid).", show_default=False)
    ] = None,
    state: Annotated[
        str | None, typer.Option(help=f"In this state: {', '.join(STATES)}.", show_default=False)
    ] = None,
    workspace: Workspace = None,
    endpoint: Url = None,
    error: Error = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 50,
    offset: Annotated[int, typer.Option(min=0, help="How many to leave out before.")] = 0,
    as_json: Json = False,
) -> None:
    """List a message's events in order of acceptance, or those in a state: the latest end, or next expiry, first.

    Examples:

      dispatcher event list --message 0b6b0c4e-6f2d-4d3a-9a39-0d7a2a1f8f11

      dispatcher event list --state failed --workspace acme --since 6h --error timeout
    """
    settings = console.settings()
    if (message is None) == (state is None):
        console.fail("say --message or --state, one of them", console.USAGE)
    if message and (endpoint or error or since or until):
        console.fail("--endpoint, --error, --since and --until go with --state", console.USAGE)
    if state == WAITING and (since or until):
        console.fail("--since and --until go with ends: failed, expired, superseded", console.USAGE)

    async def work() -> list[Event]:
        async with wiring.store(settings) as store:
            if message:
                names = [workspace] if workspace else await store.workspaces.names()
                found = [event for name in names for event in await store.events.of_message(name, message)]
                return found[offset : offset + limit + 1]
            chosen = _chosen(store, state or "", workspace, endpoint, error, since, until)
            return await _some(chosen, offset, limit + 1)

    events = console.run(work())
    shown = events[:limit]
    if as_json:
        console.print_json([event.as_json() for event in shown])
    else:
        rows = [
            (e.event_id, e.workspace, e.endpoint, e.event_type, e.state, len(e.attempts), _last(e), _when(e))
            for e in shown
        ]
        columns = (
            "eventId",
            "workspace",
            "endpoint",
            "type",
            "state",
            "attempts",
            "last answer",
            "ended, or next",
        )
        console.print_table(columns, rows, f"no events of message {message}" if message else "no such events")
    if len(events) > limit:
        console.err.print(f"there are more: --offset {offset + limit} shows them")


@commands.command()
def replay(
    event_id: Annotated[
        str | None, typer.Argument(help="One event.", metavar="[EVENT_ID]", show_default=False)
    ] = None,
    workspace: Workspace = None,
    state: Annotated[
        str | None,
        typer.Option(help=f"Many: all in this state ({', '.join(STATES[1:])}).", show_default=False),
    ] = None,
    endpoint: Url = None,
    error: Error = None,
    since: Since = None,
    until: Until = None,
    as_new: Annotated[
        bool, typer.Option("--as-new", help="With a fresh eventId, so that a receiver that dedupes takes it.")
    ] = False,
    rate: Annotated[float, typer.Option(min=0.1, max=10_000, help="Of many: how many a second.")] = 50,
    yes: Annotated[bool, typer.Option("--yes", help="Of many: do it. Without it, only count.")] = False,
    as_json: Json = False,
) -> None:
    """Send an event that has ended once more, or many by filter: without --yes these are only counted.

    Each gets fresh attempts and a new expiry. It keeps its eventId, so a receiver that has it ignores
    it; --as-new gives it another one. Many are spread over time (--rate), so that live callbacks go
    beside them; interrupted, say the same again: what was replayed is left out.

    Examples:

      dispatcher event replay evt_1 --workspace acme

      dispatcher event replay --state failed --workspace acme --since 6h --error http_503 --yes
    """
    settings = console.settings()
    if (event_id is None) == (state is None):
        console.fail("say an eventId, or --state for many", console.USAGE)
    if state is not None and state not in STATES[1:]:
        console.fail(f"a state to replay is one of {', '.join(STATES[1:])}, not {state!r}", console.USAGE)
    if event_id:
        _replay_one(settings, event_id, workspace, as_new, as_json)
        return

    async def work() -> tuple[Counter[str], Counter[str]]:
        async with wiring.store(settings) as store:
            chosen = _chosen(store, state or "", workspace, endpoint, error, since, until)
            found = {(e.workspace, e.event_id): e async for e in chosen if not e.replayed_as}
            events = list(found.values())
            by_endpoint = Counter(f"{event.workspace} {event.endpoint}" for event in events)
            words = await _replay_all(store, settings, events, as_new, rate) if yes else Counter[str]()
            return by_endpoint, words

    by_endpoint, words = console.run(work())
    count = sum(by_endpoint.values())
    if as_json:
        console.print_json({"events": count, "endpoints": by_endpoint, "results": words, "done": yes})
        return
    console.print_table(("endpoint", "events"), by_endpoint.most_common(20), "no such events")
    if count and not yes:
        took = f"{count / rate / 60:.0f} minutes" if count / rate >= 120 else f"{count / rate:.0f} s"
        console.out.print(
            f"{count} events, {took} at {rate:g} a second; nothing was done: --yes replays them"
        )
    for word, number in words.items():
        console.out.print(
            f"{number} {'replayed' if word == 'replayed' else 'not: ' + WHY_NOT[word]}", markup=False
        )


def _replay_one(
    settings: Settings, event_id: str, workspace: str | None, as_new: bool, as_json: bool
) -> None:
    if workspace is None:
        console.fail("say --workspace: an eventId is one workspace's", console.USAGE)

    async def work() -> tuple[str, str]:
        async with wiring.store(settings) as store:
            return await _replay(store, settings, workspace, event_id, as_new, in_ms=0)

    word, id_ = console.run(work())
    if word != "replayed":
        console.fail(f"event {event_id} of workspace {workspace} is not replayed: {WHY_NOT[word]}")
    if as_json:
        console.print_json({"eventId": id_, "replayOf": event_id if as_new else None})
    else:
        console.out.print(
            f"event {event_id} is sent once more{f' as {id_}' if as_new else ''}; "
            f"`dispatcher event show {id_} --workspace {workspace}` shows it",
            markup=False,
        )


async def _replay_all(
    store: wiring.Store, settings: Settings, events: Sequence[Event], as_new: bool, rate: float
) -> Counter[str]:
    """Each due a little later than the one before it: what is due now goes first, so live traffic is not behind."""
    words: Counter[str] = Counter()
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console.err, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=len(events))
        for number, event in enumerate(events):
            in_ms = round(number * 1000 / rate)
            word, _ = await _replay(store, settings, event.workspace, event.event_id, as_new, in_ms)
            words[word] += 1
            progress.advance(task)
            if word == "full":
                break
    return words


async def _replay(
    store: wiring.Store, settings: Settings, workspace: str, event_id: str, as_new: bool, in_ms: int
) -> tuple[str, str]:
    copy = f"replay_{secrets.token_hex(12)}" if as_new else ""
    ttl_ms = settings.expiry_seconds * 1000
    word = await store.ledger.replay(workspace, event_id, copy=copy, in_ms=in_ms, ttl_ms=ttl_ms)
    return word, copy or event_id


async def _chosen(
    store: wiring.Store,
    state: str,
    workspace: str | None,
    url: str | None,
    error: str | None,
    since: str | None,
    until: str | None,
) -> AsyncIterator[Event]:
    """The events of a filter. Fails where the filter cannot be."""
    if state not in STATES:
        console.fail(f"a state is one of {', '.join(STATES)}, not {state!r}", console.USAGE)
    if url and not workspace:
        console.fail("--endpoint needs --workspace: an endpoint is one workspace's", console.USAGE)
    if workspace:
        await store.workspaces.require(workspace)
    origin = parse_callback_url(url, allow_http=True).origin if url else None
    now_ms = await store.lookup.now_ms()
    if state == WAITING:
        found = store.events.waiting(workspace, endpoint_id(f"{workspace} {origin}") if origin else None)
    else:
        names = [workspace] if workspace else await store.workspaces.names()
        since_ms, until_ms = console.time_ms(since, now_ms) or 0, console.time_ms(until, now_ms) or now_ms
        found = store.events.ended(names, State(state), since_ms, until_ms)
    async for event in found:
        if origin in (None, event.endpoint) and error in (None, event.error):
            yield event


async def _some(events: AsyncIterator[Event], offset: int, limit: int) -> list[Event]:
    found: list[Event] = []
    async for event in events:
        if offset:
            offset -= 1
            continue
        found.append(event)
        if len(found) == limit:
            break
    return found


async def _next_step(store: wiring.Store, event: Event) -> str:
    endpoint = await store.lookup.endpoint(f"{event.workspace} {event.endpoint}")
    if endpoint is None:
        raise NotFound(f"endpoint {event.endpoint} of workspace {event.workspace} is gone from Redis")
    before = await store.events.before(event, endpoint)
    return next_step(event, endpoint, before, has_body=await store.events.has_body(event))


def _print(event: Event, next_: str) -> None:
    fields = {name: value for name, value in event.as_json().items() if value not in (None, False, 0)}
    del fields["attempts"]
    console.print_table(("field", "value"), list(fields.items()), "")
    console.out.print()
    rows: list[Sequence[object]] = [(iso(event.accepted_ms), "accepted", "", "", "")]
    for number, a in enumerate(event.attempts, 1):
        if number == event.attempts_before + 1 and event.attempts_before:
            rows.append(("", "replayed, with fresh attempts", "", "", ""))
        what = f"attempt {number - event.attempts_before * (number > event.attempts_before)}"
        rows.append((iso(a.started_at_ms), what, f"{a.duration_ms} ms", a.http_status, a.error))
    if event.ended_ms is not None:
        rows.append((iso(event.ended_ms), event.state.value, "", "", ""))
    console.print_table(("when", "what", "took", "HTTP status", "error"), rows, "")
    console.out.print(f"\nNext: {next_}", markup=False, soft_wrap=True)


def _last(event: Event) -> str | None:
    if not event.attempts:
        return None
    last = event.attempts[-1]
    return last.error or str(last.http_status)


def _when(event: Event) -> str | None:
    ms = event.ended_ms or event.next_attempt_ms
    return None if ms is None else iso(ms)
