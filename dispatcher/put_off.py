"""Queue entries that cannot be taken now, for no fault of theirs: tried again later, by workspace, in their order."""

import time
from collections.abc import Callable, Iterable, Sequence, Set

import structlog

from dispatcher.prepare import Entry, Fault, Rejection

FIRST_SECONDS, MOST_SECONDS = 1.0, 10.0
"""How long a workspace waits for its next try, at first and at most; twice as long each time."""
MAX_TRIES = 3
"""Tries after which an entry that breaks our code, and not our machine, is rejected."""
MAX_ENTRIES = 10_000
"""Entries that are put off before intake reads no more."""

log = structlog.get_logger()


class _Waiting:
    """A workspace's entries, the oldest first."""

    def __init__(self, now: float) -> None:
        self.entries: list[Entry] = []
        self.seconds = FIRST_SECONDS
        self.due = now + FIRST_SECONDS
        self.tries = 0
        """Of the first one, since it breaks our code."""


class PutOff:
    """One leader's put-off entries. They stay on the queue; a leader that takes over reads them anew.

    `clock` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[str, _Waiting] = {}
        self._ids: dict[str, str] = {}
        """Their workspaces."""
        self._said = ""

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._ids

    @property
    def is_full(self) -> bool:
        """Whether no more should be read."""
        return len(self._ids) >= MAX_ENTRIES

    def holds(self, workspace: str) -> bool:
        """Whether entries of this workspace wait: those behind them wait, too."""
        return workspace in self._waiting

    def concerns(self, workspaces: Iterable[str]) -> bool:
        """Whether entries of one of these wait."""
        return any(one in self._waiting for one in workspaces)

    def add(self, workspace: str, entries: Sequence[Entry], fault: Fault | None = None) -> Rejection | None:
        """Entries that come behind those of their workspace that wait; `fault` is what the first of all broke on.

        Returns why the first of all is to be rejected, where it broke our code again and again: then it is not put off.
        """
        waiting = self._waiting.get(workspace)
        if waiting is None:
            waiting = self._waiting[workspace] = _Waiting(self._clock())
            self._say(workspace, fault)
        for entry in entries:
            before = self._ids.get(entry[0])
            if before == workspace:
                continue
            if before is not None:  # it could not be read then, so nobody knew whose it is
                self._remove(before, {entry[0]})
            waiting.entries.append(entry)
            self._ids[entry[0]] = workspace
        waiting.entries.sort(key=place)
        if fault and not fault.of_the_machine:
            waiting.tries += 1
            if waiting.tries > MAX_TRIES:
                return Rejection("internal_error", fault.text, workspace)
        return None

    def _remove(self, workspace: str, gone: Set[str]) -> None:
        waiting = self._waiting[workspace]
        waiting.entries = [entry for entry in waiting.entries if entry[0] not in gone]
        for id_ in gone:
            self._ids.pop(id_, None)
        if not waiting.entries:
            del self._waiting[workspace]

    def _say(self, workspace: str, fault: Fault | None) -> None:
        """Once for what breaks many."""
        if fault and fault.text != self._said:
            log.error(
                "intake.put_off",
                workspace=workspace,
                problem=fault.text,
                action="trying again; the entries stay on the queue",
                exc_info=fault.error,
            )
        self._said = fault.text if fault else self._said

    def due(self) -> str | None:
        """A workspace whose next try is due."""
        now = self._clock()
        return next((name for name, one in self._waiting.items() if one.due <= now), None)

    def next(self, workspace: str, count: int) -> list[Entry]:
        """Its first entries, which stay until they are `taken`."""
        return self._waiting[workspace].entries[:count]

    def taken(self, workspace: str, entry_ids: Iterable[str]) -> None:
        """These are off the queue; the workspace goes on at once.

        Where the last of them was rejected because it broke our code, the next one that does is rejected at once.
        """
        gone = set(entry_ids)
        waiting = self._waiting.get(workspace)
        if waiting is None or not gone:
            return
        waiting.tries = MAX_TRIES if waiting.tries > MAX_TRIES else 0
        waiting.seconds, waiting.due = FIRST_SECONDS, self._clock()
        self._remove(workspace, gone)
        if not self._waiting:
            self._said = ""

    def try_later(self, workspace: str) -> None:
        """A try changed nothing."""
        waiting = self._waiting.get(workspace)
        if waiting is None:
            return
        waiting.due = self._clock() + waiting.seconds
        waiting.seconds = min(waiting.seconds * 2, MOST_SECONDS)

    def clear(self) -> None:
        """Another leads now."""
        self._waiting.clear()
        self._ids.clear()


def place(entry: Entry) -> tuple[int, int]:
    """Of an entry on the queue."""
    ms, _, number = entry[0].partition("-")
    return int(ms), int(number)
