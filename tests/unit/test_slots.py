"""How a worker's slots are shared."""

import asyncio
from unittest.mock import Mock

from dispatcher.outcomes import News
from dispatcher.turn import MAX_GOOD, Slots, Turn


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


def test_a_turn_has_its_slots_from_the_start() -> None:
    """Whoever starts turns sees what is left; else thousands are started for the same few slots."""

    async def scene() -> list[int]:
        slots = Slots(16)
        parts = Mock(slots=slots, turn_seconds=5.0)
        turns = [Turn(str(number), parts) for number in range(3)]
        left = slots.free("another")
        for turn in turns:
            turn._until = 0.0
            await turn.run()
        return [left, slots.taken]

    assert [0, 0] == asyncio.run(scene())
