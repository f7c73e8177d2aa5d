"""Keys that were written over by hand with another type: others are unharmed, and nothing stays stuck."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dispatcher.errors import RedisUnavailable
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import Retry, State
from dispatcher.store.arguments import ToAccept
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys, endpoint_id
from dispatcher.store.wire import Wire
from dispatcher.worker.sweeper import Sweeper
from tests.world import TOKEN, World, callback

A, B = "acme https://a.example:443", "beta https://b.example:443"
KEYS = Keys()
NOT_NEEDED: dict[str, Callable[[World], str]] = {
    "counters of the minute": lambda world: KEYS.stats("minute", world.now // 60_000),
    "counters of the hour": lambda world: KEYS.stats("hour", world.now // 3_600_000),
    "counters of the day": lambda world: KEYS.stats("day", world.now // 86_400_000),
    "list of ends": lambda _: KEYS.ended("acme", "failed"),
    "list of endpoints": lambda _: KEYS.endpoints,
    "counts of rejections": lambda _: KEYS.rejected_counts,
}
SHARED = {
    "expiries": KEYS.expiries,
    "schedule": KEYS.schedule,
    "rejected": KEYS.rejected,
    "workers": KEYS.workers,
}
OF_ONE = {
    "lane": KEYS.lane,
    "leased": KEYS.leased,
    "endpoint": KEYS.endpoint,
    "schedule": lambda _: KEYS.schedule_of("acme"),
}


@pytest.fixture
def world(redis_url: str) -> Iterator[World]:
    """A ledger on the real server whose intake is led by the test; its sweeper hears of what breaks."""
    client = connect_async(redis_url)
    wire = Wire(client)
    world = World(client, wire)
    world.lead()
    world.sweeper = Sweeper(world.endpoints, world.ledger)  # type: ignore[attr-defined]
    yield world
    world.close()


def sweep(world: World) -> None:
    """Mends what was met, and looks at everything."""
    sweeper: Any = world.sweeper  # type: ignore[attr-defined]
    while not world.run(sweeper.step()):
        pass


def entries(world: World, count: int) -> list[str]:
    """Entries on the queue that were read."""
    made = [world.call("xadd", KEYS.events, {"event": f"x{n}"}).decode() for n in range(count)]
    world.call("xreadgroup", "workers", "intake", {KEYS.events: ">"})
    return made


def accept(world: World, made: list[str], *callbacks: Any) -> list[str]:
    """A word for each."""
    batch = ToAccept(zip(made, callbacks, strict=True))
    return world.run(world.ledger.accept(TOKEN, {}, [], batch)).words


@pytest.mark.parametrize("name", NOT_NEEDED)
def test_what_is_not_needed_stops_nothing(world: World, name: str) -> None:
    """Callbacks are accepted, delivered, retried and failed while a key that only people look at is broken."""
    key = NOT_NEEDED[name](world)
    world.call("set", key, "by hand")
    made = entries(world, 3)
    known = callback("e2", message="m2")
    assert ["accepted"] * 3 == accept(
        world, made, callback("e1"), known, callback("e3", message="m3", ttl_ms=5)
    )
    assert ["conflict"] == accept(world, entries(world, 1), callback("e2", message="m2", digest="x"))
    world.now += 5
    world.run(world.ledger.expire())
    assert State.EXPIRED is world.event("e3").state
    one, two = world.claim().callbacks
    assert (True, True) == (world.settle(one.event_id, one.claim)[1], True)
    world.settle(two.event_id, two.claim, Retry(0), error="http_500")
    world.deliver_all()
    assert [State.DELIVERED] * 2 == [world.event(event_id).state for event_id in ("e1", "e2")]
    assert 0 == world.call("xlen", KEYS.events)


@pytest.mark.parametrize("name", SHARED)
def test_shared_key_is_mended(world: World, name: str) -> None:
    """A key that all need is set aside as soon as a script meets it; what was in it is put back, and nothing is lost."""
    world.accept(callback("before"), callback("other", endpoint=B))
    world.call("delete", SHARED[name])
    world.call("set", SHARED[name], "by hand")
    made = entries(world, 2)
    new = callback("new", message="m2"), callback("other", endpoint=B, digest="x")
    try:
        first = accept(world, made, *new)
    except RedisUnavailable:
        first = []
    try:
        world.run(world.ledger.wake(16, "w1", "{}"))
        world.run(world.ledger.expire())
    except RedisUnavailable:
        pass
    sweep(world)
    words = first if first and "broken" not in first else accept(world, made, *new)
    assert "broken" not in words
    assert b"by hand" == world.call("get", f"{KEYS.root}aside:{name}")
    sweep(world)
    world.now += 10_000
    hints = world.run(world.ledger.wake(16)).hints
    assert {endpoint_id(A), endpoint_id(B)} == {hint.endpoint for hint in hints}
    assert {"before", "new", "other"} == set(world.deliver_all(A, B))
    assert 0 == world.call("xlen", KEYS.events)


@pytest.mark.parametrize("kind", OF_ONE)
def test_key_of_one_endpoint(world: World, kind: str) -> None:
    """Another endpoint's callbacks are accepted, woken and delivered meanwhile; its own are put back by the sweep."""
    world.accept(callback("before"), callback("quiet", endpoint=B))
    key = OF_ONE[kind](endpoint_id(A))
    world.call("delete", key)
    world.call("set", key, "by hand")
    made = entries(world, 2)
    new = callback("new", message="m2"), callback("second", endpoint=B, message="m3")
    assert ["broken", "accepted"] == accept(world, made, *new)
    assert [made[0]] == [entry.decode() for entry, _ in world.call("xrange", KEYS.events)], (
        "it stays on the queue"
    )
    world.now += 10_000
    world.run(world.ledger.wake(16))
    assert {"quiet", "second"} == set(world.deliver_all(B))
    sweep(world)
    assert accept(world, made[:1], new[0])[0] in ("accepted", "duplicate"), "the sweep may have put it back"
    assert 0 == world.call("xlen", KEYS.events)
    sweep(world)
    assert {"before", "new"} == set(world.deliver_all(A))
    day = world.run(world.stats.day(world.now))
    assert day["setAside"] >= 1


def test_entry_that_cannot_be_kept_stays(world: World) -> None:
    """What cannot be used is not dropped where it cannot be kept either."""
    world.call("set", KEYS.rejected, "by hand")
    made = entries(world, 1)
    rejected = [(made[0], "invalid", "why", "acme", "e1")]
    assert made == world.run(world.ledger.reject(TOKEN, rejected))
    assert 1 == world.call("xlen", KEYS.events)
    sweep(world)
    assert [] == world.run(world.ledger.reject(TOKEN, rejected))
    assert [made[0]] == [one.entry for one in world.run(world.rejected.newest())]


@pytest.mark.parametrize("key", [KEYS.forwarded, KEYS.events])
def test_forwarding_into_a_broken_key(world: World, key: str) -> None:
    """Nothing is put on the queue while it or what it remembers is broken; then that is mended, and everything is."""
    world.call("set", key, "by hand")
    entries = [("1-0 a", b"a"), ("1-1 b", b"b")]
    with pytest.raises(RedisUnavailable):
        world.run(world.ledger.forward(3, entries))
    assert b"by hand" == world.call("get", key)
    sweep(world)
    assert 2 == world.run(world.ledger.forward(3, entries))
    assert [b"a", b"b"] == [fields[b"event"] for _, fields in world.call("xrange", KEYS.events)]


def test_pending_and_nowhere(world: World) -> None:
    """A callback whose lane lost it is put back, counted and said, and a chain whose head has ended lets the next one go."""
    world.accept(callback("lost"), callback("head", message="m2"), callback("behind", message="m2"))
    world.call("zrem", KEYS.lane(endpoint_id(A)), "lost")
    raw = world.call("get", KEYS.event("acme", "head"))
    ended = raw.replace(b" pending ", b" failed ").replace(b" -", b" 5")
    world.call(
        "set", KEYS.event("acme", "head"), ended, px=60_000
    )  # as a transaction that was torn leaves it
    world.call("zrem", KEYS.lane(endpoint_id(A)), "head")
    world.call("zrem", KEYS.expiries, "acme:head")
    assert [] == world.claim().callbacks
    sweep(world)
    assert {"lost", "behind"} == set(world.deliver_all(A))
    assert 1 == world.run(world.stats.day(world.now))["putBack"]


def test_next_status_does_not_wait_for_what_has_ended(world: World) -> None:
    """Where a chain's head has ended, the next status of the message does not wait for the sweep, nor for 48 hours."""
    world.accept(callback("head"), callback("behind"))
    raw = world.call("get", KEYS.event("acme", "head"))
    ended = raw.replace(b" pending ", b" failed ").replace(b" -", b" 5")
    world.call("set", KEYS.event("acme", "head"), ended, px=60_000)
    world.call("zrem", KEYS.lane(endpoint_id(A)), "head")
    world.accept(callback("newest"))
    assert ["behind", "newest"] == world.deliver_all(A)


def test_sweeper_survives(world: World) -> None:
    """It goes on sweeping while it leads, whatever it meets."""
    world.accept(callback("lost"))
    world.call("zrem", KEYS.lane(endpoint_id(A)), "lost")
    sweeper: Any = world.sweeper  # type: ignore[attr-defined]

    async def work() -> None:
        task = asyncio.create_task(sweeper.run(lambda: True, asyncio.Event()))
        async with asyncio.timeout(20):
            while not await world.client.zcard(KEYS.lane(endpoint_id(A))):
                await asyncio.sleep(0.01)
        task.cancel()

    world.run(work())
    assert ["lost"] == world.deliver_all(A)


def test_chain_that_is_healed_without_a_lane(world: World) -> None:
    """An endpoint of which a healed chain puts one into the lane is looked at again, also where there was room for the new one."""
    world.accept(callback("head"), callback("behind"))
    raw = world.call("get", KEYS.event("acme", "head"))
    ended = raw.replace(b" pending ", b" failed ").replace(b" -", b" 5")
    world.call("set", KEYS.event("acme", "head"), ended, px=60_000)
    world.call("delete", KEYS.lane(endpoint_id(A)))
    world.accept(callback("newest"), claim=10)
    given = [one.event_id for _, claim in world.claims for one in claim.callbacks]
    scheduled = world.call("zscore", KEYS.schedule_of("acme"), endpoint_id(A))
    assert "behind" in given or scheduled is not None


def test_endpoint_whose_record_is_gone(world: World) -> None:
    """A wake passes it over and finds the others; the sweep gives it its name again."""
    world.accept(callback("e1"), callback("other", endpoint=B))
    world.call("delete", KEYS.endpoint(endpoint_id(A)))
    world.now += 10_000
    assert [endpoint_id(B)] == [hint.endpoint for hint in world.run(world.ledger.wake()).hints]
    sweep(world)
    world.now += 10_000
    assert ["e1"] == world.deliver_all(A)


def test_name_that_cannot_be_told(world: World) -> None:
    """An endpoint is not given a name by a callback without a body, or by one that goes elsewhere."""
    world.accept(callback("e1"), callback("other", endpoint=B))
    world.call("delete", KEYS.endpoint(endpoint_id(A)), KEYS.body("acme", "e1"))
    assert not world.run(world.endpoints.restore(endpoint_id(A), "acme", "e1", world.now))
    assert not world.run(world.endpoints.restore(endpoint_id(A), "beta", "other", world.now))
    assert None is world.run(world.endpoints.get(EndpointName.parse(A)))
