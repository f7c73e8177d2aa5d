"""What the scripts give and take, as frozen values, and how they are read from replies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from dispatcher.model import BY_LETTER
from dispatcher.rules.callback import Claimed
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import Attempt, EndpointHealth, Outcome, State
from dispatcher.store.entry import read_entry


class Claim(msgspec.Struct, frozen=True):
    """What a claim gave. `more`: the endpoint has more that is due, and room for it."""

    more: bool
    wait_ms: int
    """When to claim again, because the next token of the rate is there then; 0: not for that."""
    workspace: str
    origin: str
    """The endpoint's scheme://host:port."""
    revision: str
    callbacks: list[Claimed]
    lease_ends_at: float
    """Monotonic time of this process."""


class Ended(msgspec.Struct, frozen=True):
    """A callback that a script ended, otherwise than delivered."""

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
    """An endpoint that has work."""

    endpoint: str
    """Its id."""
    workspace: str = ""
    """Whose it is; empty where whoever hints does not know."""


LEFT_ON_THE_QUEUE = ("changed", "broken")
"""Words of accept for callbacks that it did not take in."""


class Accepted(msgspec.Struct, frozen=True):
    """What accept did."""

    hints: list[Hint]
    words: list[str]
    """For each callback: accepted, superseded, duplicate, conflict or full; or one of LEFT_ON_THE_QUEUE."""
    recorded: list[str]
    """For each status change that said something of its message: recorded, late, conflict, again or failed."""
    problem: str
    """Why one failed."""
    claims: list[tuple[str, Claim]]
    """What was leased to this worker at once, by endpoint."""
    changed: list[str] = []
    """Workspaces that were changed since their entries were rendered; nothing of theirs was taken in."""


class Settlement(msgspec.Struct, frozen=True):
    """What became of a claimed callback, ready to be recorded."""

    event_id: str
    claim: int
    outcome: Outcome
    attempt: Attempt | None
    health: EndpointHealth = EndpointHealth.NONE
    retry_after_ms: int = 0
    """How long the endpoint asks to be left alone."""
    losses: int = 0
    """Its worker died, so often by now; the callback keeps its place in its chain."""


class ToSettle(msgspec.Struct, frozen=True):
    """What became of callbacks of one endpoint."""

    endpoint: str
    settlements: Sequence[Settlement]
    claim: int = 0
    """How many due callbacks of the endpoint to lease to this worker then, if nobody else was hinted."""


class Lost(msgspec.Struct, frozen=True):
    """A callback whose lease ran out."""

    endpoint: str
    endpoint_name: str
    event_id: str
    claim: int
    attempt: int
    expires_ms: int
    lost_before: int


class Woken(msgspec.Struct, frozen=True):
    """What a wake found."""

    hints: list[Hint]
    """Endpoints that are ready, and that nobody was told of lately; workspaces in turn."""
    lost: list[Lost]
    looked_at: int
    """How many endpoints."""
    workers: int
    """How many are alive."""
    watched: bool = False
    """Whether somebody watches attempts live."""
    format: str = ""
    """The number of the format of what is in Redis; empty: none is there."""
    more: bool = False
    """Whether more endpoints are due."""


class Swept(msgspec.Struct, frozen=True):
    """What a sweep found."""

    cursor: str
    """Where the next one begins; `0`: all was looked at."""
    put_back: list[tuple[str, str]]
    """Workspace and eventId of callbacks that were pending and nowhere."""
    nameless: list[tuple[str, str]]
    """Endpoints whose record is gone, and `workspace:eventId` of a callback of each."""
    set_aside: list[str]
    """Keys that were not of the type they should be."""


class Settled(msgspec.Struct, frozen=True):
    """What a settle did. `more`: the endpoint is ready; `counted`: False for one that had lost its lease."""

    more: bool
    counted: list[bool]
    breaker: str
    """opened, closed or same"""
    paused_until_ms: int
    down_since_ms: int
    """0: it answers."""
    claim: Claim | None = None
    """What was claimed in the same call."""


class Stopped(Enum):
    """What became of stopping an endpoint, or letting it resume."""

    CHANGED = "changed"
    SAME = "same"
    """It was so already."""
    UNKNOWN = "unknown"
    """There is no such endpoint."""


@dataclass(frozen=True, slots=True)
class Retried:
    """What retrying an endpoint changed. Times are ms since 1970, 0: not so."""

    pause_ended_ms: int = 0
    """When the pause was to end that has ended now: one callback goes out, as the probe."""
    probe_ends_ms: int = 0
    """A probe was under way already: when it ends at the latest."""
    made_due: int = 0
    """Callbacks that waited for their next attempt."""
    stopped: bool = False
    """The operator had stopped the endpoint: nothing was changed."""

    @property
    def changed(self) -> bool:
        """Whether anything was."""
        return bool(self.pause_ended_ms or self.made_due)


def read_claim(values: Iterator[bytes], lease_ends_at: float) -> tuple[str, Claim]:
    """The endpoint, and its callbacks, as lua/lib/lease.lua gives them; takes no more of the values."""
    endpoint, more, wait_ms, count, revision, name = next(values).decode().split(" ", 5)
    called = EndpointName.parse(name)
    callbacks = [read_claimed(next(values), next(values)) for _ in range(int(count))]
    return endpoint, Claim(
        more == "more", int(wait_ms), called.workspace, called.origin, revision, callbacks, lease_ends_at
    )


def read_accepted(reply: Sequence[Any], lease_ends_at: float) -> tuple[Accepted, bytes, Iterator[bytes]]:
    """What accept did, what broke on some endpoint (empty: nothing), and the rest of the reply: what ended."""
    _, _, hints, words, recorded, problem, changed, broken, given = reply[:9]
    rest = iter(reply[9:])
    claims = [read_claim(rest, lease_ends_at) for _ in range(given)]
    accepted = Accepted(
        read_hints(hints.split()),
        words.decode().split(),
        recorded.decode().split(),
        problem.decode(),
        [(e, claim) for e, claim in claims if claim.callbacks or claim.more or claim.wait_ms],
        changed.decode().split(),
    )
    return accepted, broken, rest


def read_settled(values: Iterator[bytes], lease_ends_at: float) -> Settled | str:
    """What a settle did at one endpoint, as lua/settle.lua gives it, or why it broke there; takes no more of the values."""
    what, _, rest = next(values).decode().partition(" ")
    if what == "broken":
        return rest
    breaker, pause, down_since, *words = rest.split(" ")
    claim = read_claim(values, lease_ends_at)[1] if what == "claimed" else None
    counted = [word == "ok" for word in words]
    return Settled(what == "more", counted, breaker, int(pause), int(down_since), claim)


def read_claimed(about: bytes, body: bytes) -> Claimed:
    """One callback as lua/lib/lease.lua gives it."""
    event_id, claim, attempt, expires, uuid, _digest, event_type, status, accepted = about.decode().split(" ")
    url, _, content = body.partition(b"\n")
    return Claimed(
        event_id,
        int(claim),
        int(attempt),
        int(expires),
        event_type,
        BY_LETTER[status],
        uuid,
        url.decode(),
        content if body else None,
        int(accepted),
    )


def read_hints(flat: Sequence[bytes]) -> list[Hint]:
    """Endpoints and their workspaces, in turn, as scripts give them."""
    return [Hint(flat[n].decode(), flat[n + 1].decode()) for n in range(0, len(flat), 2)]


def read_lost(endpoint: bytes, name: bytes, event_id: bytes, raw: bytes) -> Lost:
    """One of those whose leases ran out, as lua/wake.lua gives it."""
    entry = read_entry(raw)
    made = entry.attempts[entry.attempts_before :]
    lost_before = sum(attempt.error == "worker_lost" for attempt in made)
    return Lost(
        endpoint.decode(),
        name.decode(),
        event_id.decode(),
        entry.claims,
        len(made) + 1,
        entry.expires_ms,
        lost_before,
    )


def read_ended(workspace: bytes, event_id: bytes, name: bytes, raw: bytes, answer: bytes) -> Ended:
    """One of those that a script ended otherwise than delivered, as lua/lib/ending.lua gives it."""
    entry = read_entry(raw)
    return Ended(
        workspace.decode(),
        event_id.decode(),
        entry.state,
        EndpointName.parse(name.decode()).origin,
        entry.event_type,
        entry.attempts[-1] if entry.attempts else None,
        answer.decode(errors="replace"),
    )
