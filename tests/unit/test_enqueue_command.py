"""What `dispatcher enqueue` says about a file that Redis took only some of."""

from collections.abc import Sequence
from typing import Any, Self

import pytest
from redis.exceptions import ConnectionError, OutOfMemoryError

from dispatcher.errors import EnqueueInterrupted, RedisFull
from dispatcher.producer import BATCH, Dispatcher, Ready
from tasks.commands.enqueue import _send

FULL = OutOfMemoryError("OOM command not allowed when used memory > 'maxmemory'.")
AWAY = ConnectionError("Connection reset by peer")


class FakeClient:
    """A redis-py client that answers the nth status change with `problems[n]`, or takes it."""

    def __init__(self, problems: dict[int, Exception]) -> None:
        self._problems = problems
        self._asked: list[int] = []
        self._count = 0

    def pipeline(self, *, transaction: bool) -> Self:
        """Itself; a pipeline is no transaction here."""
        assert not transaction
        return self

    def execute_command(self, *_words: object) -> None:
        """Queues one command."""
        self._asked.append(self._count)
        self._count += 1

    def execute(self, *, raise_on_error: bool) -> list[Any]:
        """The replies."""
        assert not raise_on_error
        asked, self._asked = self._asked, []
        return [self._problems.get(number, b"1-1") for number in asked]


def sent(count: int, problems: dict[int, Exception]) -> list[str]:
    """Sends a file of which every second line is empty, so that change n is on line 2n + 1."""
    changes = [(2 * n + 1, Ready(f"e{n}", "acme", b"{}")) for n in range(count)]
    return _send(Dispatcher(FakeClient(problems)), changes)  # type: ignore[arg-type]


def test_all_of_a_file() -> None:
    """A file that Redis takes is enqueued in order, whatever its length."""
    assert [f"e{n}" for n in range(2 * BATCH + 1)] == sent(2 * BATCH + 1, {})


@pytest.mark.parametrize(
    ("refused", "confirmed", "what"),
    [
        (range(2 * BATCH, 3 * BATCH), 2 * BATCH, f"up to line {4 * BATCH - 1}:"),
        ([2], BATCH - 1, "up to line 3:"),
        ([BATCH], 2 * BATCH - 1, f"up to line {2 * BATCH - 1}:"),
        ([0], BATCH - 1, "its first line may be missing:"),
    ],
    ids=["the third batch", "one in a batch", "the first of a batch", "the first of all"],
)
@pytest.mark.parametrize("problem", [FULL, AWAY], ids=["full", "away"])
def test_what_is_enqueued_so_far(
    refused: Sequence[int], confirmed: int, what: str, problem: Exception
) -> None:
    """The error names the last line before the first one that is not certainly on the queue, and counts the whole file."""
    with pytest.raises(EnqueueInterrupted) as caught:
        sent(3 * BATCH, dict.fromkeys(refused, problem))
    assert confirmed == len(caught.value.confirmed)
    assert f"Of what was to be enqueued {confirmed:,} are on the queue for certain" in str(caught.value)
    assert what in str(caught.value)
    assert "nothing was taken" not in str(caught.value)


def test_none_of_a_file() -> None:
    """A Redis that was full from the first line on says that alone."""
    with pytest.raises(RedisFull):
        sent(BATCH, dict.fromkeys(range(BATCH), FULL))
