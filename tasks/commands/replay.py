"""`dispatcher event replay`: what has ended is sent once more."""

import secrets
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from config.settings import Settings
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.store.stored_callback import StoredCallback
from tasks import console, tables, wiring
from tasks.commands.filters import STATES, Error, Json, Since, Until, Url, Workspace, chosen

WHY_NOT = {
    "unknown": "the ledger does not have it any more",
    "not_ended": "it has not ended",
    "no_body": "its body is not kept any more (DELIVERED_BODY_SECONDS, LEDGER_RETENTION_SECONDS)",
    "superseded": "a newer status of its message went out, and the workspace's order is `latest`",
    "full": "too many wait for its endpoint (MAX_WAITING_PER_ENDPOINT): go on when some have gone",
    "busy": "another callback of its message is under way, and the workspace's order is `latest`: say it again later",
}
"""Why a callback is not replayed, by the word of the ledger."""


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

    origin = parse_callback_url(endpoint, allow_http=True).origin if endpoint else None

    async def work() -> tuple[Counter[str], Counter[str]]:
        async with wiring.store(settings) as store:
            found = chosen(store, state or "", workspace, endpoint, error, since, until)
            with console.err.status("looking for them"):
                once = {(e.workspace, e.event_id): e async for e in found if not e.replayed_as}
            events = list(once.values())
            by_endpoint = Counter(str(event.endpoint_name) for event in events)
            if not yes:
                return by_endpoint, Counter()
            about = {"state": state, "endpoint": origin, "error": error, "since": since, "until": until}
            async with store.audit.steps("event.replay", workspace or "", **about) as done:
                return by_endpoint, await _replay_all(store, settings, events, as_new, rate, done)

    by_endpoint, words = console.run(work())
    if as_json:
        count = sum(by_endpoint.values())
        console.print_json({"events": count, "endpoints": by_endpoint, "results": words, "done": yes})
    else:
        _print_many(by_endpoint, words, rate, done=yes)


def _print_many(by_endpoint: Counter[str], words: Counter[str], rate: float, *, done: bool) -> None:
    count = sum(by_endpoint.values())
    console.print_table(("endpoint", "events"), by_endpoint.most_common(20), "no such events")
    if count and not done:
        console.print_text(
            f"{_events(count)}{_over(count, rate)}; nothing was done: --yes replays {'it' if count == 1 else 'them'}"
        )
    for word, number in words.items():
        if word == "replayed":
            console.print_text(f"{_events(number)} replayed: they are{_over(number, rate)}, as new attempts")
        else:
            console.print_text(f"{_events(number)} not replayed: {WHY_NOT[word]}")


def _events(count: int) -> str:
    return f"{count:,} event{'' if count == 1 else 's'}"


def _over(count: int, rate: float) -> str:
    """How many are sent when: the last one is due so much later than the first."""
    if count == 1:
        return " scheduled at once"
    return f" scheduled over {tables.duration((count - 1) / rate)}, {rate:g} a second"


def _replay_one(
    settings: Settings, event_id: str, workspace: str | None, as_new: bool, as_json: bool
) -> None:
    if workspace is None:
        console.fail("say --workspace: an eventId is one workspace's", console.USAGE)

    async def work() -> tuple[str, str]:
        async with wiring.store(settings) as store:
            word, id_ = await _replay(store, settings, workspace, event_id, as_new, in_ms=0)
            if word == "replayed":
                about = {"eventId": event_id} | ({"as": id_} if as_new else {})
                await store.audit.add("event.replay", workspace, after=about)
            return word, id_

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
    store: wiring.Store,
    settings: Settings,
    events: Sequence[StoredCallback],
    as_new: bool,
    rate: float,
    done: dict[str, Any],
) -> Counter[str]:
    """Each due a little later than the one before it: what is due now goes first, so live traffic is not behind.

    `done` is told how many were replayed so far.
    """
    words: Counter[str] = Counter()
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console.err, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=len(events))
        for number, event in enumerate(events):
            in_ms = round(number * 1000 / rate)
            word, _ = await _replay(store, settings, event.workspace, event.event_id, as_new, in_ms)
            words[word] += 1
            done["replayed"] = words["replayed"]
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
