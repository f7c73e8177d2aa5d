"""How a worker's slots are shared."""

from dispatcher.outcomes import News
from dispatcher.turn import MAX_GOOD, Slots


def test_a_quarter_is_for_good_endpoints() -> None:
    """Endpoints nobody knows share three quarters; one that took its last callback has all that is free."""
    slots = Slots(8)
    assert 6 == slots.take("unknown", 100)
    assert 0 == slots.take("another", 1)
    slots.learn("good", News.UP)
    assert 2 == slots.take("good", 100)
    slots.give_back(1)
    assert (0, 1) == (slots.free("another"), slots.free("good"))


def test_an_endpoint_is_good_until_it_is_not() -> None:
    """Any other result than a callback taken ends it."""
    slots = Slots(4)
    for news in (News.DOWN, News.ANSWERED, News.NONE):
        slots.learn("one", News.UP)
        assert slots.is_good("one")
        slots.learn("one", news)
        assert not slots.is_good("one")


def test_closed() -> None:
    """Nobody gets any more."""
    slots = Slots(8)
    slots.learn("good", News.UP)
    slots.close()
    assert 0 == slots.take("good", 1)


def test_memory_is_bounded() -> None:
    """Those that were good longest ago are forgotten first."""
    slots = Slots(4)
    for number in range(MAX_GOOD + 1):
        slots.learn(str(number), News.UP)
    assert (False, True) == (slots.is_good("0"), slots.is_good("1"))
