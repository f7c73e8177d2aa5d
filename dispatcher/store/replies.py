"""What the scripts take and return, as frozen values, and the parsing of replies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import structlog

from dispatcher.model import BY_LETTER
from dispatcher.rules.callback import Claimed
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import Attempt, EndpointHealth, Outcome, State
from dispatcher.store.damaged import time_ms
from dispatcher.store.entry import read_entry
from dispatcher.store.kept_body import divided

log = structlog.get_logger()


class Claim(msgspec.Struct, frozen=True):
    """The result of a claim. `more`: the endpoint has more that is due, and room for it."""

    more: bool
    wait_ms: int
    """Claim again after this long, when the rate limit has its next token; 0: not needed."""
    workspace: str
    origin: str
    """The endpoint's scheme://host:port."""
    revision: str
    callbacks: list[Claimed]
    lease_ends_at: float
    """Monotonic time of this process."""
    subscription: str = ""
    """Whose endpoint it is; empty: the default one's, or of a URL that came with the status change."""


class Ended(msgspec.Struct, frozen=True):
    """A callback that a script ended in any state but delivered."""

    workspace: str
    event_id: str
    state: State
    endpoint: str
    """scheme://host:port"""
    event_type: str
    last: Attempt | None
    answer: str
    """First bytes of the last answer that was no 2xx."""


class Hint(NamedTuple):
    """An endpoint that has callbacks to claim."""

    endpoint: str
    """Its id."""
    workspace: str = ""
    """Its workspace; empty if the sender of the hint does not know it."""
    partition: int = 0
    """The number of its partition."""


LEFT_ON_THE_QUEUE = ("changed", "broken", "retired")
"""Words of accept for callbacks whose entries stay on the queue."""


class Accepted(msgspec.Struct, frozen=True):
    """The result of accept."""

    hints: list[Hint]
    words: list[str]
    """For each callback: accepted, superseded, duplicate, conflict or full; or one of LEFT_ON_THE_QUEUE."""
    recorded: list[str]
    """For each status change with a message record: recorded, late, conflict, again or failed."""
    problem: str
    """Why one of these failed; empty if none did."""
    claims: list[tuple[str, Claim]]
    """What was leased to this worker at once, by endpoint."""
    changed: list[str] = []
    """Workspaces that changed since their entries were rendered; none of their entries was taken in."""


class Settlement(msgspec.Struct, frozen=True):
    """The outcome of a claimed callback, ready to be recorded."""

    event_id: str
    claim: int
    outcome: Outcome
    attempt: Attempt | None
    health: EndpointHealth = EndpointHealth.NONE
    retry_after_ms: int = 0
    """How long the endpoint asks to be left alone."""
    losses: int = 0
    """How many times its worker died; if any, the callback keeps its place in its chain."""


class ToClaim(NamedTuple):
    """How many due callbacks of an endpoint to lease to this worker."""

    endpoint: str
    """Its id."""
    most: int


class ToSettle(msgspec.Struct, frozen=True):
    """The outcomes of callbacks of one endpoint."""

    endpoint: str
    settlements: Sequence[Settlement]
    claim: int = 0
    """How many due callbacks to lease to this worker afterwards, unless the endpoint is hinted already."""


class Lost(msgspec.Struct, frozen=True):
    """A callback whose lease ran out."""

    endpoint: str
    endpoint_name: str
    event_id: str
    claim: int
    attempt: int
    expires_ms: int
    lost_before: int


class Lead(msgspec.Struct, frozen=True):
    """What the worker that leads a partition's intake is told when it takes or renews its lease."""

    pending: int
    """Entries that were read and not accepted."""
    queued: int
    """Entries on the queue, these included."""
    due_ms: int | None
    """When an endpoint next needs attention or a callback expires; None if nothing waits."""


class Beat(msgspec.Struct, frozen=True):
    """What a registry says when it has stored a heartbeat."""

    watched: bool
    """Whether someone watches attempts live."""
    workers: int
    """How many workers it knows, this one among them."""


class Woken(msgspec.Struct, frozen=True):
    """The result of a wake."""

    hints: list[Hint]
    """Ready endpoints without a recent hint, workspace by workspace."""
    lost: list[Lost]
    looked_at: int
    """Number of endpoints looked at."""
    workers: int
    """Number of live workers."""
    watched: bool = False
    """Whether someone watches attempts live."""
    format: str = ""
    """The format number of the data in Redis; empty if none is stored."""
    more: bool = False
    """Whether more endpoints are due."""


class Swept(msgspec.Struct, frozen=True):
    """The result of a sweep."""

    cursor: str
    """Where the next sweep begins; `0`: all keys were looked at."""
    put_back: list[tuple[str, str]]
    """Workspace and eventId of pending callbacks that were in no lane, lease or chain."""
    nameless: list[tuple[str, str]]
    """Endpoints whose record is gone, each with `workspace:eventId` of one of its callbacks."""
    set_aside: list[str]
    """Keys that were of the wrong type, or held damaged records."""


class Settled(msgspec.Struct, frozen=True):
    """The result of a settle. `more`: the endpoint is ready; `counted`: whether each is recorded, now or before."""

    more: bool
    counted: list[bool]
    breaker: str
    """opened, closed or same"""
    paused_until_ms: int
    down_since_ms: int
    """0: it is not down."""
    claim: Claim | None = None
    """What was leased in the same call."""
    failing_since_ms: int = 0
    """Since when every attempt has failed; 0: the last one did not."""
    gone_since_ms: int = 0
    """Since when every attempt was answered 410; 0: the last one was not."""


class Stopped(Enum):
    """The result of stopping or resuming an endpoint."""

    CHANGED = "changed"
    SAME = "same"
    """It was in that state already."""
    UNKNOWN = "unknown"
    """There is no such endpoint."""


@dataclass(frozen=True, slots=True)
class Retried:
    """The result of retrying an endpoint. Times are ms since 1970; 0: none."""

    pause_ended_ms: int = 0
    """The planned end of the pause that was ended now; one callback goes out as the probe."""
    probe_ends_ms: int = 0
    """The latest end of a probe that was already under way."""
    made_due: int = 0
    """Number of callbacks that waited for their next attempt and are due now."""
    stopped: bool = False
    """The operator had stopped the endpoint: nothing was changed."""

    @property
    def changed(self) -> bool:
        """Whether anything was changed."""
        return bool(self.pause_ended_ms or self.made_due)


def read_claim(values: Iterator[bytes], lease_ends_at: float) -> tuple[str, Claim]:
    """Parses an endpoint and its callbacks as lua/lib/lease.lua gives them; leaves the other values.

    Leaves out callbacks that cannot be read: when their lease ends, wake sets them aside.
    """
    endpoint, more, wait_ms, count, revision, name = _text(next(values)).split(" ", 5)
    called = EndpointName.parse(name)
    given = [(next(values), next(values)) for _ in range(int(count))]
    callbacks = [one for about, body in given if (one := _read_if_whole(name, about, body))]
    return endpoint, Claim(
        more == "more",
        int(wait_ms),
        called.workspace,
        called.origin,
        revision,
        callbacks,
        lease_ends_at,
        called.subscription,
    )


def read_claim_of(values: Iterator[bytes], lease_ends_at: float) -> Claim | str:
    """Parses claim's result for one endpoint, or the error if it broke there; leaves the other values."""
    first = next(values)
    what, _, error = first.partition(b" ")
    return _text(error) if what == b"broken" else read_claim(chain((first,), values), lease_ends_at)[1]


def read_lead(reply: Sequence[Any]) -> Lead:
    """Parses lead's reply."""
    _, _, pending, queued, due = reply
    return Lead(pending, queued, time_ms(due) if due else None)  # a damaged time means now


def read_members(reply: Sequence[Any]) -> list[tuple[str, int, bytes]]:
    """Parses members' reply: name, age in ms and JSON of each worker's last heartbeat."""
    return [(reply[n].decode(), int(reply[n + 1]), reply[n + 2]) for n in range(2, len(reply), 3)]


def read_accepted(
    reply: Sequence[Any], lease_ends_at: float, partition: int
) -> tuple[Accepted, bytes, Iterator[bytes]]:
    """Parses accept's reply: the result, the error on some endpoint (empty: none), and the rest: ended callbacks."""
    _, _, hints, words, recorded, problem, changed, broken, given = reply[:9]
    rest = iter(reply[9:])
    claims = [read_claim(rest, lease_ends_at) for _ in range(given)]
    accepted = Accepted(
        read_hints(hints.split(), partition),
        words.decode().split(),
        recorded.decode().split(),
        _text(problem),
        [(e, claim) for e, claim in claims if claim.callbacks or claim.more or claim.wait_ms],
        changed.decode().split(),
    )
    return accepted, broken, rest


def read_settled(values: Iterator[bytes], lease_ends_at: float) -> Settled | str:
    """Parses settle's result for one endpoint, or the error if it broke there; leaves the other values."""
    what, _, rest = _text(next(values)).partition(" ")
    if what == "broken":
        return rest
    breaker, pause, down, *words = rest.split(" ")
    down_since, failing, gone = down.split("/") if "/" in down else (down, 0, 0)
    claim = read_claim(values, lease_ends_at)[1] if what == "claimed" else None
    counted = [word in ("ok", "known") for word in words]
    since = int(down_since), claim, int(failing), int(gone)
    return Settled(what == "more", counted, breaker, int(pause), *since)


def _read_if_whole(endpoint: str, about: bytes, body: bytes) -> Claimed | None:
    try:
        return read_claimed(about, body)
    except (ValueError, KeyError) as error:  # somebody wrote over its entry
        event_id = _text(about).partition(" ")[0]
        log.error("callback.unreadable", endpoint=endpoint, event_id=event_id, problem=str(error))
        return None


def read_claimed(about: bytes, body: bytes) -> Claimed:
    """Parses one callback as lua/lib/lease.lua gives it."""
    event_id, claim, attempt, expires, uuid, _digest, event_type, status, accepted = about.decode().split(" ")
    line, _, content = body.partition(b"\n")
    trace: tuple[str, ...] = ()
    try:
        url = line.decode()
    except UnicodeDecodeError:  # written over: as if it was gone
        body, url = b"", ""
    if "\t" in url:
        url, trace = divided(url)
    accepted_ms = int(accepted)  # negative: it is replayed
    return Claimed(
        event_id,
        int(claim),
        int(attempt),
        int(expires),
        event_type,
        BY_LETTER[status],
        uuid,
        url,
        content if body else None,
        accepted_ms if accepted_ms > 0 else 0,
        trace,
        abs(accepted_ms),
    )


def read_hints(flat: Sequence[bytes], partition: int) -> list[Hint]:
    """Parses hints of a partition: endpoint and workspace, in turn."""
    return [Hint(flat[n].decode(), _text(flat[n + 1]), partition) for n in range(0, len(flat), 2)]


def read_lost(endpoint: bytes, name: bytes, event_id: bytes, raw: bytes) -> Lost:
    """Parses a callback whose lease ran out, as lua/wake.lua gives it. Raises InvalidInput for an unreadable entry."""
    entry = read_entry(raw)
    made = entry.attempts[entry.attempts_before :]
    lost_before = sum(attempt.error == "worker_lost" for attempt in made)
    return Lost(
        endpoint.decode(),
        _text(name),
        event_id.decode(),
        entry.claims,
        len(made) + 1,
        entry.expires_ms,
        lost_before,
    )


def read_ended(workspace: bytes, event_id: bytes, name: bytes, raw: bytes, answer: bytes) -> Ended:
    """Parses a callback that ended in any state but delivered, as lua/lib/ending.lua gives it.

    Raises InvalidInput for an unreadable entry.
    """
    entry = read_entry(raw)
    return Ended(
        _text(workspace),
        _text(event_id),
        entry.state,
        EndpointName.parse(_text(name)).origin,
        entry.event_type,
        entry.attempts[-1] if entry.attempts else None,
        _text(answer),
    )


def _text(raw: bytes) -> str:
    """Text that somebody may have written over: one byte that is no UTF-8 must not fail all that a reply has."""
    return raw.decode(errors="replace")
