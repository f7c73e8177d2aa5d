"""What is recorded of an attempt that our own side could not make."""

import pytest
from msgspec.structs import replace

from dispatcher.model import Status
from dispatcher.rules.callback import Claimed
from dispatcher.rules.decide import Policy
from dispatcher.rules.outcomes import Attempt, Released
from dispatcher.worker.attempt_result import put_back, settlement_of

ONE = Claimed("e1", 1, 1, 10**12, "MESSAGE_SENT", Status.SENT, "m1", "https://a.example/", b"{}", 1, (), 1)


@pytest.mark.parametrize(
    ("claim", "attempt", "seconds"), [(1, 1, 1), (2, 1, 2), (5, 2, 8), (6, 1, 32), (9000, 1, 32), (1, 3, 1)]
)
def test_a_fault_that_goes_on(claim: int, attempt: int, seconds: int) -> None:
    """The callback comes back later each time it was claimed and not sent, after half a minute at most."""
    again = settlement_of(
        replace(ONE, claim=claim, attempt=attempt), Attempt(1, 0, internal_error="no"), Policy()
    )
    assert Released(1000 * seconds) == again.outcome


def test_redis_was_away() -> None:
    """What was not sent because its workspace could not be asked for comes back after a second."""
    assert Released(1000) == put_back(replace(ONE, claim=9)).outcome
