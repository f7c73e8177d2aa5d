"""Goes on with the batches of a change although partitions do not answer, and says so at the end."""

from collections.abc import Awaitable
from typing import TypeVar

from dispatcher.errors import PartlyDone

T = TypeVar("T")


class Partly:
    """The batches of one change: each is made where partitions answer."""

    def __init__(self) -> None:
        self.problem: PartlyDone | None = None
        """The first one."""

    async def of(self, batch: Awaitable[T]) -> T:
        """What became of a batch, in the partitions that answered. Raises RedisUnavailable if none did."""
        try:
            return await batch
        except PartlyDone as error:
            self.problem = self.problem or error
            found: T = error.result
            return found

    def raise_problem(self) -> None:
        """Raises PartlyDone if a batch was not made in all partitions; for the end."""
        if self.problem:
            raise self.problem
