"""Endpoints that have work and wait to be served: workspaces in turn, however many endpoints each has."""

from collections import deque
from collections.abc import Callable
from itertools import islice

from dispatcher.store.replies import Hint

LOOK_AT, LOOK_AT_OF_ONE = 64, 4
"""Workspaces, and endpoints of each, that are looked at for one that may be served; the others have their turn later."""


class Ready:
    """A queue that is fair by workspace (deficit round robin with a quantum of one endpoint, as in RFC 8290).

    A workspace that had nothing waiting is served before those that have: who asks for little hardly waits for those
    who ask for much.
    """

    def __init__(self) -> None:
        self._endpoints: dict[str, dict[str, None]] = {}
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
        """One more; one that waits already does so once."""
        waiting = self._endpoints.get(hint.workspace)
        if waiting is None:
            waiting = self._endpoints[hint.workspace] = {}
            self._new.append(hint.workspace)
        if hint.endpoint not in waiting:
            waiting[hint.endpoint] = None
            self._length += 1

    def take(self, may: Callable[[Hint], bool] = lambda _: True) -> Hint | None:
        """The next one that may be served, or None."""
        for turn in (self._new, self._old):
            for _ in range(min(len(turn), LOOK_AT)):
                workspace = turn.popleft()
                hint = self._take_of(workspace, may)
                # one that was new has its turn among the others first
                if self._endpoints[workspace] or (hint and turn is self._new):
                    (self._old if hint else turn).append(workspace)
                else:
                    del self._endpoints[workspace]
                if hint:
                    return hint
        return None

    def _take_of(self, workspace: str, may: Callable[[Hint], bool]) -> Hint | None:
        """The first of a few that may be served; those that may not go behind its others, of which some may, being healthy."""
        waiting = self._endpoints[workspace]
        for endpoint in list(islice(waiting, LOOK_AT_OF_ONE)):
            del waiting[endpoint]
            hint = Hint(endpoint, workspace)
            if may(hint):
                self._length -= 1
                return hint
            waiting[endpoint] = None
        return None

    def take_all(self) -> list[Hint]:
        """All of them, in turn."""
        return list(iter(self.take, None))
