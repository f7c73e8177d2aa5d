"""Workspaces whose queue entries cannot be taken now, for no fault of theirs: tried again later, in their order."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog

from dispatcher.store.queue import Place
from dispatcher.worker.prepare import Fault, Later

FIRST_SECONDS, MOST_SECONDS = 1.0, 10.0
"""How long a workspace waits for its next try, at first and at most; twice as long each time."""
MAX_TRIES = 3
"""Tries after which entries that break our code, and not our machine, are rejected."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting:
    """A workspace."""

    after: Place
    """All its entries behind this place that were read are still on the queue, and none before it."""
    due: float
    seconds: float = FIRST_SECONDS
    tries: int = 0
    """Of its first entry, since that breaks our code."""

    def wait(self, now: float) -> None:
        """Before the next try, twice as long each time."""
        self.due = now + self.seconds
        self.seconds = min(self.seconds * 2, MOST_SECONDS)


class PutOff:
    """One leader's put-off workspaces, and where the entries of each begin.

    The entries stay on the queue, read and not accepted, and are read again to be tried: so it takes no more memory
    however many they are, and a leader that takes over finds them. `clock` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[str, _Waiting] = {}
        """The one that was tried last comes last."""
        self._said = ""

    def __len__(self) -> int:
        return len(self._waiting)

    def holds(self, workspace: str) -> bool:
        """Whether entries of this workspace wait: those behind them wait, too."""
        return workspace in self._waiting

    def concerns(self, workspaces: Iterable[str]) -> bool:
        """Whether entries of one of these wait."""
        return any(one in self._waiting for one in workspaces)

    def add(self, later: Mapping[str, Later]) -> None:
        """Entries by workspace; where others of it wait, these are tried in their turn."""
        for workspace, left in later.items():
            waiting = self._waiting.get(workspace)
            if waiting:
                waiting.after = min(waiting.after, left.after)
                continue
            due = self._clock() + FIRST_SECONDS
            self._waiting[workspace] = _Waiting(left.after, due, tries=_is_of_our_code(left.fault))
            self._say(workspace, left.fault)

    def due(self) -> Place | None:
        """The place behind which the entries of a workspace that is due begin."""
        now = self._clock()
        return next((one.after for one in self._waiting.values() if one.due <= now), None)

    def trying(self, after: Place, last: Place | None) -> dict[str, bool]:
        """Workspaces that are due and whose entries begin between two places (None: the end of what was read).

        For each, whether those of its entries that break our code are to be rejected now. They wait for the next try from
        now on: one that Redis refuses keeps nobody else from going on.
        """
        now = self._clock()
        found = {
            workspace: one
            for workspace, one in self._waiting.items()
            if one.due <= now and after <= one.after and (last is None or one.after < last)
        }
        for one in found.values():
            one.wait(now)
        return {workspace: one.tries >= MAX_TRIES for workspace, one in found.items()}

    def tried(self, trying: Iterable[str], later: Mapping[str, Later], last: Place | None) -> None:
        """What came of it: the entries in `later` stay; who has none there goes on behind `last`, or has none left.

        Once entries that break our code are rejected, they are until none of their workspace waits.
        """
        now = self._clock()
        for workspace in trying:
            one, left = self._waiting.pop(workspace), later.get(workspace)
            after = left.after if left else last
            if after is None:
                continue
            if after != one.after:
                one.after, one.due, one.seconds = after, now, FIRST_SECONDS
                one.tries = one.tries if one.tries >= MAX_TRIES else 0
                if left:
                    one.wait(now)
            one.tries += _is_of_our_code(left.fault if left else None)
            self._waiting[workspace] = one
        if not self._waiting:
            self._said = ""

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

    def clear(self) -> None:
        """Another leads now."""
        self._waiting.clear()


def _is_of_our_code(fault: Fault | None) -> bool:
    return fault is not None and not fault.of_the_machine
