"""Workspaces that are put off: tried in order and in turn, again and again, but not forever if they break our code."""

from collections.abc import Iterable

from dispatcher.store.queue import Place
from dispatcher.worker.batch import Fault, Later
from dispatcher.worker.put_off import FIRST_SECONDS, MAX_TRIES, MOST_SECONDS, PutOff

OF_THE_MACHINE = Fault("OSError: no descriptor")
OF_OUR_CODE = Fault("KeyError: 'x'", of_the_machine=False)


class Clock:
    """Seconds, which the test sets."""

    now = 0.0

    def __call__(self) -> float:
        """Now."""
        return self.now


def left(*numbers: int, fault: Fault | None = OF_THE_MACHINE) -> Later:
    """Entries that stay put off."""
    return Later([f"5-{number}" for number in numbers], fault)


def tried(put_off: PutOff, last: int | None = None, **later: Later) -> tuple[Place | None, dict[str, bool]]:
    """Makes one try, up to the entry of that number; returns where it began, and which workspaces were tried."""
    after = put_off.due()
    end = None if last is None else (5, last)
    names = put_off.trying(after, end) if after else {}
    put_off.tried(names, later, end)
    return after, names


def test_just_before_the_first() -> None:
    """Entries are read again from just before the first of them, however they are sorted."""
    assert [(5, 1), (5, 0), (4, 2**64 - 1)] == [left(3, 2).after, left(1).after, left(0).after]


def test_waits() -> None:
    """A workspace is tried after a second, then after twice as long each time, up to a bound."""
    clock = Clock()
    put_off = PutOff(clock)
    put_off.add({"acme": left(1, 2)})
    put_off.add({"acme": left(3, fault=None)})
    assert (1, True, None) == (len(put_off), put_off.holds("acme"), put_off.due())
    waits = []
    for _ in range(6):
        before = clock.now
        while put_off.due() is None:
            clock.now += 0.5
        waits.append(clock.now - before)
        assert ((5, 0), {"acme": False}) == tried(put_off, acme=left(1, 2, 3))
    assert [FIRST_SECONDS, 1.0, 2.0, 4.0, 8.0, MOST_SECONDS] == waits


def test_goes_on() -> None:
    """A workspace without an entry left among those read continues behind them at once; at their end it is done."""
    clock = Clock()
    put_off = PutOff(clock)
    put_off.add({"acme": left(1)})
    clock.now += FIRST_SECONDS
    tried(put_off, acme=left(1))
    clock.now += MOST_SECONDS
    tried(put_off, 70)
    assert (5, 70) == put_off.due()
    tried(put_off, 90, acme=left(80))
    assert None is put_off.due(), "its first one has not been tried before"
    clock.now += FIRST_SECONDS
    assert (5, 79) == put_off.due()
    tried(put_off)
    assert (0, False, None) == (len(put_off), put_off.holds("acme"), put_off.due())


def test_those_that_are_read_anyway() -> None:
    """Other due workspaces whose entries begin among the ones that are read are tried as well; none is skipped."""
    clock = Clock()
    put_off = PutOff(clock)
    for name, first in (("early", 1), ("first", 10), ("beside", 20), ("behind", 99)):
        put_off.add({name: left(first)})
    clock.now += FIRST_SECONDS
    put_off.add({"not_due": left(15)})
    tried(put_off, 5)  # of the first one
    assert ((5, 9), {"first": False, "beside": False}) == tried(put_off, 64)
    assert ((5, 98), {"behind": False}) == tried(put_off, 200)
    assert ((5, 5), {"early": False}) == tried(put_off, 30)
    assert ((5, 64), {"first", "beside", "behind"}) == (put_off.due(), {*tried(put_off)[1]}), "up to the end"
    assert {"early", "not_due"} == {name for name in ("early", "not_due", "first") if put_off.holds(name)}


def test_a_try_that_breaks_off() -> None:
    """A workspace whose try Redis refuses waits, so that others are tried and new entries are read meanwhile."""
    clock = Clock()
    put_off = PutOff(clock)
    put_off.add({"acme": left(1)})
    clock.now += FIRST_SECONDS
    assert {"acme": False} == put_off.trying((5, 0), None)
    assert None is put_off.due()
    clock.now += FIRST_SECONDS
    assert {"acme": False} == put_off.trying((5, 0), None)
    clock.now += FIRST_SECONDS
    assert None is put_off.due()
    clock.now += FIRST_SECONDS
    assert (5, 0) == put_off.due()


def test_each_has_its_turn() -> None:
    """A workspace with a lot to try does not keep another one from it, whichever entries are older."""
    clock = Clock()
    put_off = PutOff(clock)
    for name, first in (("many", 1), ("few", 1000)):
        put_off.add({name: left(first)})
    clock.now += FIRST_SECONDS
    begun = [tried(put_off, last)[0] for last in (64, 1064, 128, 1128)]
    assert [(5, 0), (5, 999), (5, 64), (5, 1064)] == begun


def rejects(put_off: PutOff, clock: Clock, *faults: Fault) -> list[bool]:
    """Makes one try for each fault; returns whether entries that break our code were rejected at each of them."""
    found = []
    for fault in faults:
        clock.now += MOST_SECONDS
        [(_, now)] = tried(put_off, 2, acme=left(1, fault=fault))[1].items()
        found.append(now)
    return found


def test_our_code_breaks_again_and_again() -> None:
    """Entries that break our code are rejected after some tries; faults of the machine reject none, however long."""
    clock = Clock()
    put_off = PutOff(clock)
    put_off.add({"acme": left(1, fault=OF_OUR_CODE)})
    assert [False] * (MAX_TRIES - 1) + [True] == rejects(put_off, clock, *[OF_OUR_CODE] * MAX_TRIES)
    put_off.clear()
    put_off.add({"acme": left(1)})
    assert [False] * 50 == rejects(put_off, clock, *[OF_THE_MACHINE] * 50)


def test_only_tries_count() -> None:
    """However many entries of a workspace break our code, only tries of the first one count."""
    clock = Clock()
    put_off = PutOff(clock)
    for number in range(20):
        put_off.add({"": left(number, fault=OF_OUR_CODE)})
    clock.now += FIRST_SECONDS
    assert ((4, 2**64 - 1), {"": False}) == tried(put_off)


def test_one_that_breaks_after_another_is_rejected_at_once() -> None:
    """A thousand entries that break our code do not each wait: after the first, they are rejected at once."""
    clock = Clock()
    put_off = PutOff(clock)
    put_off.add({"acme": left(1, fault=OF_OUR_CODE)})
    rejects(put_off, clock, *[OF_OUR_CODE] * (MAX_TRIES - 1))
    clock.now += MOST_SECONDS
    assert [True, True, True] == [
        flag for last in (64, 128, None) for flag in tried(put_off, last)[1].values()
    ]
    put_off.add({"acme": left(1, fault=OF_OUR_CODE)})
    assert [False] == rejects(put_off, clock, OF_OUR_CODE)


def test_the_next_one_that_breaks_is_tried_anew() -> None:
    """If the first entry is accepted before its tries are used up, the next one gets all tries of its own."""
    clock = Clock()
    put_off = PutOff(clock)
    put_off.add({"acme": left(1, fault=OF_OUR_CODE)})
    rejects(put_off, clock, OF_OUR_CODE)
    clock.now += MOST_SECONDS
    tried(put_off, 9, acme=left(5, fault=OF_OUR_CODE))
    flags: Iterable[bool] = []
    for _ in range(MAX_TRIES):
        clock.now += MOST_SECONDS
        flags = [*flags, *tried(put_off, 9, acme=left(5, fault=OF_OUR_CODE))[1].values()]
    assert [False] * (MAX_TRIES - 1) + [True] == flags
