"""Workspaces whose queue entries cannot be taken now, through no fault of their own; they are tried again in order."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog

from dispatcher.store.queue import Place
from dispatcher.worker.batch import Fault, Later

FIRST_SECONDS, MOST_SECONDS = 1.0, 10.0
"""How long a workspace waits before its next try, at first and at most; the wait doubles each time."""
MAX_TRIES = 3
"""Tries after which entries that break our code are rejected. Faults of the machine never reject any."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting:
    """One workspace that is put off."""

    after: Place
    """Of its entries that were read, exactly those behind this place are still on the queue."""
    due: float
    seconds: float = FIRST_SECONDS
    tries: int = 0
    """How often its first entry has broken our code."""

    def wait(self, now: float) -> None:
        """Sets the time of the next try; the wait doubles each time."""
        self.due = now + self.seconds
        self.seconds = min(self.seconds * 2, MOST_SECONDS)


class PutOff:
    """One leader's put-off workspaces, and where the entries of each begin.

    What is to be forwarded is put off by its route, `workspace partition`, as if that were a workspace: entries of the
    workspace that stay here, or go to another partition, do not wait behind it. They are of other messages. So are those of
    another group than one of which other partitions are to be asked (Router.groups).

    The entries stay on the queue, read but not accepted, and are read again for each try. So memory does not grow with
    their number, and a leader that takes over finds them. `clock` returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[str, _Waiting] = {}
        """In the order of the last try, the latest last."""
        self._said = ""

    def __len__(self) -> int:
        return len(self._waiting)

    def holds(self, workspace: str) -> bool:
        """Whether entries of this workspace are put off: its later entries must wait behind them."""
        return workspace in self._waiting

    def concerns(self, workspaces: Iterable[str]) -> bool:
        """Whether entries of one of these workspaces are put off."""
        return any(one in self._waiting for one in workspaces)

    def add(self, later: Mapping[str, Later]) -> None:
        """Puts entries off, by workspace; if others of a workspace wait already, these are tried with them."""
        for workspace, left in later.items():
            waiting = self._waiting.get(workspace)
            if waiting:
                waiting.after = min(waiting.after, left.after)
                continue
            seconds = _first_wait(left.fault)
            self._waiting[workspace] = _Waiting(
                left.after, self._clock() + seconds, seconds, _is_of_our_code(left.fault)
            )
            self._say(workspace, left.fault)

    def due(self) -> Place | None:
        """The place behind which the entries of a due workspace begin; None if no workspace is due."""
        now = self._clock()
        return next((one.after for one in self._waiting.values() if one.due <= now), None)

    def trying(self, after: Place, last: Place | None) -> dict[str, bool]:
        """The due workspaces whose entries begin between two places (None: the end of what was read).

        The value says whether entries that break our code are rejected this time. The wait for the next try starts now,
        so that a workspace whose entries Redis refuses does not hold up the others.
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
        """Records the result of a try: entries in `later` stay put off.

        A workspace without any there continues behind `last`; it is done if that is None. Once entries are rejected for
        breaking our code, this holds until none of their workspace are put off.
        """
        now = self._clock()
        for workspace in trying:
            one, left = self._waiting.pop(workspace), later.get(workspace)
            if left:
                self._say(workspace, left.fault)
            after = left.after if left else last
            if after is None:
                continue
            if after != one.after:
                one.after, one.due, one.seconds = after, now, _first_wait(left.fault if left else None)
                one.tries = one.tries if one.tries >= MAX_TRIES else 0
                if left:
                    one.wait(now)
            one.tries += _is_of_our_code(left.fault if left else None)
            self._waiting[workspace] = one
        if not self._waiting:
            self._said = ""

    def _say(self, workspace: str, fault: Fault | None) -> None:
        """Logs a fault, but not again if it is the same as the last one: one fault may hit many workspaces."""
        if fault is None or fault.is_soon_over:
            return
        if fault.text != self._said:
            log.error(
                "intake.put_off",
                workspace=workspace,
                problem=fault.text,
                action="trying again; the entries stay on the queue",
                exc_info=fault.error,
            )
        self._said = fault.text

    def clear(self) -> None:
        """Forgets all workspaces: another worker leads now."""
        self._waiting.clear()


def _first_wait(fault: Fault | None) -> float:
    """How long entries wait before they are tried for the first time, or after others were taken."""
    return min(fault.seconds or FIRST_SECONDS, FIRST_SECONDS) if fault else FIRST_SECONDS


def _is_of_our_code(fault: Fault | None) -> bool:
    return fault is not None and not fault.of_the_machine
