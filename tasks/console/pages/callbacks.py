"""Lists of callbacks by filters in the URL, and what is done to all that match."""

import math
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from dispatcher.errors import InvalidInput
from dispatcher.rules.attempt_errors import ERRORS
from dispatcher.rules.outcomes import State
from dispatcher.store.stored_callback import Pending, StoredCallback
from tasks import wiring
from tasks.actions import purge, replay
from tasks.actions.event_pages import page as page_of
from tasks.actions.events import STATES, Filter, chosen, time_ms
from tasks.actions.story import states_of
from tasks.console.asking import Ask
from tasks.console.jobs import Chosen, Job, Progress, new_id
from tasks.console.replies import SAID
from tasks.console.site import action, page
from tasks.console.words import many
from tasks.tables import duration

PAGE = 50
MOST_NAMED = 10
"""Endpoints that a confirmation names."""
SOON_SECONDS = 10
"""A replay that takes longer says how long."""
MOST_SEARCHED = 200
"""Workspaces in which a page looks for a message if it names none: each is asked for itself."""
MOST_LOOKS = 2
"""A page ends after so many looks, of 500 callbacks or fewer, at what does not match: it is read in the time of a page, and the next one
goes on from there."""
FIELDS = ("state", "workspace", "subscription", "endpoint", "error", "since", "until", "message")
DEFAULT_STATE = "failed"


def wanted(ask: Ask, given: Mapping[str, str]) -> Filter:
    """The filter that a URL or a form has. Raises InvalidInput, in the words of a page."""
    of = {name: given.get(name, "").strip() or None for name in FIELDS}
    of["workspace"] = ask.workspace(of["workspace"]) or None
    state = of.pop("state") or ("" if of["message"] else DEFAULT_STATE)
    try:
        return Filter(state, **of)
    except InvalidInput as error:
        raise InvalidInput(str(error).replace("--", "")) from None


@page("/callbacks", customers=True)
async def listed(ask: Ask) -> Response:
    """A page of callbacks: the latest end or the soonest expiry first."""
    store = await ask.store()
    asked = wanted(ask, ask.query)
    problem = ""
    events: list[StoredCallback] = []
    cursor, is_whole = None, True
    try:
        await _require_few(store, asked)
        found = await page_of(store, asked, ask.query.get("after"), 0, PAGE, ask.away, MOST_LOOKS)
        events, cursor, is_whole = found.events, found.cursor, found.whole
    except InvalidInput as error:
        problem = str(error).replace("--after", "the page's cursor").replace("--", "")
    return ask.page(
        "callbacks.html",
        "Callbacks",
        events=events,
        cursor=cursor,
        whole=is_whole,
        problem=problem,
        given={name: ask.query.get(name, "") for name in FIELDS} | {"state": asked.state},
        states=STATES,
        errors=sorted(ERRORS),
        subscription_states=await states_of(store, events),
        can_replay=not asked.is_waiting and not asked.message,
        can_cancel=asked.is_waiting,
        status=400 if problem else 200,
    )


@action("/callbacks/replay", customers=True)
async def replay_all(ask: Ask) -> Response:
    """Counts the ended callbacks that match and would be sent again."""
    store, asked, rate = await ask.store(), wanted(ask, ask.form), _rate(ask)
    if asked.is_waiting or not asked.state:
        raise InvalidInput("what waits is sent without a replay: choose a state of what has ended")
    until_ms = await store.installation.now_ms()
    time_ms(asked.since, until_ms)

    async def choose(progress: Progress) -> Chosen:
        events = await replay.replayable(store, asked, progress.counted)
        found = await replay.counted(store, events)
        refused = await replay.refusals(store, events)
        notes = [
            f"{many(n, 'goes', 'go')} to {where}" for where, n in found.by_endpoint.most_common(MOST_NAMED)
        ]
        if (others := len(found.by_endpoint) - MOST_NAMED) > 0:
            notes.append(f"The rest goes to {many(others, 'other endpoint')}.")
        notes += [
            f"{many(n, 'is', 'are')} left out: {SAID.get(word, word)}" for word, n in found.words.items()
        ]
        notes += [f"{one.url} of {one.owner} is {one.state}: what goes there waits" for one in found.held]
        _require_pace(found.count, rate, ask.settings.expiry_seconds)
        if found.count / rate > SOON_SECONDS:
            end = "" if ask.is_portal else ": cancelling what waits ends that"  # customers cannot
            notes.append(
                f"They become due at {rate:g} a second, the last in {duration(found.count / rate)}{end}."
            )
        kept = [one for one in events if (one.workspace, one.event_id) not in refused]

        async def act(progress: Progress) -> str:
            how = replay.How(ask.settings.expiry_seconds, rate=rate)
            done = await replay.replay_all(store, asked, kept, how, lambda some: progress.steps(some))
            others = [
                f"{n:,}: {SAID.get(word, word)}" for word, n in done.words.items() if word != replay.REPLAYED
            ]
            sent = f"{many(done.words[replay.REPLAYED], 'callback is', 'callbacks are')} sent again, {rate:g} a second."
            return " ".join([sent, *(["Not sent:"] if others else []), *others])

        return Chosen(len(kept), act, notes)

    return _begun(ask, f"Replay all {_named(asked)}", "Replay", choose)


@action("/callbacks/cancel")
async def cancel_all(ask: Ask) -> Response:
    """Counts the waiting callbacks that match and would end as failed."""
    store, asked = await ask.store(), wanted(ask, ask.form)
    if not asked.is_waiting:
        raise InvalidInput("only what waits can be cancelled")

    async def choose(progress: Progress) -> Chosen:
        await _require_few(store, asked)
        found = await _waiting(store, asked, progress)
        number = sum(map(len, found.values()))

        async def act(progress: Progress) -> str:
            count = 0
            for workspace, pending in found.items():
                count += await purge.cancel(
                    store,
                    workspace,
                    asked.origin,
                    pending,
                    lambda some: progress.steps(some, lambda batch: len(batch[1])),
                    state=asked.state,
                    subscription=asked.subscription,
                    error=asked.error,
                    message=asked.message,
                )
            await ask.parts.watch.renew()
            left = number - count
            rest = (
                f" {many(left, 'other')} had ended or {'is' if left == 1 else 'are'} being sent."
                if left
                else ""
            )
            return f"{many(count, 'callback was', 'callbacks were')} cancelled.{rest}"

        return Chosen(number, act, ["A cancelled callback ends as failed. It can be replayed."])

    return _begun(ask, f"Cancel all {_named(asked)}", "Cancel", choose)


async def _require_few(store: wiring.Store, asked: Filter) -> None:
    """Raises InvalidInput for a message that would be looked for in too many workspaces."""
    if asked.message and not asked.workspace and (n := len(await store.workspaces.names())) > MOST_SEARCHED:
        raise InvalidInput(
            f"there are {n:,} workspaces: name the message's, or find the message by its id above"
        )


async def _waiting(store: wiring.Store, asked: Filter, progress: Progress) -> dict[str, list[Pending]]:
    """What waits and matches now, each once, by workspace. Raises InvalidInput for more than a piece of work may have.

    Of each callback it keeps what cancelling needs: all of very many would be gigabytes.
    """
    found = defaultdict[str, dict[str, Pending]](dict)
    number = 0
    async for one in chosen(store, asked):
        of = found[one.workspace]
        number += one.event_id not in of
        pending = one.pending
        of[one.event_id] = replace(pending, endpoint=sys.intern(pending.endpoint))
        progress.counted(number)
    return {workspace: list(of.values()) for workspace, of in found.items()}


def _require_pace(count: int, rate: float, most_seconds: int) -> None:
    """Raises InvalidInput for a pace at which the last is due later than a callback expires: so long Redis would keep all bodies."""
    if count / rate > most_seconds:
        least = math.ceil(count / most_seconds * 100) / 100
        raise InvalidInput(
            f"at {rate:g} a second the last of {count:,} would be due in {duration(count / rate)}, and {duration(most_seconds)} are "
            f"allowed: give a pace of {least:g} or more"
        )


def _begun(ask: Ask, title: str, verb: str, choose: Any) -> Response:
    given = {name: ask.form.get(name) for name in FIELDS}
    back = ask.url("/callbacks", **given)
    job = Job(new_id(), title, verb, ("callback", "callbacks"), ask.person, back)
    return ask.go(f"/work/{ask.parts.jobs.count(job, choose).id}")


def _named(asked: Filter) -> str:
    """The filter in words: `failed callbacks of acme since 6h`."""
    of = [
        f"{asked.state} callbacks",
        f"of {asked.workspace}" if asked.workspace else "",
        f"of message {asked.message}" if asked.message else "",
        f"(subscription {asked.subscription})" if asked.subscription else "",
        f"to {asked.endpoint}" if asked.endpoint else "",
        f"with the error {asked.error}" if asked.error else "",
        f"since {asked.since}" if asked.since else "",
        f"until {asked.until}" if asked.until else "",
    ]
    return " ".join(one for one in of if one)


def _rate(ask: Ask) -> float:
    given = ask.form.get("rate", "").strip() or "50"
    try:
        rate = float(given)
    except ValueError:
        rate = 0
    if not 0.01 <= rate <= 10_000:
        raise InvalidInput(f"a pace is 0.01 to 10,000 callbacks a second, not {given[:20]!r}")
    return rate


assert State.FAILED.value == DEFAULT_STATE
