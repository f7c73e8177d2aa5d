"""Which endpoint is served next, and how many are begun at once: so that what waits does so here, where workspaces have their turn."""

from collections import Counter

from dispatcher.store.replies import Hint
from dispatcher.worker.ready import Ready
from dispatcher.worker.slots import Slots

AT_ONCE, OF_ONE = 32, 4
"""Turns whose first claim is under way; of one workspace, and of all together whose last attempt failed or was slow."""
ONE_SUSPECT_IN = 4
"""Where slots are what lacks, one of so many turns is for those."""
SUSPECTS = "*"
"""What those count as."""


class Admission:
    """Endpoints that wait to be served by one worker.

    Workspaces whose last attempt failed, or was slow, wait beside the others and are few at a time, however many they are.
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
        """One more."""
        self._slots.want(hint.workspace)
        (self._suspects if self._slots.is_suspect(hint.workspace) else self._waiting).add(hint)
        self._tell_slots()

    def next(self) -> tuple[Hint, str] | None:
        """The endpoint whose turn is to begin, with what that counts as until `begun`; None: there is none, or no room."""
        if self._slots.are_gone:
            return None
        self._asked += 1
        first, second = self._next_waiting, self._next_suspect
        if self._asked % ONE_SUSPECT_IN == 0:  # or none would ever show that it works again
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
        return self._slots.free(*hint) > 0

    def begun(self, quota: str) -> None:
        """A first claim is there."""
        self._beginning[quota] -= 1
        if not self._beginning[quota]:
            del self._beginning[quota]

    def take_all(self) -> list[Hint]:
        """All that wait, workspaces in turn."""
        waiting = self._waiting.take_all() + self._suspects.take_all()
        self._tell_slots()
        return waiting
