"""How many POSTs a worker may have under way, and how they are shared by endpoint and by workspace."""

import time
from collections import Counter
from collections.abc import Callable

from dispatcher.outcomes import News

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

    A quarter of them is for healthy endpoints: those that took their last callback, and quickly; so that no number of
    others, of however many customers, leaves those without. And a workspace gets no more than SHARE times what it leaves
    free, while others want slots. `clock` gives seconds.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.taken = 0
        self._clock = clock
        self._ration: int | None = None
        self._healthy: dict[str, dict[str, None]] = {}
        """Endpoints by workspace, in the order in which that was learned."""
        self._healthy_count = 0
        self._suspects: dict[str, None] = {}
        self._of: Counter[str] = Counter()
        """Taken, by workspace."""
        self._wanted: dict[str, float] = {}
        """When workspaces last took slots, the latest last."""

    def free(self, endpoint: str, workspace: str) -> int:
        """How many more may start to this endpoint now."""
        reserved = 0 if self.is_healthy(endpoint, workspace) else self.limit // 4
        free = max(0, self.limit - reserved - self.taken)
        if self.are_wanted_beside(workspace):
            free = max(0, -(-(SHARE * free - self._of[workspace]) // (SHARE + 1)))  # rounded up
        return free if self._ration is None else min(free, self._ration)

    @property
    def are_gone(self) -> bool:
        """Whether none may start, to whatever endpoint."""
        return self.taken >= self.limit or self._ration == 0

    def are_wanted_beside(self, workspace: str) -> bool:
        """Whether another workspace took slots lately."""
        other = next((one for one in reversed(self._wanted) if one != workspace), None)
        return other is not None and self._clock() - self._wanted[other] < WANTED_SECONDS

    def are_shared(self) -> bool:
        """Whether more than one workspace took slots lately."""
        last = next(reversed(self._wanted), None)
        return last is not None and self.are_wanted_beside(last)

    def ration(self, count: int | None) -> None:
        """Lets only so many more start, until it is called again; None: no such limit."""
        self._ration = count

    def is_healthy(self, endpoint: str, workspace: str) -> bool:
        """Whether the endpoint took its last callback, and quickly."""
        return endpoint in self._healthy.get(workspace, ())

    def learn(self, endpoint: str, workspace: str, news: News, duration_ms: int) -> None:
        """An attempt to this endpoint has ended, after so many milliseconds."""
        self._forget(endpoint, workspace)
        healthy = news is News.UP and duration_ms < FAST_MS
        self._note(workspace, healthy)
        if healthy:
            self._healthy.setdefault(workspace, {})[endpoint] = None
            self._healthy_count += 1
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
            if not known:
                del self._healthy[workspace]

    def take(self, endpoint: str, workspace: str, wanted: int) -> int:
        """Takes up to `wanted`; returns how many."""
        taken = min(wanted, self.free(endpoint, workspace))
        if taken:
            self.hold(workspace, taken)
            self._spend(taken)
        return taken

    def reserve(self, wanted: int) -> int:
        """Takes up to `wanted` for callbacks of whomever; returns how many. `release` ends that."""
        reserved = min(wanted, self.free("", ""))
        self.taken += reserved
        self._spend(reserved)
        return reserved

    def release(self, reserved: int, used: int) -> None:
        """Ends a reservation, of which so many start: `hold` them."""
        self.taken -= reserved
        self._spend(used - reserved)

    def _spend(self, count: int) -> None:
        if self._ration is not None:
            self._ration -= count

    def hold(self, workspace: str, count: int) -> None:
        """Counts slots as this workspace's, whatever is free: what is under way is under way."""
        self.taken += count
        self._of[workspace] += count
        self._wanted.pop(workspace, None)
        self._wanted[workspace] = self._clock()
        oldest = next(iter(self._wanted))
        if self._clock() - self._wanted[oldest] >= WANTED_SECONDS:
            del self._wanted[oldest]

    def give_back(self, workspace: str, count: int) -> None:
        """They are free again."""
        self.taken -= count
        self._of[workspace] -= count
        if self._of[workspace] <= 0:
            del self._of[workspace]

    def not_needed(self, workspace: str, count: int) -> None:
        """So many were taken, and not used."""
        self.give_back(workspace, count)
        self._spend(-count)

    def close(self) -> None:
        """Lets none start any more."""
        self.limit = 0
