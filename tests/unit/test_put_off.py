"""Entries that are put off: by workspace, in order, again and again, and not for ever where they break our code."""

from dispatcher.prepare import Entry, Fault
from dispatcher.put_off import FIRST_SECONDS, MAX_ENTRIES, MAX_TRIES, MOST_SECONDS, PutOff

OF_THE_MACHINE = Fault("OSError: no descriptor")
OF_OUR_CODE = Fault("KeyError: 'x'", of_the_machine=False)


class Clock:
    """Seconds, in the test's hands."""

    now = 0.0

    def __call__(self) -> float:
        """Now."""
        return self.now


def entry(number: int) -> Entry:
    """One of the queue."""
    return f"{number}-0", []


def test_order_and_waits() -> None:
    """A workspace's entries come again in their order, after a second, then after twice as long each time, up to a bound."""
    clock = Clock()
    put_off = PutOff(clock)
    put_off.add("acme", [entry(1), entry(2)], OF_THE_MACHINE)
    put_off.add("acme", [entry(2), entry(3)])
    assert (3, True, None) == (len(put_off), put_off.holds("acme"), put_off.due())
    waits = []
    for _ in range(6):
        before = clock.now
        while put_off.due() is None:
            clock.now += 0.5
        waits.append(clock.now - before)
        assert [entry(1), entry(2)] == put_off.next("acme", 2)
        put_off.try_later("acme")
    assert [FIRST_SECONDS, 1.0, 2.0, 4.0, 8.0, MOST_SECONDS] == waits


def test_taken() -> None:
    """What goes on is no longer put off, and the rest is tried at once; a workspace with nothing left waits no more."""
    clock = Clock()
    put_off = PutOff(clock)
    put_off.add("acme", [entry(1), entry(2)], OF_THE_MACHINE)
    put_off.try_later("acme")
    put_off.taken("acme", ["1-0"])
    assert ("acme", [entry(2)], "1-0" in put_off) == (put_off.due(), put_off.next("acme", 9), False)
    put_off.taken("acme", ["2-0"])
    assert (0, False) == (len(put_off), put_off.holds("acme"))


def test_our_code_breaks_again_and_again() -> None:
    """After some tries such an entry is rejected; what the machine lacks rejects nothing, however long it lasts."""
    put_off = PutOff(Clock())
    said = [put_off.add("acme", [entry(1)], OF_OUR_CODE) for _ in range(MAX_TRIES + 1)]
    assert [None] * MAX_TRIES == said[:-1]
    assert said[-1] is not None
    assert ("internal_error", "KeyError: 'x'") == (said[-1].reason, said[-1].detail)
    assert [None] * 50 == [put_off.add("beta", [entry(2)], OF_THE_MACHINE) for _ in range(50)]


def test_a_bound() -> None:
    """So many entries are put off before no more is read."""
    put_off = PutOff(Clock())
    put_off.add("acme", [entry(n) for n in range(MAX_ENTRIES - 1)], OF_THE_MACHINE)
    assert not put_off.is_full
    put_off.add("beta", [entry(MAX_ENTRIES)], OF_THE_MACHINE)
    assert put_off.is_full
    put_off.clear()
    assert (0, None) == (len(put_off), put_off.due())


def test_whose_it_is_shows_later() -> None:
    """An entry that could not be read goes to its workspace when it can, in its place, and waits nowhere else."""
    put_off = PutOff(Clock())
    put_off.add("", [entry(1)], OF_THE_MACHINE)
    put_off.add("acme", [entry(2)], OF_THE_MACHINE)
    put_off.add("acme", [entry(1)], OF_THE_MACHINE)
    assert ([entry(1), entry(2)], False, 2) == (put_off.next("acme", 9), put_off.holds(""), len(put_off))


def test_one_that_breaks_after_another_is_rejected_at_once() -> None:
    """Where each entry of a workspace breaks our code, only the first one is tried again; one that goes on ends that."""
    put_off = PutOff(Clock())
    for _ in range(MAX_TRIES):
        put_off.add("acme", [entry(n) for n in range(1, 5)], OF_OUR_CODE)
    assert put_off.add("acme", [entry(1)], OF_OUR_CODE)
    put_off.taken("acme", ["1-0"])
    assert put_off.add("acme", [entry(2)], OF_OUR_CODE), "no waiting for each of thousands"
    put_off.taken("acme", ["2-0"])
    put_off.taken("acme", ["3-0"])
    assert put_off.add("acme", [entry(4)], OF_OUR_CODE) is None
