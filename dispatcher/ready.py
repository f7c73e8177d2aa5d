"""Endpoints that have work and wait to be served: workspaces in turn, however many endpoints each has."""

from collections import deque
from collections.abc import Callable, Iterator

from dispatcher.replies import Hint

LOOK_AT = 64
"""Workspaces that are looked at for one that may be served; the others have their turn later."""


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
                waiting = self._endpoints[workspace]
                hint = next((h for h in self._few(workspace) if may(h)), None)
                if hint:
                    del waiting[hint.endpoint]
                    self._length -= 1
                if waiting or (
                    hint and turn is self._new
                ):  # one that was new has its turn among the others first
                    (self._old if hint else turn).append(workspace)
                else:
                    del self._endpoints[workspace]
                if hint:
                    return hint
        return None

    def _few(self, workspace: str) -> Iterator[Hint]:
        """Its first ones: where one may not be served, another may, which is healthy."""
        for endpoint in [one for one, _ in zip(self._endpoints[workspace], range(4), strict=False)]:
            yield Hint(endpoint, workspace)

    def take_all(self) -> list[Hint]:
        """All of them, in turn."""
        return list(iter(self.take, None))
