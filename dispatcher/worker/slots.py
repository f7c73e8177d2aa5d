"""How many POSTs a worker may have under way, and how they are shared by endpoint and by workspace."""

import time
from collections import Counter
from collections.abc import Callable

from dispatcher.rules.outcomes import EndpointHealth

FAST_MS = 1000
"""An endpoint that takes longer to answer is not healthy, whatever it answers: it holds slots for others' time."""

MAX_HEALTHY = 100_000
"""How many endpoints a worker remembers as healthy."""

MAX_SUSPECTS = 10_000
"""How many workspaces a worker remembers whose last attempt was none of a healthy endpoint."""

WANTED_SECONDS = 60.0
"""How long a workspace that had a POST under way counts as one that wants slots."""

SHARE = 3
"""A workspace has at most so many slots for each that it leaves free, while others want some: one alone leaves a quarter."""


class Slots:
    """How many POSTs a worker may have under way.

    Three rules, so that nobody is left without:

    - Endpoints that are not known to be healthy (which took their last callback, and quickly) have at most three quarters.
    - While several workspaces want slots, one has at most SHARE times what it leaves free.
    - While a workspace waits that has not been served yet, the last free slot is not for those that have some.

    `clock` gives seconds.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.taken = 0
        self.somebody_waits = False
        """Whether a workspace waits to be served that has not been since it began to wait."""
        self.on_free: Callable[[], None] = lambda: None
        """Called when slots are free again."""
        self._clock = clock
        self._ration: int | None = None
        self._unproven = 0
        """Taken for endpoints that are not known to be healthy."""
        self._healthy: dict[str, dict[str, None]] = {}
        """Endpoints by workspace, in the order in which that was learned."""
        self._healthy_count = 0
        self._suspects: dict[str, None] = {}
        self._of: Counter[str] = Counter()
        """Taken, by workspace."""
        self._of_endpoint: Counter[str] = Counter()
        self._wanted: dict[str, float] = {}
        """When workspaces last took slots, or waited for some, the latest last."""

    def free(self, endpoint: str, workspace: str) -> int:
        """How many more may start to this endpoint now."""
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
        """Whether somebody waits who could use a slot, known to be healthy or not."""
        return self.somebody_waits and self._unproven < self.limit - self.limit // 4

    @property
    def are_gone(self) -> bool:
        """Whether none may start, to whatever endpoint."""
        return self.taken >= self.limit or self._ration == 0

    def are_wanted_beside(self, workspace: str) -> bool:
        """Whether another workspace took slots lately, or waited for some."""
        other = next((one for one in reversed(self._wanted) if one != workspace), None)
        return other is not None and self._clock() - self._wanted[other] < WANTED_SECONDS

    def are_shared(self) -> bool:
        """Whether more than one workspace took slots lately, or waited for some."""
        last = next(reversed(self._wanted), None)
        return last is not None and self.are_wanted_beside(last)

    def ration(self, count: int | None) -> None:
        """Lets only so many more start, until it is called again; None: no such limit."""
        self._ration = count

    def is_healthy(self, endpoint: str, workspace: str) -> bool:
        """Whether the endpoint took its last callback, and quickly."""
        return endpoint in self._healthy.get(workspace, ())

    def learn(self, endpoint: str, workspace: str, health: EndpointHealth, duration_ms: int) -> None:
        """An attempt to this endpoint has ended, after so many milliseconds."""
        self._forget(endpoint, workspace)
        healthy = health is EndpointHealth.UP and duration_ms < FAST_MS
        self._note(workspace, healthy)
        if healthy:
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
                del self._suspects[next(iter(self._suspects))]

    def is_suspect(self, workspace: str) -> bool:
        """Whether the workspace's last attempt failed, or was slow."""
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
        """Takes up to `wanted`; returns how many."""
        taken = min(wanted, self.free(endpoint, workspace))
        if taken:
            self.hold(endpoint, workspace, taken)
            self._spend(taken)
        return taken

    def reserve(self, wanted: int) -> int:
        """Takes up to `wanted` for callbacks of whomever; returns how many. `release` ends that."""
        reserved = min(wanted, max(0, self.free("", "") - self._is_last_kept))
        self.taken += reserved
        self._spend(reserved)
        return reserved

    def release(self, reserved: int, used: int) -> None:
        """Ends a reservation, of which so many start: `hold` them."""
        self.taken -= reserved
        self._spend(used - reserved)
        self.on_free()

    def _spend(self, count: int) -> None:
        if self._ration is not None:
            self._ration -= count

    def hold(self, endpoint: str, workspace: str, count: int) -> None:
        """Counts slots as this endpoint's, whatever is free: what is under way is under way."""
        self._add(endpoint, workspace, count)
        self.want(workspace)

    def want(self, workspace: str) -> None:
        """The workspace takes slots now, or waits for some."""
        self._wanted.pop(workspace, None)
        self._wanted[workspace] = self._clock()
        oldest = next(iter(self._wanted))
        if self._clock() - self._wanted[oldest] >= WANTED_SECONDS:
            del self._wanted[oldest]

    def give_back(self, endpoint: str, workspace: str, count: int) -> None:
        """They are free again."""
        self._add(endpoint, workspace, -count)
        self.on_free()

    def refund(self, endpoint: str, workspace: str, count: int) -> None:
        """So many were taken, and not used."""
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
        """Lets none start any more."""
        self.limit = 0
