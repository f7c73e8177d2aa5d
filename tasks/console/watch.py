"""What overview and lists show of the whole installation: read once for all viewers, and only while there are any."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.subscription import DEFAULT
from dispatcher.store.across.absent import Absent, apart
from dispatcher.store.endpoints import Endpoint
from dispatcher.store.holds import by_trouble, problem
from dispatcher.store.installation import Load, Memory
from tasks import wiring

MINUTES = 60
FRESH_SECONDS = 2.0
"""A reading that is younger is shown as it is."""
STALE_SECONDS = 5.0
"""One that is older is not shown: the page waits for a new one."""
SHARE = 20
"""Reading takes at most one part in so many of the time."""
LONGEST_SECONDS = 0.5
"""What a reading counts as that waited for servers which do not answer: it costs no more, and is to be repeated soon."""
KEPT_MEMORY = 120
"""Readings of Redis's memory that are kept, to say when it will be full."""
LEAST_SPAN_MS = 60_000
"""The shortest time by whose growth that is said."""


class Ages(NamedTuple):
    """For how long the oldest things waited at one moment, in ms; 0: nothing did."""

    at_ms: int
    queued_ms: int
    """On the queue, not taken in by any worker."""
    due_ms: int
    """Due to be sent, and not sent."""


@dataclass(frozen=True)
class Snapshot:
    """The installation at one moment."""

    at_ms: int
    endpoints: Sequence[Endpoint]
    """The most troubled first."""
    load: Load
    workers: Mapping[str, Mapping[str, Any]]
    memory: Memory
    minutes: Sequence[Counter[str]]
    """The counters of the last MINUTES minutes; the last one is not over."""
    rejected: Mapping[str, int]
    """How many entries were ever rejected, by reason."""
    to_archive: int
    away: Mapping[str, Any] = field(default_factory=dict)
    """Why each server that does not answer does not, by its URL."""
    absent: Absent = field(default_factory=Absent)
    """The partitions that did not answer."""
    full_in_ms: int | None = None
    """In how long Redis's memory is full if it grows as it did; None: it does not grow, or has no limit."""

    @cached_property
    def waiting(self) -> int:
        """Callbacks that have not ended."""
        return sum(one.waiting for one in self.endpoints)

    @cached_property
    def oldest_due(self) -> Endpoint | None:
        """The endpoint with the callback that has been due for longest."""
        due = [one for one in self.endpoints if one.oldest_due_ms and one.oldest_due_ms < self.at_ms]
        return min(due, key=lambda one: one.oldest_due_ms or 0, default=None)

    @property
    def ages(self) -> Ages:
        """For how long the oldest things wait."""
        load, due = self.load, self.oldest_due
        queued_ms = max(0, load.now_ms - load.queued_ms) if load.queued else 0
        return Ages(self.at_ms, queued_ms, self.at_ms - due.oldest_due_ms if due and due.oldest_due_ms else 0)

    @cached_property
    def troubled(self) -> Sequence[Endpoint]:
        """Those that somebody should look at."""
        return [one for one in self.endpoints if is_troubled(one)]

    @cached_property
    def by_workspace(self) -> Mapping[str, Sequence[Endpoint]]:
        """The endpoints of each workspace."""
        found: dict[str, list[Endpoint]] = {}
        for one in self.endpoints:
            found.setdefault(one.workspace, []).append(one)
        return found

    def of(self, workspace: str) -> Sequence[Endpoint]:
        """The endpoints of a workspace; all, for an empty one."""
        return self.by_workspace.get(workspace, ()) if workspace else self.endpoints

    def waiting_of(self, workspace: str) -> Counter[str]:
        """How many callbacks wait for each subscription of a workspace."""
        found: Counter[str] = Counter()
        for one in self.by_workspace.get(workspace, ()):
            found[one.subscription or DEFAULT] += one.waiting
        return found


def is_troubled(endpoint: Endpoint) -> bool:
    """Whether an endpoint does not take its callbacks, or may not."""
    return problem(endpoint) is not None or endpoint.state in ("stopped", "paused")


class Watch:
    """Reads snapshots: for all who ask at the same time once, and not more often than SHARE allows."""

    def __init__(self, store: Callable[[], Awaitable[wiring.Store]]) -> None:
        self._store = store
        self._latest: Snapshot | None = None
        self._read_at = 0.0
        self._took = 0.0
        self._changed_at = 0.0
        """When something was last done here: a reading that began before shows what was before."""
        self._reading: asyncio.Task[Snapshot] | None = None
        self._memory: deque[tuple[int, int]] = deque(maxlen=KEPT_MEMORY)
        self._ages: deque[Ages] = deque()

    async def latest(self) -> Snapshot:
        """A snapshot of the last seconds. Raises RedisUnavailable."""
        age = time.monotonic() - self._read_at
        if self._latest is None or age > max(STALE_SECONDS, 2 * SHARE * self._took):
            found = await asyncio.shield(self._begin())
            return found if self._read_at else await asyncio.shield(self._begin())
        if age > max(FRESH_SECONDS, SHARE * self._took):
            self._begin()  # for whoever asks next
        return self._latest

    @property
    def ages(self) -> Sequence[Ages]:
        """Of all snapshots of the last hour, the oldest first: there are some only of when somebody looked."""
        return tuple(self._ages)

    async def renew(self, *names: EndpointName) -> None:
        """Reads some endpoints again, after something was done to them; without names all, when somebody looks."""
        self._changed_at = time.monotonic()
        if not names or self._latest is None:
            self._read_at = 0.0
            return
        store = await self._store()
        found = {name: await store.endpoints.get(name) for name in names}
        there = [found.get(one.name) or one for one in self._latest.endpoints]
        self._latest = replace(self._latest, endpoints=sorted(there, key=by_trouble))

    async def close(self) -> None:
        """Ends the reading that is under way."""
        if self._reading and not self._reading.done():
            self._reading.cancel()
            await asyncio.wait({self._reading})

    def _begin(self) -> "asyncio.Task[Snapshot]":
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(_seen)
        return self._reading

    async def _read(self) -> Snapshot:
        began = time.monotonic()
        store = await self._store()
        with apart() as absent:
            found = await _snapshot(store, absent)
        self._memory.append((found.at_ms, found.memory.used))
        self._ages.append(found.ages)
        while self._ages[0].at_ms < found.at_ms - MINUTES * 60_000:
            self._ages.popleft()
        self._latest = replace(found, full_in_ms=_full_in_ms(found.memory, self._memory))
        self._took = time.monotonic() - began
        if found.away or absent.partitions:
            self._took = min(self._took, LONGEST_SECONDS)
        self._read_at = time.monotonic() if began > self._changed_at else 0.0
        return self._latest


async def _snapshot(store: wiring.Store, absent: Absent) -> Snapshot:
    endpoints = await store.endpoints.with_states(await store.endpoints.all())
    installation = store.installation
    load = await installation.load()
    return Snapshot(
        load.now_ms,
        sorted(endpoints, key=by_trouble),
        load,
        await installation.workers(),
        await installation.memory(),
        await store.stats.minutes(load.now_ms, MINUTES),
        await store.rejected.counts(),
        (await installation.to_archive()).count if store.archive else 0,
        dict(store.away()),
        absent,
    )


def _full_in_ms(memory: Memory, before: Sequence[tuple[int, int]]) -> int | None:
    (first_ms, first), (last_ms, last) = before[0], before[-1]
    if not memory.limit or last_ms - first_ms < LEAST_SPAN_MS or last <= first:
        return None
    return round((memory.limit - last) * (last_ms - first_ms) / (last - first))


def _seen(reading: "asyncio.Task[Snapshot]") -> None:
    if not reading.cancelled():
        reading.exception()  # those who wait for it get it; nobody may
