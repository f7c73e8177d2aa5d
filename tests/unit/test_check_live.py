"""What `check --live` says of intake."""

import pytest

from dispatcher.store.check_finding import Finding, Verdict
from dispatcher.store.members import Owners
from tasks.actions.check_live import _intake

REFUSED = Finding("writes", Verdict.BAD, "a refuses writes")
OWNERS = {"some": Owners({"w": frozenset({0, 1})}, [2]), "none": Owners({}, [0, 1, 2])}


@pytest.mark.parametrize(
    ("owners", "writes", "verdict", "says"),
    [
        ("some", Finding("writes", Verdict.OK, ""), Verdict.BAD, "1 of 3 partitions have no owner (2)"),
        ("some", REFUSED, Verdict.BAD, "1 of 3 partitions have no owner (2)"),
        ("none", REFUSED, Verdict.UNKNOWN, "cannot be seen: a refuses writes"),
    ],
)
def test_a_server_that_refuses_writes(owners: str, writes: Finding, verdict: Verdict, says: str) -> None:
    """It hides who leads only where no heartbeat is written: one node of several does not."""
    found = _intake(OWNERS[owners], 3, writes)
    assert (verdict, True) == (found.verdict, found.detail.startswith(says))
