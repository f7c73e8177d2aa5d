"""Limits the POSTs that a worker has under way, and shares them between endpoints and workspaces."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from dispatcher.rules.outcomes import EndpointHealth

FAST_MS = 1000
"""An endpoint that takes this long to answer is not healthy, whatever it answers: it holds slots that others need."""

MAX_HEALTHY = 100_000
"""Most endpoints that a worker remembers as healthy."""

MAX_SUSPECTS = 10_000
"""Most workspaces that a worker remembers as suspects: their last attempt did not show a healthy endpoint."""

WANTED_SECONDS = 60.0
"""How long a workspace counts as wanting slots after it last took some, or began to wait for some."""

SHARE = 3
"""While others want slots, a workspace has at most this many for each one left free; alone it leaves a quarter free."""


class Slots:
    """The POSTs that a worker may have under way: each takes a slot.

    Three rules leave slots for every endpoint and workspace:

    - Endpoints that are not known to be healthy have at most three quarters. A healthy endpoint accepted its last
      callback, quickly.
    - While several workspaces want slots, one has at most SHARE times what it leaves free.
    - While a workspace waits that has not been served yet, the last free slot is kept from workspaces that have some.

    `clock` returns seconds.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.taken = 0
        self.somebody_waits = False
        """Whether a workspace waits that has not been served since it began to wait."""
        self.on_free: Callable[[], None] = lambda: None
        """Called when slots become free."""
        self._clock = clock
        self._ration: int | None = None
        self._unproven = 0
        """Slots taken for endpoints that are not known to be healthy."""
        self._healthy: dict[str, dict[str, None]] = {}
        """Healthy endpoints by workspace, in the order in which that was learned."""
        self._healthy_count = 0
        self._suspects: OrderedDict[str, None] = OrderedDict()
        """The latest is last. A plain dict would scan past those removed before it to find its first."""
        self._of: Counter[str] = Counter()
        """Slots taken, by workspace."""
        self._of_endpoint: Counter[str] = Counter()
        self._wanted: OrderedDict[str, float] = OrderedDict()
        """When each workspace last took slots, or began to wait for some; the latest is last."""

    def free(self, endpoint: str, workspace: str) -> int:
        """How many more POSTs may start to this endpoint now."""
        free = self.limit - self.taken
        if not self.is_healthy(endpoint, workspace):
            free = min(free, self.limit - self.limit // 4 - self._unproven)
        if self._is_last_kept and self._of[workspace]:
            free -= 1
        free = max(0, free)
        if self.are_wanted_beside(workspace):
            free = max(0, -(-(SHARE * free - self._of[workspace]) // (SHARE + 1)))  # rounded up
        return free if self._ration is None else min(free, self._ration)

    @property
    def _is_last_kept(self) -> bool:
        """Whether the last free slot is kept: a workspace waits, and may use it even if its endpoint is not healthy."""
        return self.somebody_waits and self._unproven < self.limit - self.limit // 4

    @property
    def are_gone(self) -> bool:
        """Whether no POST may start, to any endpoint."""
        return self.taken >= self.limit or self._ration == 0

    def are_wanted_beside(self, workspace: str) -> bool:
        """Whether another workspace took slots within WANTED_SECONDS, or began to wait for some."""
        for other in reversed(self._wanted):  # at most two steps
            if other != workspace:
                return self._clock() - self._wanted[other] < WANTED_SECONDS
        return False

    def are_shared(self) -> bool:
        """Whether several workspaces took slots within WANTED_SECONDS, or began to wait for some."""
        last = next(reversed(self._wanted), None)
        return last is not None and self.are_wanted_beside(last)

    def ration(self, count: int | None) -> None:
        """Lets only `count` more POSTs start, until the next call; None lifts this limit."""
        self._ration = count

    def is_healthy(self, endpoint: str, workspace: str) -> bool:
        """Whether the endpoint accepted its last callback, quickly."""
        return endpoint in self._healthy.get(workspace, ())

    def learn(self, endpoint: str, workspace: str, health: EndpointHealth, duration_ms: int) -> None:
        """Notes the result of an attempt to this endpoint that took `duration_ms`."""
        healthy = health is EndpointHealth.UP and duration_ms < FAST_MS
        self._note(workspace, healthy)
        if not healthy:
            self._forget(endpoint, workspace)
        elif not self.is_healthy(endpoint, workspace):
            self._healthy.setdefault(workspace, {})[endpoint] = None
            self._healthy_count += 1
            self._unproven -= self._of_endpoint[endpoint]
            if self._healthy_count > MAX_HEALTHY:
                self._forget(next(iter(self._healthy[workspace])), workspace)

    def _note(self, workspace: str, healthy: bool) -> None:
        self._suspects.pop(workspace, None)
        if not healthy:
            self._suspects[workspace] = None
            if len(self._suspects) > MAX_SUSPECTS:
                self._suspects.popitem(last=False)

    def suspect(self, workspace: str) -> None:
        """Has a workspace count as a suspect until an attempt shows a healthy endpoint of it."""
        self._note(workspace, healthy=False)

    def is_suspect(self, workspace: str) -> bool:
        """Whether the workspace's last attempt failed or was slow."""
        return workspace in self._suspects

    def _forget(self, endpoint: str, workspace: str) -> None:
        known = self._healthy.get(workspace, {})
        if endpoint in known:
            del known[endpoint]
            self._healthy_count -= 1
            self._unproven += self._of_endpoint[endpoint]
            if not known:
                del self._healthy[workspace]

    def take(self, endpoint: str, workspace: str, wanted: int) -> int:
        """Takes up to `wanted` slots; returns how many."""
        taken = min(wanted, self.free(endpoint, workspace))
        if taken:
            self.hold(endpoint, workspace, taken)
            self._spend(taken)
        return taken

    def reserve(self, wanted: int) -> int:
        """Takes up to `wanted` slots for callbacks of any workspace, until `release`; returns how many."""
        reserved = min(wanted, max(0, self.free("", "") - self._is_last_kept))
        self.taken += reserved
        self._spend(reserved)
        return reserved

    def release(self, reserved: int, used: int) -> None:
        """Ends a reservation. The caller calls `hold` for the `used` slots whose POSTs start."""
        self.taken -= reserved
        self._spend(used - reserved)
        self.on_free()

    def _spend(self, count: int) -> None:
        if self._ration is not None:
            self._ration -= count

    def hold(self, endpoint: str, workspace: str, count: int) -> None:
        """Counts slots as this endpoint's, even if none are free: callbacks that are leased already must be sent."""
        self._add(endpoint, workspace, count)
        self.want(workspace)

    def want(self, workspace: str) -> None:
        """Notes that the workspace takes slots now, or begins to wait for some."""
        now = self._wanted[workspace] = self._clock()
        self._wanted.move_to_end(workspace)
        oldest = next(iter(self._wanted))
        if now - self._wanted[oldest] >= WANTED_SECONDS:
            del self._wanted[oldest]

    def give_back(self, endpoint: str, workspace: str, count: int) -> None:
        """Frees slots of this endpoint."""
        self._add(endpoint, workspace, -count)
        self.on_free()

    def refund(self, endpoint: str, workspace: str, count: int) -> None:
        """Returns `count` unused slots."""
        if count:
            self._spend(-count)
            self.give_back(endpoint, workspace, count)

    def _add(self, endpoint: str, workspace: str, count: int) -> None:
        self.taken += count
        self._unproven += 0 if self.is_healthy(endpoint, workspace) else count
        for counter, name in ((self._of, workspace), (self._of_endpoint, endpoint)):
            counter[name] += count
            if counter[name] <= 0:
                del counter[name]

    def close(self) -> None:
        """Lets no more POSTs start."""
        self.limit = 0
