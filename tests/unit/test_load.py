"""How busy a worker's loop is, by a clock that the test controls."""

from dispatcher.share_of_core import BUSY
from dispatcher.worker.load import LOOK_SECONDS, Load


class Clocks:
    """Time, and CPU time."""

    def __init__(self) -> None:
        self.now, self.used = 100.0, 7.0
        self.load = Load(lambda: self.now, lambda: self.used)

    def run(self, seconds: float, share: float) -> None:
        """Runs the loop for that long at this share of a core, then looks."""
        self.now += seconds
        self.used += seconds * share
        self.load.look()


def test_share_of_core() -> None:
    """The share of a core is that since the last look; a high one leaves endpoints to other workers."""
    clocks = Clocks()
    clocks.run(1.0, 0.5)
    assert (0.5, False) == (round(clocks.load.share_of_core, 3), clocks.load.is_high)
    clocks.run(1.0, BUSY + 0.01)
    assert clocks.load.is_high
    clocks.run(1.0, 0.1)
    assert not clocks.load.is_high


def test_looks_that_follow_quickly() -> None:
    """Looks within a few milliseconds are measured together, since each says little."""
    clocks = Clocks()
    for _ in range(10):
        clocks.run(LOOK_SECONDS / 20, 1.0)
        assert 0.0 == clocks.load.share_of_core
    clocks.run(LOOK_SECONDS / 2, 0.5)
    assert 0.75 == round(clocks.load.share_of_core, 3)


def test_lag() -> None:
    """The lag is how much later than planned the look was; an early look has none."""
    clocks = Clocks()
    clocks.load.look_in(0.25)
    clocks.run(0.75, 0.0)
    assert 0.5 == round(clocks.load.lag_seconds, 3)
    clocks.load.look_in(0.25)
    clocks.run(0.1, 0.0)
    assert 0.0 == clocks.load.lag_seconds
