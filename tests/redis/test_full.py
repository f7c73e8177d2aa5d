"""A Redis at maxmemory: what was accepted goes on, nothing new is taken."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dispatcher.errors import RedisFull
from dispatcher.rules.outcomes import EndpointHealth, Failed, Retry, State
from dispatcher.store.arguments import HINT_MS, ToAccept
from dispatcher.worker.recorder import Recorder
from tests.messages import change
from tests.world import TOKEN, World, callback


@contextmanager
def full(world: World) -> Iterator[None]:
    """Redis is full while the block runs."""
    world.call("config_set", "maxmemory", "1")
    try:
        yield
    finally:
        world.call("config_set", "maxmemory", "0")


def test_accepted_callbacks_end(world: World) -> None:
    """Claim, settle, wake and expire work, with every outcome, when Redis is full."""
    world.accept(
        *[callback(f"e{n}", message=f"m{n}") for n in range(4)], callback("old", message="m9", ttl_ms=1)
    )
    with full(world):
        world.now += HINT_MS
        assert 1 == world.run(world.ledger.expire())
        hints = world.run(world.ledger.wake(100, "w1", "{}")).hints
        assert 1 == len(hints)
        one, two = world.claim().callbacks
        assert world.settle(one.event_id, one.claim, health=EndpointHealth.UP)[1]
        assert world.settle(two.event_id, two.claim, Retry(0), error="http_500")[1]
        three, *_ = world.claim().callbacks
        assert world.settle(three.event_id, three.claim, Failed(), error="http_410")[1]
    assert State.EXPIRED == world.event("old").state
    assert State.DELIVERED == world.event(one.event_id).state
    world.now += world.ledger.options.lease_ms
    for lost in world.run(world.ledger.wake()).lost:
        world.settle(lost.event_id, lost.claim, Retry(0), error="worker_lost", losses=1)
    world.deliver_all()


def test_accept_and_reject_refuse(world: World) -> None:
    """Accept and reject refuse whole, and say that Redis is full."""
    [entry] = world.enqueued(1)
    with full(world):
        with pytest.raises(RedisFull):
            world.accept(callback("e1"), entries=[entry])
        with pytest.raises(RedisFull):
            world.run(world.ledger.reject(TOKEN, [(entry, "invalid", "x", "", "")]))
    assert None is world.run(world.callbacks.get("acme", "e1"))
    assert [] == world.run(world.rejected.newest())


def test_what_takes_nothing_in_is_accepted(world: World) -> None:
    """Entries that cause no callback leave the queue when Redis is full too, and what they say is kept."""
    batch = ToAccept()
    Recorder(60_000).add(batch, change("QUEUED"), "zeckta", 0)
    with full(world):
        accepted = world.run(world.ledger.accept(TOKEN, {}, [("1-1", "acme")], batch))
    assert ["recorded"] == accepted.recorded
    assert 1 == world.call("exists", world.keys.status("acme", "m1"))


def test_forward_refuses(world: World) -> None:
    """A full queue takes no entries of other partitions; what it took before is not refused when it is repeated."""
    known, new = ("1-0 a", b"a"), ("1-1 b", b"b")
    world.run(world.ledger.forward(3, [known]))
    with full(world):
        assert 0 == world.run(world.ledger.forward(3, [known], ["0-1 g"]))
        with pytest.raises(RedisFull):
            world.run(world.ledger.forward(3, [known, new]))
    assert 1 == world.run(world.ledger.forward(3, [known, new]))
    assert 2 == world.call("xlen", world.keys.events)


def test_forwarded_entries_make_room(world: World) -> None:
    """What is on another partition's queue leaves this one when Redis is full."""
    entries = world.enqueued(2)
    with full(world):
        world.run(world.ledger.forwarded(TOKEN, entries))
    assert 0 == world.call("xlen", world.keys.events)


def test_delivered_bodies_make_room(world: World) -> None:
    """While accept is refused, a delivered body is deleted at once; a failed one is kept for its retention."""
    world.accept(callback("e1"), callback("e2", message="m2"))
    with full(world):
        assert 0 == world.lead(full=True)
        one, two = world.claim().callbacks
        world.settle(one.event_id, one.claim)
        world.settle(two.event_id, two.claim, Failed(), error="http_410")
    assert [0, 1] == [world.call("exists", world.keys.body("acme", e)) for e in (one.event_id, two.event_id)]


def test_leading_works(world: World) -> None:
    """The lease of intake is renewed when Redis is full, or no one could say that there is room again."""
    with full(world):
        assert 0 == world.lead()
