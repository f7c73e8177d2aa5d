"""`dispatcher event`: shows what became of a status change; `replay` sends it once more."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from dispatcher.model import iso
from dispatcher.rules.subscription import ACTIVE, DEFAULT
from dispatcher.store.holds import subscription_hold
from dispatcher.store.stored_callback import StoredCallback
from tasks import tables, terminal, wiring
from tasks.actions.event_pages import Page, page
from tasks.actions.events import STATES, Filter
from tasks.actions.story import States, Story, states_of, story
from tasks.commands.filters import Error, Json, Since, Subscription, Until, Url, Workspace, archive_is_away

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""The usual form of a message's id; any text may be one."""

commands = typer.Typer(help="Show what became of a status change; send it once more.", no_args_is_help=True)


@commands.command()
def show(
    event_id: Annotated[str, typer.Argument(help="The eventId.", metavar="EVENT_ID", show_default=False)],
    workspace: Annotated[str, typer.Option(help="Whose event it is.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show one event: what happened to it, every attempt, and what happens next.

    Where it went to several subscriptions, it shows the default one's callback, and a line for each of the others,
    whose id (`evt_1.crm`) can be shown in the same way.
    """
    settings = terminal.settings()

    async def work() -> Story | None:
        async with wiring.store(settings) as store:
            return await story(store, workspace, event_id, settings.max_attempts, archive_is_away)

    found = terminal.run(work())
    if found is None:
        terminal.fail(
            f"the ledger has no event {event_id} of workspace {workspace}: either it was never accepted (its status "
            "causes no callback, it was rejected, or it still waits on the queue), or its retention is over"
        )
    event, states = found.event, found.states
    if as_json:
        beside = {"subscriptions": [_document(one, states) for one in found.others]} if event.others else {}
        by = None if event.ended else found.schedule.as_json()
        terminal.print_json(
            _document(event, states) | {"nextStep": found.next_step, "retrySchedule": by} | beside
        )
    else:
        _print(event, found.next_step, found.now_ms)
        if event.others:
            terminal.out.print()
            none = "the callbacks for its other subscriptions are gone"
            _print_list(found.others, none, found.now_ms, states)


@commands.command("list")
def list_(
    message: Annotated[
        str | None, typer.Option(help="Events of this message (its uuid).", show_default=False)
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            help=f"In this state: {', '.join(STATES)} (waiting: all that have not ended; ended: all others).",
            show_default=False,
        ),
    ] = None,
    workspace: Workspace = None,
    subscription: Subscription = None,
    endpoint: Url = None,
    error: Error = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 50,
    after: Annotated[
        str | None,
        typer.Option(help="Go on where a page ended: the cursor that it printed.", show_default=False),
    ] = None,
    offset: Annotated[
        int, typer.Option(min=0, help="How many to skip first; they are read too: --after costs less.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """List a message's events in order of acceptance, or those in a state, latest end or soonest expiry first.

    After a full page it prints a cursor for --after on standard error.
    A page that passes over some 10,000 events that do not match ends there, and its cursor goes on.

    With an archive (docs/archive.md) it lists what Redis has forgotten too.
    What was delivered is listed by the archive only, DISPATCHER_ARCHIVE_AFTER_SECONDS after its end; without one, only --message shows it.

    Examples:

      dispatcher event list --message 0b6b0c4e-6f2d-4d3a-9a39-0d7a2a1f8f11

      dispatcher event list --state failed --workspace acme --since 6h --error timeout
    """
    settings = terminal.settings()
    asked = Filter(state or "", workspace, endpoint, error, since, until, subscription, message)

    async def work() -> tuple[Page, int, int, States]:
        async with wiring.store(settings) as store:
            now_ms, queued = await store.installation.now_ms(), 0
            found = await page(store, asked, after, offset, limit, archive_is_away)
            if message and not found.events:
                queued, _ = await store.installation.waiting()
            return found, queued, now_ms, await states_of(store, found.events)

    found, queued, now_ms, states = terminal.run(work())
    if as_json:
        terminal.print_json([_document(event, states) for event in found.events])
    else:
        _print_list(found.events, _none(message, queued), now_ms, states)
    if found.cursor:
        more = "there are more" if found.whole else "this page ended early, there may be more"
        terminal.err.print(f"{more}: --after {found.cursor}", soft_wrap=True)


def _document(event: StoredCallback, states: States) -> dict[str, Any]:
    """A callback as JSON; with its subscription's state if it waits and that is not active."""
    state = ACTIVE if event.ended else states.get(event.endpoint_name, ACTIVE)
    return event.as_json() | ({} if state == ACTIVE else {"subscriptionState": state})


def _print(event: StoredCallback, next_: str, now_ms: int) -> None:
    fields = {name: value for name, value in event.as_json().items() if value not in (None, False, 0)}
    if event.next_attempt_ms and event.next_attempt_ms <= now_ms:
        fields = {"dueSince" if name == "nextAttemptAt" else name: value for name, value in fields.items()}
    del fields["attempts"]
    terminal.print_table(("field", "value"), list(fields.items()), "")
    terminal.out.print()
    rows: list[Sequence[object]] = [(iso(event.accepted_ms), "accepted", "", "", "")]
    for number, a in enumerate(event.attempts, 1):
        if number == event.attempts_before + 1 and event.attempts_before:
            rows.append(("", "replayed, with fresh attempts", "", "", ""))
        what = f"attempt {number - event.attempts_before * (number > event.attempts_before)}"
        rows.append(
            (iso(a.started_at_ms), what, tables.duration(a.duration_ms / 1000), a.http_status, a.error)
        )
    if event.ended_ms is not None:
        rows.append((iso(event.ended_ms), event.state.value, "", "", ""))
    terminal.print_table(("when", "what", "took", "HTTP status", "error"), rows, "")
    terminal.out.print()
    terminal.print_text(f"Next: {next_}")


def _print_list(events: Sequence[StoredCallback], none: str, now_ms: int, states: States) -> None:
    names = "eventId", "workspace", "endpoint", "type", "state", "attempts", "last answer", "ended, or next"
    rows = [
        (
            e.event_id,
            e.workspace,
            e.endpoint,
            e.event_type,
            e.state,
            len(e.attempts),
            _last(e),
            _when(e, now_ms, states),
        )
        for e in events
    ]
    terminal.print_table(names, rows, none)
    held = {
        (one.workspace, one.subscription): hold
        for one, state in states.items()
        if (hold := subscription_hold(one, state))
    }
    for (workspace, subscription), hold in held.items():
        terminal.say(f"{subscription or DEFAULT} of {workspace}: {hold}")


def _none(message: str | None, queued: int) -> str:
    """The text for an empty list; status changes still on the queue may yet become events of the message."""
    if not message:
        return "no such events"
    waiting = (
        f"; status changes still on the queue: {queued:,} (`dispatcher check` says whether a worker runs)"
    )
    whole = "" if UUID.fullmatch(message) else "; a message is found by its whole id, not by its beginning"
    return f"no events of message {message}{whole}{waiting if queued else ''}"


def _last(event: StoredCallback) -> str | None:
    if not event.attempts:
        return None
    last = event.attempts[-1]
    return last.error or str(last.http_status)


def _when(event: StoredCallback, now_ms: int, states: States) -> str | None:
    if not event.ended and (state := states.get(event.endpoint_name, ACTIVE)) != ACTIVE:
        return f"subscription {state}"
    ms = event.ended_ms or event.next_attempt_ms
    if ms is None:
        return None
    return iso(ms) if event.ended or ms > now_ms else f"due since {iso(ms)}"
