"""Filters for events, and reading the events they match."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from dispatcher.codec import is_time
from dispatcher.errors import InvalidInput, RedisUnavailable
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.attempt_errors import ERRORS
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import ENDS, State
from dispatcher.rules.subscription import DEFAULT
from dispatcher.rules.workspace import Workspace
from dispatcher.store.archive.archive import After, Archive
from dispatcher.store.archive.ends import LOOK, Step, ends, in_order
from dispatcher.store.archive.history import Away, History
from dispatcher.store.archive.which import Which
from dispatcher.store.callbacks import LISTED, Passed
from dispatcher.store.keys import endpoint_id
from dispatcher.store.stored_callback import StoredCallback
from dispatcher.store.subscriptions import found as subscription
from tasks import wiring
from tasks.actions import endpoints

WAITING, ANY_END = "waiting", "ended"
UNFINISHED = tuple(state.value for state in State if state not in ENDS)
"""The states that waiting events are shown with."""
ENDED = tuple(state.value for state in LISTED)
"""The ends that Redis lists."""
STATES = (WAITING, *UNFINISHED, ANY_END, *ENDED, State.DELIVERED.value)

_HTTP_ERROR = re.compile(r"http_[1-9]\d\d")
_AGO = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True)
class Filter:
    """Selects the events in a state, or of a message; each other field narrows them. Raises InvalidInput for fields that conflict."""

    state: str
    """One of STATES; empty: any, of a message."""
    workspace: str | None = None
    endpoint: str | None = None
    """Its URL; path and query are ignored."""
    error: str | None = None
    """The last attempt's error."""
    since: str | None = None
    """Earliest end: ISO 8601, or an age such as `90m`."""
    until: str | None = None
    subscription: str | None = None
    """DEFAULT is the workspace's own."""
    message: str | None = None

    def __post_init__(self) -> None:
        if not self.state and not self.message:
            raise InvalidInput("give --message or --state, or both")
        if self.state not in STATES and not (self.message and not self.state):
            raise InvalidInput(f"a state is one of {', '.join(STATES)}, not {self.state!r}")
        if self.is_waiting and (self.since or self.until):
            raise InvalidInput(
                "--since and --until go with ends: ended, failed, expired, superseded, delivered"
            )
        if self.subscription and not self.workspace:
            raise InvalidInput("--subscription needs --workspace: a subscription belongs to one workspace")
        if self.endpoint and not self.workspace:
            raise InvalidInput("--endpoint needs --workspace: an endpoint belongs to one workspace")
        if self.error and self.error not in ERRORS and not _HTTP_ERROR.fullmatch(self.error):
            raise InvalidInput(
                f"an error is http_404, http_503, … or one of {', '.join(ERRORS)}, not {self.error!r}"
            )

    @property
    def is_waiting(self) -> bool:
        """Whether it selects events that have not ended."""
        return self.state in (WAITING, *UNFINISHED)

    @property
    def origin(self) -> str | None:
        """The endpoint's origin, as the ledger names it. Raises InvalidInput."""
        return parse_callback_url(self.endpoint, allow_http=True).origin if self.endpoint else None


async def chosen(store: wiring.Store, asked: Filter) -> AsyncIterator[StoredCallback]:
    """The matching events of Redis and the archive: latest end first, soonest expiry first if waiting, of a message in order of acceptance.

    Raises NotFound, InvalidInput, ArchiveUnavailable.
    """
    async for _, event in steps(store, asked, archive=store.archive):
        if event:
            yield event


async def steps(
    store: wiring.Store,
    asked: Filter,
    *,
    archive: Archive | None,
    after: After | None = None,
    away: Away | None = None,
) -> AsyncIterator[Step]:
    """The same with their places, for pages; those of an archive too, as `ends` has them, but not of those that wait.

    after: where to begin
    away: is called if the archive does not answer; without it that raises ArchiveUnavailable
    """
    if asked.message:
        async for step in _of_message(store, asked, after, store.history_so_far(away)):
            yield step
        return
    workspace = await store.workspaces.require(asked.workspace) if asked.workspace else None
    if workspace and asked.subscription:
        subscription(workspace, asked.subscription)  # raises NotFound
    now_ms = await store.installation.now_ms()
    if asked.is_waiting:
        found = _waiting(store, asked, _only_endpoint(asked, workspace), after)
    else:
        names = [asked.workspace] if asked.workspace else await store.workspaces.names()
        found = ends(store.callbacks, archive, names, which(asked, now_ms), after, away)
    is_known = asked.origin is None or after is not None
    async for place, event in found:
        is_known = is_known or event is not None
        yield place, event
    if workspace and not is_known:
        await _require_endpoint(store, workspace, asked)


async def _of_message(
    store: wiring.Store, asked: Filter, after: After | None, history: History
) -> AsyncIterator[Step]:
    """A message's events in order of acceptance. A message has few: all are read."""
    narrow = which(asked, await store.installation.now_ms())
    found = await of_message(store, asked.message or "", asked.workspace, history)
    for event in _after(after, found):
        has_state = asked.state in ("", event.state) or asked.state == (ANY_END if event.ended else WAITING)
        if asked.since or asked.until:
            has_state = has_state and narrow.since_ms <= (event.ended_ms or -1) <= narrow.until_ms
        if has_state and narrow.narrows(event):
            yield (event.accepted_ms, event.workspace, event.event_id), event


def _after(after: After | None, found: list[StoredCallback]) -> list[StoredCallback]:
    """What comes after the place of an event; if that is gone, what was accepted later."""
    if after is None:
        return found
    at = [n for n, one in enumerate(found) if (one.workspace, one.event_id) == after[1:]]
    return found[at[0] + 1 :] if at else [one for one in found if one.accepted_ms > after[0]]


async def of_message(
    store: wiring.Store, message: str, workspace: str | None, history: History
) -> list[StoredCallback]:
    """A message's events in order of acceptance, in one workspace or in all. Raises NotFound for an unknown one.

    Raises RedisUnavailable if none is found, and partitions did not answer.
    """
    if workspace:
        await store.workspaces.require(workspace)
    names = [workspace] if workspace else await store.workspaces.names()
    found, problem = list[StoredCallback](), None
    for name in names:
        try:
            found += await history.of_message(name, message)
        except RedisUnavailable as error:
            problem = error
    if problem and not (found and store.absent.partitions):  # else the command says what may be missing
        raise problem
    return found


async def _waiting(
    store: wiring.Store, asked: Filter, endpoint: str | None, after: After | None
) -> AsyncIterator[Step]:
    narrow, passed = which(asked, 0), 0
    found = store.callbacks.waiting(asked.workspace, endpoint, after[0] if after else 0)
    async for event in in_order(found, expires_at, latest_first=False):
        place = expires_at(event)
        if after and place <= after:
            continue
        if isinstance(event, Passed):
            passed += event.number
        elif asked.state in (WAITING, event.state) and narrow.narrows(event):
            yield place, event
            continue
        else:
            passed += 1
        if passed >= LOOK:
            passed = 0
            yield place, None


def expires_at(event: StoredCallback | Passed) -> After:
    """The place of an event that waits; of others that were passed over, before all that expire at the same time."""
    if isinstance(event, Passed):
        return event.expires_ms, "", ""
    return event.expires_ms, event.workspace, event.event_id


def which(asked: Filter, now_ms: int) -> Which:
    """What a filter means of what has ended. Raises InvalidInput for a time that is none."""
    since_ms, until_ms = span(asked, now_ms)
    of = None if asked.subscription is None else "" if asked.subscription == DEFAULT else asked.subscription
    states = () if asked.state in (ANY_END, "") else (asked.state,)
    return Which(asked.workspace or "", states, since_ms, until_ms, asked.origin or "", of, asked.error or "")


async def _require_endpoint(store: wiring.Store, workspace: Workspace, asked: Filter) -> None:
    """Raises NotFound if the filter's endpoint is none of the workspace's, or of its subscription's."""
    of = [asked.subscription] if asked.subscription else [DEFAULT, *workspace.subscriptions]
    for one in of:
        name = EndpointName(workspace.id, asked.origin or "", "" if one == DEFAULT else one)
        if await store.endpoints.get(name):
            return
    raise await endpoints.unknown(store, workspace.id, asked.origin or "")


def _only_endpoint(asked: Filter, workspace: Workspace | None) -> str | None:
    """The id of the one endpoint that a filter by URL means; None: it may mean several, or there is no such filter."""
    if not asked.origin or not workspace or (workspace.subscriptions and not asked.subscription):
        return None
    of = "" if asked.subscription in (None, DEFAULT) else asked.subscription
    return endpoint_id(EndpointName(workspace.id, asked.origin, of or ""))


def span(asked: Filter, now_ms: int) -> tuple[int, int]:
    """From when to when, in ms since 1970. Raises InvalidInput if nothing can be between."""
    since_ms, until_ms = time_ms(asked.since, now_ms) or 0, time_ms(asked.until, now_ms) or now_ms
    if since_ms > until_ms:
        until = f"--until {asked.until}" if asked.until else "now"
        if asked.since is None:
            raise InvalidInput(f"{until} is before 1970: nothing can be before it")
        raise InvalidInput(f"--since {asked.since} is later than {until}: nothing can be between")
    return since_ms, until_ms


def time_ms(text: str | None, now_ms: int) -> int | None:
    """Parses a time into ms since 1970: `90m` means that long ago, else ISO 8601, UTC by default.

    Raises InvalidInput, also for a time outside of the years 1 to 9999 in UTC, which neither Python nor the archive has.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    ms = now_ms - int(ago[1]) * _UNITS[ago[2]] if ago else _iso_ms(text)
    if not is_time(ms):
        raise InvalidInput(f"{text!r} lies outside of the years 1 to 9999 in UTC")
    return ms


def _iso_ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{text!r} is no time: say 2026-06-09T13:00, or 90m, 6h, 2d for so long ago"
        ) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
