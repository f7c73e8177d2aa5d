"""For how long our own faults keep callbacks back."""

from dispatcher.worker import own_faults
from dispatcher.worker.own_faults import OwnFaults


def test_as_long_as_it_has_lasted() -> None:
    """A second at first, then as long as the fault has lasted, 32 s at most; anew after an attempt; each subscription apart."""
    now = 100.0
    faults = OwnFaults(lambda: now)
    waits = []
    for _ in range(9):
        waits.append(faults.delay_ms("acme", "") / 1000)
        now += waits[-1]
    assert [1, 1, 2, 4, 8, 16, 32, 32, 32] == waits
    assert 1000 == faults.delay_ms("acme", "crm")
    faults.over("acme", "")
    assert 1000 == faults.delay_ms("acme", "")


def test_memory_is_bounded() -> None:
    """With very many subscriptions that have a fault, all begin anew."""
    faults = OwnFaults()
    for number in range(2 * own_faults.MOST_KNOWN):
        faults.delay_ms(f"w{number}", "")
    assert len(faults._since) <= own_faults.MOST_KNOWN
