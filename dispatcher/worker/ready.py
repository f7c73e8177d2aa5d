"""Endpoints that have work and wait to be served; workspaces take turns, however many endpoints each has."""

from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice

from dispatcher.store.replies import Hint

LOOK_AT, LOOK_AT_OF_ONE = 64, 4
"""Most workspaces, and most endpoints of each, that one `take` checks; the others are checked later."""


class Ready:
    """A queue that is fair by workspace (deficit round robin with a quantum of one endpoint, as in RFC 8290).

    A workspace that had nothing waiting is served before those that had: light users hardly wait for heavy ones.
    """

    def __init__(self) -> None:
        self._endpoints: dict[str, OrderedDict[Hint, None]] = {}
        """By workspace. A plain dict would scan past the endpoints taken before to find its first."""
        self._new: deque[str] = deque()
        self._old: deque[str] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def has_unserved(self) -> bool:
        """Whether a workspace waits that has not been served since it began to wait."""
        return bool(self._new)

    def add(self, hint: Hint) -> None:
        """Adds an endpoint, unless it waits already."""
        waiting = self._endpoints.get(hint.workspace)
        if waiting is None:
            waiting = self._endpoints[hint.workspace] = OrderedDict()
            self._new.append(hint.workspace)
        if hint not in waiting:
            waiting[hint] = None
            self._length += 1

    def take(self, may: Callable[[Hint], bool] = lambda _: True) -> Hint | None:
        """Takes the next endpoint that may be served; None if there is none."""
        for turn in (self._new, self._old):
            for _ in range(min(len(turn), LOOK_AT)):
                workspace = turn.popleft()
                hint = self._take_of(workspace, may)
                # a new one that was served becomes old even if it is empty: else it would be new again at once
                if self._endpoints[workspace] or (hint and turn is self._new):
                    (self._old if hint else turn).append(workspace)
                else:
                    del self._endpoints[workspace]
                if hint:
                    return hint
        return None

    def _take_of(self, workspace: str, may: Callable[[Hint], bool]) -> Hint | None:
        """Takes the first endpoint that may be served, of up to LOOK_AT_OF_ONE.

        Those that may not go to the end: an endpoint behind them may be healthy, and then it may be served.
        """
        waiting = self._endpoints[workspace]
        for hint in list(islice(waiting, LOOK_AT_OF_ONE)):
            if may(hint):
                del waiting[hint]
                self._length -= 1
                return hint
            waiting.move_to_end(hint)
        return None

    def take_all(self) -> list[Hint]:
        """Takes all endpoints, workspaces in turn."""
        return list(iter(self.take, None))
