"""How busy a worker's loop is, by a clock in the test's hands."""

from dispatcher.worker.load import BUSY, LOOK_SECONDS, Load


class Clocks:
    """Time, and CPU time."""

    def __init__(self) -> None:
        self.now, self.used = 100.0, 7.0
        self.load = Load(lambda: self.now, lambda: self.used)

    def run(self, seconds: float, share: float) -> None:
        """The loop runs for so long with this share of a core; then it is looked at."""
        self.now += seconds
        self.used += seconds * share
        self.load.look()


def test_share_of_core() -> None:
    """It is that of the time since the last look, and a high one leaves endpoints to others."""
    clocks = Clocks()
    clocks.run(1.0, 0.5)
    assert (0.5, False) == (round(clocks.load.share_of_core, 3), clocks.load.is_high)
    clocks.run(1.0, BUSY + 0.01)
    assert clocks.load.is_high
    clocks.run(1.0, 0.1)
    assert not clocks.load.is_high


def test_looks_that_follow_quickly() -> None:
    """A few milliseconds say little: they are measured together."""
    clocks = Clocks()
    for _ in range(10):
        clocks.run(LOOK_SECONDS / 20, 1.0)
        assert 0.0 == clocks.load.share_of_core
    clocks.run(LOOK_SECONDS / 2, 0.5)
    assert 0.75 == round(clocks.load.share_of_core, 3)


def test_lag() -> None:
    """How much later than planned the look was; an earlier one is not late."""
    clocks = Clocks()
    clocks.load.look_in(0.25)
    clocks.run(0.75, 0.0)
    assert 0.5 == round(clocks.load.lag_seconds, 3)
    clocks.load.look_in(0.25)
    clocks.run(0.1, 0.0)
    assert 0.0 == clocks.load.lag_seconds
