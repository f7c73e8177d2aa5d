"""Filters for events, and reading the events they match."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from dispatcher.errors import InvalidInput, RedisUnavailable
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.attempt_errors import ERRORS
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import ENDS, State
from dispatcher.rules.subscription import DEFAULT
from dispatcher.rules.workspace import Workspace
from dispatcher.store.archive.history import History
from dispatcher.store.callbacks import LISTED
from dispatcher.store.keys import endpoint_id
from dispatcher.store.stored_callback import StoredCallback
from dispatcher.store.subscriptions import found as subscription
from tasks import wiring
from tasks.actions import endpoints

WAITING = "waiting"
UNFINISHED = tuple(state.value for state in State if state not in ENDS)
"""The states that waiting events are shown with."""
ENDED = tuple(state.value for state in LISTED)
STATES = (WAITING, *UNFINISHED, *ENDED)

_HTTP_ERROR = re.compile(r"http_[1-9]\d\d")
_AGO = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True)
class Filter:
    """Selects the events in a state; each other field narrows them. Raises InvalidInput for fields that conflict."""

    state: str
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

    def __post_init__(self) -> None:
        if self.state == State.DELIVERED:
            raise InvalidInput(
                "delivered events are too many to be listed: give --message, or `dispatcher stats` for their number"
            )
        if self.state not in STATES:
            raise InvalidInput(f"a state is one of {', '.join(STATES)}, not {self.state!r}")
        if self.is_waiting and (self.since or self.until):
            raise InvalidInput("--since and --until go with ends: failed, expired, superseded")
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
        return self.state not in ENDED

    @property
    def origin(self) -> str | None:
        """The endpoint's origin, as the ledger names it. Raises InvalidInput."""
        return parse_callback_url(self.endpoint, allow_http=True).origin if self.endpoint else None


async def chosen(
    store: wiring.Store, asked: Filter, history: History | None = None
) -> AsyncIterator[StoredCallback]:
    """The matching events: latest end first, or soonest expiry first if waiting. Raises NotFound, InvalidInput.

    Those of Redis, unless `history` is given, which may have more that have ended.
    """
    workspace = await store.workspaces.require(asked.workspace) if asked.workspace else None
    if workspace and asked.subscription:
        subscription(workspace, asked.subscription)  # raises NotFound
    origin, now_ms = asked.origin, await store.installation.now_ms()
    if asked.is_waiting:
        found = store.callbacks.waiting(asked.workspace, _only_endpoint(asked, workspace))
    else:
        names = [asked.workspace] if asked.workspace else await store.workspaces.names()
        since_ms, until_ms = span(asked, now_ms)
        found = (history or store.callbacks).ended(names, State(asked.state), since_ms, until_ms)
    is_known = origin is None
    async for event in found:
        is_known = is_known or origin == event.endpoint
        if asked.state not in (WAITING, event.state):
            continue
        if asked.subscription not in (None, event.subscription or DEFAULT):
            continue
        if origin in (None, event.endpoint) and asked.error in (None, event.error):
            yield event
    if origin and not is_known:
        await endpoints.one(store, asked.workspace or "", origin)


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
        raise InvalidInput(f"--since {asked.since} is later than {until}: nothing can be between")
    return since_ms, until_ms


async def page(events: AsyncIterator[StoredCallback], offset: int, limit: int) -> list[StoredCallback]:
    """At most `limit` events, after skipping `offset`."""
    found: list[StoredCallback] = []
    async for event in events:
        if offset:
            offset -= 1
            continue
        found.append(event)
        if len(found) == limit:
            break
    return found


async def of_message(store: wiring.Store, message: str, workspace: str | None) -> list[StoredCallback]:
    """A message's events in order of acceptance, in one workspace or in all. Raises NotFound for an unknown one.

    Raises RedisUnavailable if none is found, and partitions did not answer.
    """
    if workspace:
        await store.workspaces.require(workspace)
    names = [workspace] if workspace else await store.workspaces.names()
    found, problem = list[StoredCallback](), None
    for name in names:
        try:
            found += await store.history.of_message(name, message)
        except RedisUnavailable as error:
            problem = error
    if problem and not (found and store.absent.partitions):  # else the command says what may be missing
        raise problem
    return found


def time_ms(text: str | None, now_ms: int) -> int | None:
    """Parses a time into ms since 1970: `90m` means that long ago, else ISO 8601, UTC by default. Raises InvalidInput."""
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return now_ms - int(ago[1]) * _UNITS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{text!r} is no time: say 2026-06-09T13:00, or 90m, 6h, 2d for so long ago"
        ) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
