"""The partitions that did not answer, and why: what they hold is missing in what was read."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from dispatcher.errors import RedisUnavailable

NAMED = 12
"""How many partitions of one problem are named."""


class Absent:
    """The partitions that did not answer while something was read."""

    def __init__(self, partitions: int = 0) -> None:
        self.of = partitions
        """How many there are, or 0 if that is not known yet."""
        self._problems: dict[int, str] = {}

    def note(self, partition: int, error: RedisUnavailable) -> None:
        """Notes that a partition did not answer; the first problem of each is kept."""
        self._problems.setdefault(partition, str(error))

    def add(self, other: "Absent", among: Collection[int] | None = None) -> None:
        """Notes what another reading lacks too, in all partitions or only `among` some."""
        self.of = max(self.of, other.of)
        for partition, problem in other.problems.items():
            if among is None or partition in among:
                self._problems.setdefault(partition, problem)

    def forget(self) -> None:
        """Forgets all that was noted."""
        self._problems.clear()

    @property
    def partitions(self) -> list[int]:
        """Their numbers, in ascending order."""
        return sorted(self._problems)

    @property
    def problems(self) -> Mapping[int, str]:
        """Why each did not answer, by partition."""
        return dict(sorted(self._problems.items()))

    def named(self) -> str:
        """One line that names them; empty if all answered."""
        if not self._problems:
            return ""
        by_problem: dict[str, list[int]] = {}
        for number, problem in self.problems.items():
            same = problem.replace(
                f" (partition {number})", ""
            )  # so that a node's partitions have one reason
            by_problem.setdefault(_first_sentence(same), []).append(number)
        named = "; ".join(f"{listed(numbers)}: {why}" for why, numbers in by_problem.items())
        return f"{len(self._problems)} of {self.of} partitions did not answer ({named})"


_reading: ContextVar[Absent | None] = ContextVar("absent", default=None)


@contextmanager
def apart() -> Iterator[Absent]:
    """What the caller reads meanwhile, and tasks that it begins, has an Absent of its own: a process reads for many."""
    found = Absent()
    token = _reading.set(found)
    try:
        yield found
    finally:
        _reading.reset(token)


def pass_on(found: Absent) -> None:
    """Notes what a part of the caller's reading lacked, which was read `apart`."""
    if whole := _reading.get():
        whole.add(found)


def of_reading(otherwise: Absent) -> Absent:
    """The Absent of what the caller reads `apart`; without that, `otherwise`, which has all that the process has read."""
    found = _reading.get()
    if found is None:
        return otherwise
    found.add(Absent(otherwise.of))
    return found


def listed(numbers: Sequence[int]) -> str:
    """The first NAMED of some partitions, and how many there are beyond them."""
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"{', '.join(map(str, numbers[:NAMED]))}{more}"


def _first_sentence(text: str) -> str:
    """The text up to its first full stop; one within brackets ends no sentence."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and text.startswith(". ", at):
            return text[:at]
    return text.rstrip(".")
