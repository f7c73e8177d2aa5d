"""What became of a change that several partitions were to make, some of which may not have answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from dispatcher.errors import PartlyDone, RedisUnavailable, sentence
from dispatcher.store.across.absent import listed

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Tried(Generic[T]):
    """The answers of those that answered, and the problems of the others, by partition."""

    found: Mapping[int, T]
    problems: Mapping[int, RedisUnavailable]

    def whole(self, result: R) -> R:
        """The result, if all have answered.

        Raises PartlyDone with the result of those that did, or RedisUnavailable if none has.
        """
        if not self.problems:
            return result
        problem = next(iter(self.problems.values()))
        if not self.found:
            raise problem
        raise PartlyDone(
            f"{sentence(str(problem))} It is done where partitions answer, and not in {named([*self.problems])}: repeat it",
            result,
        ) from problem

    def also(self, other: "Tried[T]") -> "Tried[T]":
        """The two together."""
        return Tried({**self.found, **other.found}, {**self.problems, **other.problems})


def named(numbers: list[int]) -> str:
    """Some partitions, in a sentence."""
    return f"partition{'' if len(numbers) == 1 else 's'} {listed(numbers)}"
