"""What an operator does to callbacks: replay, move, cancel, requeue, forget; and what can be listed."""

import dataclasses

import pytest
from msgspec import structs

from dispatcher.rules.outcomes import (
    Attempt,
    Delivered,
    EndpointHealth,
    Expired,
    Failed,
    Outcome,
    Released,
    Retry,
    State,
)
from dispatcher.store.callbacks import Passed
from dispatcher.store.keys import endpoint_id
from dispatcher.store.replies import Ended, Hint, Settlement, ToSettle
from dispatcher.store.stats import Figures
from dispatcher.store.stored_callback import Waiting
from tests.world import START_MS, World, callback

A = "acme https://a.example:443"
DAY_MS = 86_400_000


def end(world: World, outcome: Outcome, *event_ids: str, error: str | None = "http_500") -> None:
    """Accepts and ends callbacks, each of a message of its own."""
    for event_id in event_ids:
        world.accept(callback(event_id, message=f"of-{event_id}", timestamp_ms=world.now))
        (one,) = world.claim().callbacks
        world.settle(event_id, one.claim, outcome, error=error)


def listed(world: World, state: State, since_ms: int = 0, until_ms: int | None = None) -> list[str]:
    """EventIds of those that ended so."""

    async def read() -> list[str]:
        found = world.callbacks.ended(["acme", "beta"], state, since_ms, until_ms)
        return [event.event_id async for event in found]

    return world.run(read())


def replay(world: World, event_id: str, **how: int | str) -> str:
    """The ledger's word."""
    return world.run(world.ledger.replay("acme", event_id, **how))  # type: ignore[arg-type]


def test_a_list_that_gets_shorter_while_it_is_read(world: World) -> None:
    """As when each is replayed, or purged, as it comes: none of the others is passed over."""
    for first in range(0, 300, 100):
        ids = [f"e{number}" for number in range(first, first + 100)]
        world.accept(*(callback(one, message=f"of-{one}") for one in ids))
        while claimed := world.claim(count=500).callbacks:
            for one in claimed:
                world.settle(one.event_id, one.claim, Failed(), error="http_500")
        world.now += 1
    key = world.keys.ended("acme", State.FAILED)

    async def read() -> list[str]:
        found: list[str] = []
        async for one in world.callbacks.ended(["acme", "beta"], State.FAILED):
            found.append(one.event_id)
            await world.client.zrem(key, one.event_id)
        return found

    assert sorted(f"e{number}" for number in range(300)) == sorted(world.run(read()))


@pytest.mark.parametrize("outcome", [Failed(), Expired(), Delivered()])
def test_replay(world: World, outcome: Outcome) -> None:
    """A callback that has ended goes out again under its eventId, with fresh attempts, a new expiry and its history."""
    end(world, outcome, "e1", error=None if isinstance(outcome, Delivered) else "http_500")
    world.now += 1000
    assert "replayed" == replay(world, "e1", ttl_ms=5000)
    event = world.event("e1")
    assert (State.PENDING, 1, world.now + 5000, None) == (
        event.state,
        event.attempts_before,
        event.expires_ms,
        event.ended_ms,
    )
    assert [] == listed(world, State.FAILED) + listed(world, State.EXPIRED)
    (one,) = world.claim().callbacks
    assert (1, b"x" * 20) == (one.attempt, one.body)
    world.settle("e1", one.claim, Retry(1000), error="http_503")
    world.now += 1000
    (again,) = world.claim().callbacks
    assert 2 == again.attempt
    world.settle("e1", again.claim)
    event = world.event("e1")
    assert (State.DELIVERED, 3) == (event.state, len(event.attempts))


def test_replay_as_a_copy(world: World) -> None:
    """A copy has an eventId of its own and the same bytes; the original stays as it ended."""
    end(world, Failed(), "e1")
    assert "replayed" == replay(world, "e1", copy="e1b")
    original, copy = world.event("e1"), world.event("e1b")
    assert (State.FAILED, "e1b") == (original.state, original.replayed_as)
    assert (State.PENDING, "e1", 0) == (copy.state, copy.replay_of, len(copy.attempts))
    assert ["e1", "e1b"] == [e.event_id for e in world.run(world.callbacks.of_message("acme", "of-e1"))]
    assert "not_ended" == replay(world, "e1", copy="e1b"), "the copy's eventId is taken"
    assert ["e1b"] == world.deliver_all()


def test_what_is_not_replayed(world: World) -> None:
    """Unknown, not ended, without a body: each is refused by its word, and nothing changes."""
    assert "unknown" == replay(world, "e1")
    world.accept(callback("e1"))
    assert "not_ended" == replay(world, "e1")
    world.deliver_all()
    world.call("delete", world.keys.body("acme", "e1"))
    assert "no_body" == replay(world, "e1")
    assert State.DELIVERED is world.event("e1").state


def test_replay_of_an_older_status(world: World) -> None:
    """Where the order is `latest`, what a newer status superseded is not replayed: it would arrive after it."""
    world.call("hset", world.keys.workspace("acme"), "ordering", "latest")
    world.accept(callback("old", timestamp_ms=START_MS - 1000))
    world.accept(callback("new", timestamp_ms=START_MS))
    assert ["new"] == world.deliver_all()
    assert "superseded" == replay(world, "old")
    assert "replayed" == replay(world, "new")
    assert ["new"] == world.deliver_all()


def test_a_copy_does_not_break_the_order(world: World) -> None:
    """A later callback of the message waits for the one before it, not for a copy between them."""
    world.accept(callback("e1"))
    (one,) = world.claim().callbacks
    world.settle("e1", one.claim, Failed(), error="http_410")
    world.accept(callback("e2"))
    replay(world, "e1", copy="e1b", in_ms=5000)
    world.accept(callback("e3"))
    assert ["e2"] == [one.event_id for one in world.claim().callbacks]
    world.settle("e2", 1)
    assert ["e3"] == world.deliver_all()
    world.now += 5000
    assert ["e1b"] == world.deliver_all()


def test_replay_leaves_room_for_what_is_new(world: World) -> None:
    """Where a limit is set, replayed callbacks take at most half of it."""
    end(world, Failed(), *(f"e{n}" for n in range(6)))
    world.ledger.options = dataclasses.replace(world.ledger.options, max_waiting=8)
    words = [replay(world, f"e{n}") for n in range(6)]
    assert ["replayed"] * 4 + ["full"] * 2 == words
    assert ["accepted"] == world.accept(callback("new", message="m9"))[1]
    world.deliver_all()


def test_replay_is_paced(world: World) -> None:
    """A replayed callback is due when it is told; what comes meanwhile goes before it."""
    end(world, Failed(), "e1")
    replay(world, "e1", in_ms=60_000)
    world.accept(callback("live", message="m2"))
    assert ["live"] == world.deliver_all()
    world.now += 60_000
    assert [Hint(endpoint_id(A), "acme")] == world.run(world.ledger.wake()).hints
    assert ["e1"] == world.deliver_all()


def test_a_worker_dies_with_a_replayed_callback(world: World) -> None:
    """Attempts and losses from before the replay do not count."""
    end(world, Failed(), "e1", error="worker_lost")
    replay(world, "e1")
    world.claim()
    world.now += world.ledger.options.lease_ms
    (lost,) = world.run(world.ledger.wake()).lost
    assert (1, 0) == (lost.attempt, lost.lost_before)
    world.settle("e1", lost.claim)


def test_lists_of_ends(world: World) -> None:
    """What failed, expired or was superseded is listed, the latest first, by time, and forgotten after the retention."""
    end(world, Failed(), "f1", "f2")
    world.now += 5000
    end(world, Failed(), "f3")
    end(world, Expired(), "x1")
    assert ["f3", "f2", "f1"] == listed(world, State.FAILED)
    assert ["f3"] == listed(world, State.FAILED, since_ms=world.now)
    assert ["f2", "f1"] == listed(world, State.FAILED, until_ms=world.now - 1)
    assert ["x1"] == listed(world, State.EXPIRED)
    world.now += world.ledger.options.retention_ms + 1
    end(world, Failed(), "f4")
    assert 1 == world.call("zcard", world.keys.ended("acme", "failed"))


def test_ends_are_told(world: World) -> None:
    """Whatever script ends a callback otherwise than delivered, the worker that ran it is told, with the last attempt."""
    told: list[Ended] = []
    world.ledger._on_end = told.append
    end(world, Failed(), "failed")
    world.accept(callback("expired", ttl_ms=1000, message="m2"))
    world.now += 2000
    world.run(world.ledger.expire())
    world.accept(callback("claimed", ttl_ms=3000, message="m3"))
    world.now += 3000
    world.claim()
    world.call("hset", world.keys.workspace("acme"), "ordering", "latest")
    world.accept(callback("new", message="m4"), callback("old", message="m4", timestamp_ms=START_MS - 1))
    assert [("failed", "failed"), ("expired", "expired"), ("claimed", "expired"), ("old", "superseded")] == [
        (one.event_id, one.state.value) for one in told
    ]
    assert ("https://a.example:443", "http_500") == (told[0].endpoint, told[0].last and told[0].last.error)
    world.deliver_all()


def test_waiting_is_listed(world: World) -> None:
    """What waits is listed, chained ones too: of all, of a workspace, to an endpoint."""
    world.accept(
        callback("e1"), callback("e2"), callback("b1", endpoint="beta https://b.example:443", ttl_ms=1000)
    )

    def waiting(*of: str) -> list[str]:
        async def read() -> list[str]:
            found = [one async for one in world.callbacks.waiting(*of)]
            return [one.event_id for one in found if not isinstance(one, Passed)]

        return world.run(read())

    assert ["b1", "e1", "e2"] == waiting()
    assert ["e1", "e2"] == waiting("acme") == waiting("acme", endpoint_id(A))
    assert [] == waiting("acme", endpoint_id("acme https://other.example:443"))
    world.deliver_all(A, "beta https://b.example:443")
    assert [] == waiting()


B = "acme https://b.example:443"


def move(world: World, *event_ids: str, to: str = B, from_url: str = "https://a.example/hooks") -> int:
    """How many were moved."""
    return world.run(
        world.ledger.move("acme", from_url, "https://b.example/new", to, [Waiting(one) for one in event_ids])
    )


def test_move(world: World) -> None:
    """Waiting callbacks go to another URL, with their due times, attempts and order; what is being sent is left alone."""
    world.accept(callback("s", message="m0"))
    (sent,) = world.claim(count=1).callbacks
    world.accept(*[callback(f"e{n}", message="m1") for n in range(3)], callback("x", message="m2"))
    waiting = ["e0", "e1", "e2", "x"]
    assert 4 == move(world, "s", "e0", "e1", "e2", "x", "unknown")
    assert [] == world.claim(count=4).callbacks
    moved = world.claim(B, 4).callbacks
    assert [("https://b.example/new", b"x" * 20)] * len(moved) == [(one.url, one.body) for one in moved]
    for one in moved:
        world.settle(one.event_id, one.claim, endpoint=B)
    delivered = [one.event_id for one in moved] + world.deliver_all(B)
    assert waiting == sorted(delivered)
    of_m1 = [event_id for event_id in delivered if event_id != "x"]
    assert sorted(of_m1) == of_m1
    world.settle(sent.event_id, sent.claim)


def test_move_behind_one_that_waits_there(world: World) -> None:
    """A callback of a message of which one waits at the new endpoint already goes after that."""
    world.accept(callback("there", endpoint=B))
    world.accept(callback("moved"))
    assert 1 == move(world, "moved")
    assert ["there"] == [one.event_id for one in world.claim(B, 4).callbacks]
    world.settle("there", 1, endpoint=B)
    assert ["moved"] == world.deliver_all(B)


def test_move_leaves_other_urls_alone(world: World) -> None:
    """What a status change sent to a URL of its own stays there."""
    world.accept(callback("e1"))
    assert 0 == move(world, "e1", from_url="https://a.example/other")
    assert ["e1"] == world.deliver_all()


def test_move_of_an_older_status(world: World) -> None:
    """With `latest`, one that waits while a newer status went to the new endpoint ends superseded there."""
    world.call("hset", world.keys.workspace("acme"), "ordering", "latest")
    world.accept(callback("old", timestamp_ms=START_MS - 1000))
    world.accept(callback("new", endpoint=B))
    assert ["new"] == world.deliver_all(B)
    move(world, "old")
    assert State.SUPERSEDED is world.event("old").state
    assert [] == world.deliver_all(A, B)


def test_move_of_one_that_retries(world: World) -> None:
    """It keeps its due time and its attempts."""
    world.accept(callback("e1"))
    (one,) = world.claim().callbacks
    world.settle("e1", one.claim, Retry(5000), error="http_503")
    assert 1 == move(world, "e1")
    assert [] == world.claim(B).callbacks
    world.now += 5000
    (again,) = world.claim(B).callbacks
    assert 2 == again.attempt
    world.settle("e1", again.claim, endpoint=B)


def test_move_within_an_endpoint(world: World) -> None:
    """Where only the path changes, the callback stays where it is in its lane."""
    world.accept(callback("e1"))
    assert 1 == move(world, "e1", to=A)
    (moved,) = world.claim().callbacks
    assert "https://b.example/new" == moved.url
    world.settle("e1", moved.claim)


def cancel(world: World, *event_ids: str) -> int:
    """How many were cancelled."""
    return world.run(world.ledger.cancel(endpoint_id(A), [Waiting(one) for one in event_ids]))


@pytest.mark.parametrize("does", ["cancel", "move"])
def test_a_callback_that_was_replayed_since_it_was_chosen(world: World, does: str) -> None:
    """What was chosen to be cancelled or moved, and ended and was replayed meanwhile, is left alone."""
    world.accept(callback("e1"), callback("e2", message="m2"))
    chosen = [Waiting(one, world.event(one).expires_ms) for one in ("e1", "e2")]
    assert 1 == cancel(world, "e1")
    world.now += 1
    assert "replayed" == replay(world, "e1")

    def act() -> int:
        if does == "cancel":
            return world.run(world.ledger.cancel(endpoint_id(A), chosen))
        url = "https://b.example/new"
        return world.run(world.ledger.move("acme", "https://a.example/hooks", url, B, chosen))

    assert [1, 0] == [act(), act()] if does == "cancel" else 1 == act()
    assert "https://a.example:443" == world.event("e1").endpoint
    assert world.event("e1").state is State.PENDING
    assert (State.FAILED if does == "cancel" else State.PENDING) is world.event("e2").state


def test_cancel(world: World) -> None:
    """Waiting callbacks end as failed by the operator; what is in a worker's hands is left alone."""
    world.accept(*[callback(f"e{n}", message="m1") for n in range(3)], callback("x", message="m2"))
    (one,) = world.claim(count=1).callbacks
    assert 3 == cancel(world, "e0", "e1", "e2", "x", "unknown")
    assert {"e0", "e1", "e2", "x"} - {one.event_id} == set(listed(world, State.FAILED))
    event = world.event("e2")
    assert (True, State.FAILED) == (event.cancelled, event.state)
    assert 0 == cancel(world, "e1", "x"), "they have ended"
    world.settle(one.event_id, one.claim)
    assert "replayed" == replay(world, "e2")
    assert ["e2"] == world.deliver_all()


def test_forget(world: World) -> None:
    """What has ended can be removed from the ledger; what has not stays."""
    end(world, Failed(), "e1")
    world.accept(callback("e2"))
    assert 1 == world.run(world.ledger.forget("acme", ["e1", "e2", "unknown"]))
    assert None is world.run(world.callbacks.get("acme", "e1"))
    assert [] == listed(world, State.FAILED)
    assert ["e2"] == world.deliver_all()


def test_an_event_id_that_was_forgotten_happens_again(world: World) -> None:
    """Nothing of it is left that its namesake could wait for."""
    world.accept(callback("e1"))
    (one,) = world.claim().callbacks
    world.settle("e1", one.claim, Failed(), error="http_410")
    world.run(world.ledger.forget("acme", ["e1"]))
    world.accept(callback("e1"))
    assert ["e1"] == world.deliver_all()
    assert 1 == len(world.run(world.callbacks.of_message("acme", "m1")))


def test_an_event_id_that_outlived_its_event(world: World) -> None:
    """Where its message still names it, it does not wait for itself."""
    world.accept(callback("e1"))
    world.deliver_all()
    world.call("delete", world.keys.event("acme", "e1"))
    world.accept(callback("e1"))
    assert ["e1"] == world.deliver_all()
    assert 1 == len(world.run(world.callbacks.of_message("acme", "m1")))


def test_an_answer_does_not_stay_for_ever(world: World) -> None:
    """A callback whose only answer came before it was given back past its expiry leaves no key behind."""
    world.accept(callback("e1", ttl_ms=10_000))
    (one,) = world.claim().callbacks
    attempt = Attempt(world.now, 5, 500, "http_500", answer=b"no")
    first = Settlement("e1", one.claim, Retry(1000), attempt, EndpointHealth.NONE)
    world.run(world.ledger.settle([ToSettle(endpoint_id(A), [first])]))
    world.now += 1000
    (again,) = world.claim().callbacks
    world.settle("e1", again.claim, Released(20_000))
    assert State.EXPIRED is world.event("e1").state


def test_requeue(world: World) -> None:
    """Rejected entries go back on the queue as they came, once; one that was kept only in part stays."""
    world.call("xadd", world.keys.events, {"event": b"{}"}, id="5-1")
    world.call("xadd", world.keys.events, {"event": b"x" * 70_000}, id="5-2")
    world.run(
        world.ledger.reject("leader", [("5-1", "invalid", "why", "", ""), ("5-2", "invalid", "why", "", "")])
    )
    ids = [entry.id for entry in world.run(world.rejected.newest())]
    assert (1, 1) == world.run(world.ledger.requeue(ids))
    assert (0, 2) == world.run(world.ledger.requeue(ids))
    assert [{b"event": b"{}"}] == [fields for _, fields in world.call("xrange", world.keys.events)]


def test_stats(world: World) -> None:
    """What happened is counted for all, each workspace and each endpoint, with how long deliveries took."""
    end(world, Failed(), "f1")
    for number, took in enumerate([100] * 18 + [5000] * 2):
        world.accept(callback(f"e{number}", message=f"n{number}"))
        (one,) = world.claim().callbacks
        world.now += took
        world.settle(one.event_id, one.claim, health=EndpointHealth.UP)
    figures = world.run(world.stats.workspaces(world.now, 2))["acme"]
    assert (21, 20, 1) == tuple(figures.counts[name] for name in ("accepted", "delivered", "failed"))
    assert 20 / 21 == figures.success_rate
    assert 100 == pytest.approx(figures.percentile_ms(0.5), rel=0.1)
    assert 5000 == pytest.approx(figures.percentile_ms(0.99), rel=0.1)
    assert {"delivered": 20, "failed": 1} == world.run(world.stats.endpoints(world.now, 2))[endpoint_id(A)]
    assert (20, 1) == tuple(world.run(world.stats.day(world.now))[name] for name in ("delivered", "failed"))


def test_average_time_to_delivered(world: World) -> None:
    """It is of the messages whose status change says when they were submitted."""
    took = [
        structs.replace(callback(f"e{n}", message=f"m{n}"), to_delivered_ms=ms)
        for n, ms in enumerate((1000, 4000, None))
    ]
    world.accept(*took)
    figures = world.run(world.stats.workspaces(world.now, 1))["acme"]
    assert 2.5 == figures.average_seconds_to_delivered
    assert None is Figures().average_seconds_to_delivered
    world.deliver_all()


def test_down_since(world: World) -> None:
    """An endpoint is down from the first pause of its breaker until a probe is answered."""
    world.accept(*[callback(f"e{n}", message=f"m{n}") for n in range(12)])
    for _ in range(10):
        (one,) = world.claim(count=1).callbacks
        world.settle(one.event_id, one.claim, Retry(DAY_MS), error="timeout", health=EndpointHealth.DOWN)
    began = world.now
    assert world.settled
    assert began == world.settled.down_since_ms
    world.now = world.settled.paused_until_ms
    (probe,) = world.claim().callbacks
    world.settle(probe.event_id, probe.claim, Retry(DAY_MS), error="timeout", health=EndpointHealth.DOWN)
    assert began == world.settled.down_since_ms
    assert [(True, began)] == [(e.is_down, e.down_since_ms) for e in world.run(world.endpoints.all())]
    world.now = world.settled.paused_until_ms
    (probe,) = world.claim().callbacks
    world.settle(probe.event_id, probe.claim, health=EndpointHealth.UP)
    assert [False] == [endpoint.is_down for endpoint in world.run(world.endpoints.all())]
    world.now += DAY_MS
    world.deliver_all()


def test_a_replay_of_an_end_that_was_followed_by_another(world: World) -> None:
    """What two people chose at the same time goes out once: the second replay names an end that is no longer the last."""
    end(world, Failed(), "e1")
    chosen = world.event("e1").ended_ms or 0
    world.now += 1000
    assert "replayed" == replay(world, "e1", ended_ms=chosen)
    assert "not_ended" == replay(world, "e1", ended_ms=chosen)
    (one,) = world.claim().callbacks
    world.settle("e1", one.claim, Delivered(), error=None)
    assert "ended_again" == replay(world, "e1", ended_ms=chosen)
    assert [] == world.claim().callbacks
    assert "replayed" == replay(world, "e1", ended_ms=world.event("e1").ended_ms or 0)
