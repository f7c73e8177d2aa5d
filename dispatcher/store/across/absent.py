"""The partitions that did not answer, and why: what they hold is missing in what was read."""

from collections.abc import Mapping, Sequence

from dispatcher.errors import RedisUnavailable

NAMED = 12
"""How many partitions of one problem are named."""


class Absent:
    """Collects the partitions that did not answer while something was read."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._problems: dict[int, str] = {}

    def note(self, partition: int, error: RedisUnavailable) -> None:
        """Notes that a partition did not answer; the first problem of each is kept."""
        self._problems.setdefault(partition, str(error))

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
        return f"{len(self._problems)} of {self._partitions} partitions did not answer ({named})"


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
