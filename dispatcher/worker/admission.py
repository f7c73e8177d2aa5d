"""Which endpoint is served next, and how many turns begin at once.

The limits keep endpoints waiting here, where workspaces take turns, and not further on.
"""

from collections import Counter

from dispatcher.store.replies import Hint
from dispatcher.worker.ready import Ready
from dispatcher.worker.slots import Slots

AT_ONCE, OF_ONE = 32, 4
"""Most turns whose first claim is under way: in total, and of one workspace or of all suspects together.

A suspect is a workspace whose last attempt failed or was slow; the total does not count suspects.
"""
ONE_SUSPECT_IN = 4
"""One in this many turns is offered to suspects first, so that they get some when slots are scarce."""
SUSPECTS = "*"
"""The name under which all suspects are counted together."""


class Admission:
    """Endpoints that wait to be served by one worker.

    Suspects wait in a queue of their own, and only a few of their turns begin at once, however many wait.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._waiting = Ready()
        self._suspects = Ready()
        self._asked = 0
        self._beginning: Counter[str] = Counter()
        """Turns whose first claim is under way, by workspace or SUSPECTS."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._suspects)

    def add(self, hint: Hint) -> None:
        """Adds an endpoint."""
        self._slots.want(hint.workspace)
        (self._suspects if self._slots.is_suspect(hint.workspace) else self._waiting).add(hint)
        self._tell_slots()

    def next(self) -> tuple[Hint, str] | None:
        """Takes the endpoint whose turn begins next, with the name that it counts under until `begun`.

        None if no endpoint waits or there is no room.
        """
        if self._slots.are_gone or not len(self):
            return None
        self._asked += 1
        first, second = self._next_waiting, self._next_suspect
        if self._asked % ONE_SUSPECT_IN == 0:  # otherwise none could show that it has recovered
            first, second = second, first
        admitted = first() or second()
        if admitted:
            self._beginning[admitted[1]] += 1
        self._tell_slots()
        return admitted

    def _tell_slots(self) -> None:
        self._slots.somebody_waits = self._waiting.has_unserved or self._suspects.has_unserved

    def _next_waiting(self) -> tuple[Hint, str] | None:
        if self._beginning.total() - self._beginning[SUSPECTS] >= AT_ONCE:
            return None
        hint = self._waiting.take(self._may_begin)
        return (hint, hint.workspace) if hint else None

    def _next_suspect(self) -> tuple[Hint, str] | None:
        hint = self._suspects.take(self._has_slot) if self._beginning[SUSPECTS] < OF_ONE else None
        return (hint, SUSPECTS) if hint else None

    def _may_begin(self, hint: Hint) -> bool:
        return self._beginning[hint.workspace] < OF_ONE and self._has_slot(hint)

    def _has_slot(self, hint: Hint) -> bool:
        return self._slots.free(hint.endpoint, hint.workspace) > 0

    def begun(self, quota: str) -> None:
        """A turn's first claim has ended; `quota` is the name that `next` returned."""
        self._beginning[quota] -= 1
        if not self._beginning[quota]:
            del self._beginning[quota]

    def take_all(self) -> list[Hint]:
        """Takes all endpoints, workspaces in turn, suspects last."""
        waiting = self._waiting.take_all() + self._suspects.take_all()
        self._tell_slots()
        return waiting
