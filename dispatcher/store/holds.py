"""Says why an endpoint's callbacks wait, in the same words in every command. No I/O."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dispatcher.model import iso, iso_seconds
from dispatcher.rules.attempt_errors import AUTH, DOWN_ERRORS, ERRORS, FINAL_ERRORS
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import State
from dispatcher.rules.retry_schedule import in_words as schedule_in_words
from dispatcher.rules.subscription import ACTIVE, DEFAULT, DISABLED, PAUSED
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.stored_callback import StoredCallback

HALF_DAY_MS = 43_200_000
_RANKS = {"stopped": 0, "paused": 0, "probing": 0, "waiting": 1, "idle": 2}
_UNITS = (
    (172_800_000, 86_400_000, "days"),
    (7_200_000, 3_600_000, "h"),
    (120_000, 60_000, "min"),
    (0, 1000, "s"),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often a callback is tried, and by whose retry schedule."""

    attempts: int
    delays: tuple[int, ...] = ()
    """Empty: the settings' own."""
    subscription: str = DEFAULT

    def __str__(self) -> str:
        if not self.delays:
            return "by the settings"
        return f"by the schedule {schedule_in_words(self.delays)} of subscription {self.subscription}"

    def as_json(self) -> dict[str, Any]:
        """The document in `event show --json`."""
        return {
            "schedule": schedule_in_words(self.delays),
            "attempts": self.attempts,
            "subscription": self.subscription if self.delays else None,
        }


def by_trouble(endpoint: Endpoint) -> tuple[int, int, int, str, str]:
    """Sort key: stopped, paused and probing endpoints, then waiting, then idle ones.

    Within each: most waiting callbacks first, then longest down.
    """
    down_since = endpoint.down_since_ms or endpoint.now_ms
    rank = _RANKS[endpoint.state] if endpoint.subscription_state == ACTIVE else 0
    return rank, -endpoint.waiting, down_since, endpoint.owner, endpoint.url


def problem(endpoint: Endpoint) -> str | None:
    """What is wrong with the endpoint, e.g. `does not answer (timeout)` or `fails (http_500)`; None if nothing is."""
    if endpoint.subscription_state != ACTIVE:
        return f"subscription {endpoint.subscription_state}"
    if not endpoint.waiting:
        return None
    if endpoint.paused_until_ms and not endpoint.down_since_ms:
        return f"asked to wait ({endpoint.last_error or 'Retry-After'})"
    if not (endpoint.down_since_ms or endpoint.failures or _waits_for_attempt(endpoint)):
        return None
    if endpoint.last_error:
        return in_words(endpoint.last_error)
    return "down" if endpoint.down_since_ms else None


def in_words(error: str) -> str:
    """An attempt's error as a phrase: `does not answer (…)`, `cannot prove who we are (auth)` or `fails (…)`."""
    if error == AUTH:  # the endpoint itself was not asked
        return f"cannot prove who we are ({error})"
    return f"{'does not answer' if error in DOWN_ERRORS else 'fails'} ({error})"


def problems(endpoints: Iterable[Endpoint]) -> dict[str, int]:
    """Counts endpoints by problem: does not answer, cannot prove who we are, fails, asked to wait, down."""
    found = (problem(endpoint) for endpoint in endpoints)
    return dict(sorted(Counter(one.partition(" (")[0] for one in found if one).items()))


def subscription_hold(of: EndpointName, state: str) -> str:
    """What a paused or disabled subscription means for its callbacks, with the command that helps; empty if it is active."""
    command = f"`dispatcher subscription resume {of.workspace} {of.subscription or DEFAULT}`"
    if state == PAUSED:
        return f"its subscription is paused, so nothing is sent: {command} resumes it"
    if state == DISABLED:
        return f"its subscription is disabled, so what waits ends failed: {command} brings it back"
    return ""


def held_by(endpoint: Endpoint) -> str:
    """What an endpoint's callbacks wait for, in one sentence."""
    e, by_subscription = endpoint, subscription_hold(endpoint.name, endpoint.subscription_state)
    if by_subscription:
        stopped = f"stopped by the operator since {at(e.stopped_ms, e.now_ms)}; " if e.stopped_ms else ""
        return f"{stopped}{by_subscription}"
    last = f", last: {e.last_error}" if e.last_error else ""
    row = f" after {e.failures} failures in a row" if e.failures else ""
    match e.state:
        case "stopped":
            return f"stopped by the operator since {at(e.stopped_ms or 0, e.now_ms)}"
        case "paused" if not e.down_since_ms:
            return (
                f"paused until {at(e.paused_until_ms, e.now_ms)}, as the endpoint asked (Retry-After){last}"
            )
        case "paused":
            return f"paused by the breaker until {at(e.paused_until_ms, e.now_ms)}{row}{last}"
        case "probing" if e.in_flight:
            return f"probing: one callback tries it now{row}{last}"
        case "probing":
            return f"probing: one callback tries it next{row}{last}"
        case "idle" if e.paused_until_ms > e.now_ms:
            return f"idle: nothing waits for it; what comes is held until {at(e.paused_until_ms, e.now_ms)}{row}{last}"
        case "idle":
            return "idle: nothing waits for it"
    return f"waiting: {_waits_for(e)}"


def next_step(
    callback: StoredCallback, endpoint: Endpoint, before: int, *, has_body: bool, schedule: Schedule
) -> str:
    """What happens next to a callback, and what an operator can do, in words."""
    if callback.ended:
        nothing = _nothing_more(callback, has_body)
        held = subscription_hold(endpoint.name, endpoint.subscription_state)
        return f"{nothing}; {held}" if held and has_body and callback.state is State.FAILED else nothing
    return _until_sent(callback, endpoint, before, schedule)


def _nothing_more(callback: StoredCallback, has_body: bool) -> str:
    replay = f"`dispatcher event replay {callback.event_id} --workspace {callback.workspace}` sends it again"
    again = replay if has_body else "its body is not kept any more: it cannot be replayed"
    if callback.error in ("not_rendered", "subscription_removed"):
        again = "it cannot be replayed"
    match callback.state:
        case State.DELIVERED:
            return f"nothing: it was delivered; {again}"
        case State.SUPERSEDED:
            return "nothing: a newer status of its message took its place"
        case State.FAILED if callback.cancelled:
            return f"nothing: the operator cancelled it; {again}"
        case _ if callback.error == "http_410":
            return f"nothing: the receiver said 410, gone; {again}"
        case State.FAILED if callback.error == "endpoint_full":
            return f"nothing: {ERRORS[callback.error]}; {again}"
        case State.FAILED if callback.error in FINAL_ERRORS:
            return f"nothing: {ERRORS[callback.error]}, so it is not tried again; {again}"
        case State.FAILED:
            return f"nothing: its attempts are used up; {again}"
    return f"nothing: its time was over; {again}"


def _until_sent(callback: StoredCallback, endpoint: Endpoint, before: int, schedule: Schedule) -> str:
    where = str(callback.endpoint_name)
    retry = f"`dispatcher endpoint retry {where}`"
    if callback.lease_ends_ms is not None:
        return f"it is being sent; if its worker died it comes back at {iso(callback.lease_ends_ms)}"
    if endpoint.stopped_ms is not None:
        return f"it waits: the operator stopped the endpoint; `dispatcher endpoint resume {where}`"
    if held := subscription_hold(endpoint.name, endpoint.subscription_state):
        return f"it waits: {held}"
    if callback.next_attempt_ms is None:
        return "it waits for an earlier callback of its message"
    if endpoint.paused_until_ms > callback.next_attempt_ms:
        what = problem(endpoint) or "is down"
        return f"it waits: the endpoint {what}; {held_by(endpoint)}; {before} are before this one; {retry} probes now"
    number = len(callback.attempts) - callback.attempts_before + 1
    if callback.next_attempt_ms > endpoint.now_ms:
        hint = f"; {retry} makes it due now" if callback.state is State.RETRYING else ""
        return f"attempt {number} of {schedule.attempts} at {iso(callback.next_attempt_ms)}, {schedule}{hint}"
    return f"attempt {number} of {schedule.attempts} as soon as it is its turn, {schedule}; {before} are before it"


def _waits_for(e: Endpoint) -> str:
    sent = f"{e.in_flight} in flight"
    if e.oldest_due_ms is None:
        return f"{sent}, and those of the same messages behind them" if e.waiting > e.in_flight else sent
    if e.oldest_due_ms > e.now_ms:
        last = f", last: {e.last_error}" if e.last_error else ""
        beside = f"{sent}; " if e.in_flight else ""
        return f"{beside}the next attempt is at {at(e.oldest_due_ms, e.now_ms)}{last}"
    most = f" of at most {e.window}" if e.window else ""
    return f"due since {at(e.oldest_due_ms, e.now_ms)}, {sent}{most}"


def _waits_for_attempt(e: Endpoint) -> bool:
    """Whether everything in its lane is due later: retries, and replays with a time of their own."""
    return e.oldest_due_ms is not None and e.oldest_due_ms > e.now_ms


def at(ms: int, now_ms: int) -> str:
    """A time in UTC and its distance from now; without the date if less than half a day away."""
    day, _, time = iso_seconds(ms).partition("T")
    away = duration(abs(ms - now_ms))
    date = "" if abs(ms - now_ms) < HALF_DAY_MS else f"{day} "
    return f"{date}{time} ({f'in {away}' if ms > now_ms else f'{away} ago'})"


def duration(ms: int) -> str:
    """Milliseconds as people say them: 45 s, 4 min, 17 h, 3 days."""
    unit, name = next((unit, name) for least, unit, name in _UNITS if ms >= least)
    return f"{round(ms / unit)} {name}"
