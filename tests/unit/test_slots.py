"""How a worker's slots are shared, by endpoint and by workspace."""

import asyncio
from unittest.mock import Mock

from dispatcher.rules.outcomes import EndpointHealth
from dispatcher.store.replies import Hint
from dispatcher.worker.slots import FAST_MS, MAX_HEALTHY, WANTED_SECONDS, Slots
from dispatcher.worker.turn import Turn


def test_a_quarter_is_for_healthy_endpoints() -> None:
    """Unknown endpoints share three quarters; one that accepted its last callback may have all that is free."""
    slots = Slots(8)
    assert 6 == slots.take("unknown", "w", 100)
    assert 0 == slots.take("another", "w", 1)
    slots.learn("healthy", "w", EndpointHealth.UP, 5)
    assert 2 == slots.take("healthy", "w", 100)
    slots.give_back("healthy", "w", 1)
    assert (0, 1) == (slots.free("another", "w"), slots.free("healthy", "w"))


def test_an_endpoint_is_healthy_until_it_is_not() -> None:
    """An endpoint stays healthy until an attempt ends without a quick success."""
    slots = Slots(4)
    for health, took_ms in (
        (EndpointHealth.DOWN, 5),
        (EndpointHealth.ANSWERED, 5),
        (EndpointHealth.NONE, 5),
        (EndpointHealth.UP, FAST_MS),
    ):
        slots.learn("one", "w", EndpointHealth.UP, 5)
        assert slots.is_healthy("one", "w")
        slots.learn("one", "w", health, took_ms)
        assert not slots.is_healthy("one", "w")


def test_one_workspace_alone_has_all() -> None:
    """While no other workspace wants slots, a workspace's healthy endpoints may have every slot."""
    slots = Slots(100)
    slots.learn("e", "w", EndpointHealth.UP, 5)
    assert 100 == slots.take("e", "w", 1000)


def test_a_workspace_leaves_some_to_others() -> None:
    """While others want some, a workspace has at most three times what it leaves free, healthy or not."""
    slots = Slots(100)
    slots.give_back("q", "quiet", slots.take("q", "quiet", 1))
    slots.learn("e", "hog", EndpointHealth.UP, 5)
    assert 75 == sum(slots.take("e", "hog", 10) for _ in range(100))
    assert 25 == 100 - slots.taken
    assert 19 == slots.free("new", "newcomer"), "and so does the next one"
    slots.learn("q", "quiet", EndpointHealth.UP, 5)
    assert 19 == slots.free("q", "quiet")


def test_healthy_endpoints_do_not_fill_the_place_of_others() -> None:
    """Endpoints that are not known to be healthy have their three quarters, whatever healthy ones hold of the rest."""
    slots = Slots(8)
    slots.learn("healthy", "w", EndpointHealth.UP, 5)
    assert 7 == slots.take("healthy", "w", 7)
    assert 1 == slots.take("new", "w", 8)
    slots.give_back("healthy", "w", 7)
    assert 5 == slots.take("new", "w", 8)
    assert 0 == slots.free("another", "w")


def test_what_is_taken_counts_as_what_its_endpoint_is_now() -> None:
    """Slots of an endpoint that proves healthy no longer count in the three quarters; once it fails they do again."""
    slots = Slots(8)
    assert 6 == slots.take("one", "w", 8)
    slots.learn("one", "w", EndpointHealth.UP, 5)
    assert 2 == slots.free("another", "w")
    slots.learn("one", "w", EndpointHealth.DOWN, 5)
    assert 0 == slots.free("another", "w")
    slots.give_back("one", "w", 6)
    assert (0, 6) == (slots.taken, slots.free("another", "w"))


def test_the_last_slot_is_for_who_waits() -> None:
    """While a workspace waits that was not served yet, those that have slots leave the last one, and so does accept."""
    slots = Slots(4)
    for name in ("busy", "new"):
        slots.learn(name, name, EndpointHealth.UP, 5)
    assert 3 == slots.take("busy", "busy", 3)
    slots.somebody_waits = True
    assert (0, 0, 1) == (slots.free("busy", "busy"), slots.reserve(1), slots.free("new", "new"))


def test_a_hundred_hogs_leave_some() -> None:
    """However many workspaces take all they may have, a healthy endpoint of another one gets its share of a quarter."""
    slots = Slots(400)
    slots.learn("q", "quiet", EndpointHealth.UP, 5)
    for _ in range(50):
        for number in range(100):
            slots.take("e", f"hog{number}", 4)
    assert slots.taken <= 300
    assert 75 == slots.free("q", "quiet")


def test_others_want_slots_for_a_minute() -> None:
    """No slots are left for a workspace that has wanted none for a minute."""
    now = 0.0
    slots = Slots(100, lambda: now)
    slots.give_back("q", "quiet", slots.take("q", "quiet", 1))
    slots.take("e", "hog", 1)
    assert slots.are_shared()
    now = WANTED_SECONDS
    slots.take("e", "hog", 1)
    assert not slots.are_shared()
    assert 75 - 2 == slots.free("e", "hog")


def test_reserved_slots_are_nobodys() -> None:
    """Slots that are reserved for a batch count as taken, and are all freed if none of them is used."""
    slots = Slots(8)
    slots.ration(5)
    assert 5 == slots.reserve(100)
    assert (5, 0, False) == (slots.taken, slots.free("e", "w"), slots.are_shared())
    slots.release(5, 2)
    slots.hold("e", "w", 2)
    assert (2, 3) == (slots.taken, slots.free("e", "w"))


def test_closed() -> None:
    """After `close` no endpoint gets a slot."""
    slots = Slots(8)
    slots.learn("healthy", "w", EndpointHealth.UP, 5)
    slots.close()
    assert 0 == slots.take("healthy", "w", 1)


def test_memory_is_bounded() -> None:
    """A workspace with more healthy endpoints than are remembered loses its own, and not those of others."""
    slots = Slots(4)
    slots.learn("quiet", "q", EndpointHealth.UP, 5)
    for number in range(MAX_HEALTHY):
        slots.learn(str(number), "w", EndpointHealth.UP, 5)
    assert (False, True) == (slots.is_healthy("0", "w"), slots.is_healthy("1", "w"))
    assert slots.is_healthy("quiet", "q")


def test_a_turn_has_its_slots_from_the_start() -> None:
    """A turn takes its slots when it is created; otherwise thousands would be started for the same few slots."""

    async def scene() -> list[int]:
        slots = Slots(16)
        parts = Mock(slots=slots, turn_seconds=5.0)
        turns = [Turn(Hint(str(number), "w"), parts) for number in range(3)]
        left = slots.free("another", "w")
        for turn in turns:
            turn._until = 0.0
            await turn.run()
        return [left, slots.taken]

    assert [0, 0] == asyncio.run(scene())
