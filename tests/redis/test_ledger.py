"""The scripts, one by one, on a real server."""

import dataclasses

import pytest
from msgspec.structs import replace

from dispatcher.errors import InvalidInput, NotLeader
from dispatcher.rules.outcomes import (
    Attempt,
    Delivered,
    EndpointHealth,
    Expired,
    Failed,
    Released,
    Retry,
    State,
)
from dispatcher.store.arguments import HINT_MS, ToAccept
from dispatcher.store.keys import Keys, endpoint_id
from dispatcher.store.replies import Hint, Settlement, Stopped, ToSettle
from dispatcher.store.wire import Argument
from tests.world import START_MS, TOKEN, World, callback

A = "acme https://a.example:443"
B = "beta https://b.example:443"


def test_accepted_once(world: World) -> None:
    """The same eventId again is a duplicate, with other content a conflict, and the first one stands."""
    assert ["accepted"] == world.accept(callback("e1"))[1]
    assert ["duplicate", "conflict"] == world.accept(callback("e1"), callback("e1", digest="other"))[1]
    assert ["e1"] == world.deliver_all()
    assert ["duplicate"] == world.accept(callback("e1"))[1]
    assert ["conflict"] == [entry.reason for entry in world.run(world.rejected.newest())]
    assert {"accepted": 1, "duplicate": 2, "conflict": 1, "rejected": 1, "delivered": 1} == _counters(world)


def test_same_id_in_two_workspaces(world: World) -> None:
    """One workspace's eventId says nothing about another's."""
    assert ["accepted", "accepted"] == world.accept(callback("e1"), callback("e1", endpoint=B))[1]
    assert [["e1"], ["e1"]] == [world.deliver_all(A), world.deliver_all(B)]


def test_only_the_leader_accepts(world: World) -> None:
    """A reader that lost its lease changes nothing."""
    world.lead("leader", 0)
    world.lead("another")
    with pytest.raises(NotLeader):
        world.accept(callback("e1"))
    with pytest.raises(NotLeader):
        world.run(world.ledger.reject(TOKEN, [("1-1", "invalid", "x", "", "")]))
    assert None is world.run(world.callbacks.get("acme", "e1"))


def test_accept_refuses_an_old_workspace(world: World) -> None:
    """Of a batch only what was rendered before its workspace changed is left on the queue."""
    entries = [world.call("xadd", world.keys.events, {"event": "x"}).decode() for _ in range(4)]
    world.call("xreadgroup", "workers", "intake", {world.keys.events: ">"})
    for workspace in ("acme", "beta"):
        world.call("hset", world.keys.workspace(workspace), "revision", "r2")
    batch = ToAccept([(entries[0], callback("e1")), (entries[1], callback("e1", endpoint=B))])
    skipped = [(entries[2], "acme"), (entries[3], "beta")]
    accepted = world.run(world.ledger.accept(TOKEN, {"acme": "r1", "beta": "r2"}, skipped, batch))
    assert (["changed", "accepted"], ["acme"]) == (accepted.words, accepted.changed)
    assert None is world.run(world.callbacks.get("acme", "e1"))
    left = world.call("xrange", world.keys.events)
    assert [entries[0], entries[2]] == [entry.decode() for entry, _ in left]


def test_accept_takes_entries_off_the_queue(world: World) -> None:
    """Accepted, skipped and rejected entries leave the stream and the group's pending list."""
    entries = [world.call("xadd", world.keys.events, {"event": "x"}).decode() for _ in range(3)]
    world.call("xreadgroup", "workers", "intake", {world.keys.events: ">"})
    world.run(
        world.ledger.accept(TOKEN, {}, [(entries[0], "acme")], ToAccept([(entries[1], callback("e1"))]))
    )
    world.run(world.ledger.reject(TOKEN, [(entries[2], "invalid", "why", "acme", "e2")]))
    assert 0 == world.call("xlen", world.keys.events)
    assert 0 == world.call("xpending", world.keys.events, "workers")["pending"]
    (kept,) = world.run(world.rejected.newest())
    assert (entries[2], "invalid", "why", "acme", "e2", "x") == (
        kept.entry,
        kept.reason,
        kept.detail,
        kept.workspace,
        kept.event_id,
        kept.raw,
    )
    assert {"invalid": 1} == world.run(world.rejected.counts())
    world.deliver_all()


def test_hint_once(world: World) -> None:
    """An endpoint is hinted when it becomes ready, then not again for the time a hint holds."""
    first, _ = world.accept(callback("e1", message="m1"))
    second, _ = world.accept(callback("e2", message="m2"))
    assert [[endpoint_id(A)], []] == [first, second]
    world.now += HINT_MS
    assert [Hint(endpoint_id(A), "acme")] == world.run(world.ledger.wake()).hints
    assert [] == world.run(world.ledger.wake()).hints
    world.deliver_all()


def test_window_and_concurrency(world: World) -> None:
    """A window starts at 2, grows with successes, shrinks by half, and never passes max_concurrency."""
    world.call("hset", world.keys.workspace("acme"), "max_concurrency", 4)
    world.accept(*[callback(f"e{n}", message=f"m{n}") for n in range(30)])
    first = world.claim()
    assert (2, False) == (len(first.callbacks), first.more)
    for one in first.callbacks:
        world.settle(one.event_id, one.claim, health=EndpointHealth.UP)
    assert 4 == len(claimed := world.claim().callbacks)
    assert 0 == len(world.claim().callbacks)
    for one in claimed:
        world.settle(one.event_id, one.claim, health=EndpointHealth.UP)
    assert 4 == len(claimed := world.claim().callbacks)
    for one in claimed:
        world.settle(one.event_id, one.claim, health=EndpointHealth.DOWN)
    assert 1 == len(claimed := world.claim().callbacks)
    world.settle(claimed[0].event_id, claimed[0].claim)
    world.deliver_all()


def test_settle_says_more(world: World) -> None:
    """The settle that makes room for something due says so, once."""
    world.accept(*[callback(f"e{n}", message=f"m{n}") for n in range(3)])
    one, two = world.claim().callbacks
    assert (True, True) == world.settle(one.event_id, one.claim)
    assert (False, True) == world.settle(two.event_id, two.claim)
    world.deliver_all()


def test_accept_gives_what_is_ready(world: World) -> None:
    """Up to its window an endpoint's callbacks are leased as they are accepted; the others wait in its lane."""
    hints, _ = world.accept(*[callback(f"e{n}", message=f"m{n}") for n in range(3)], claim=3)
    [(_, claim)] = world.claims
    assert (["e0", "e1"], []) == ([one.event_id for one in claim.callbacks], hints)
    assert ["sending", "sending", "pending"] == [world.event(f"e{n}").state for n in range(3)]
    assert 1 == world.call("zcard", world.keys.lane(endpoint_id(A)))
    world.settle("e0", 1)
    world.settle("e1", 1)
    assert ["e2"] == world.deliver_all()


def test_settle_gives_the_next(world: World) -> None:
    """A settle claims as many as its caller asks for, where the window has room and nobody else was hinted."""
    world.accept(*[callback(f"e{n}", message=f"m{n}") for n in range(5)])
    one, two = world.claim().callbacks
    world.settle(one.event_id, one.claim, claim_next=3)
    assert world.settled.claim
    [three] = world.settled.claim.callbacks
    assert "e2" == three.event_id
    assert (True, True) == world.settle(two.event_id, two.claim)
    assert (False, True) == world.settle(three.event_id, three.claim, claim_next=3)
    assert world.settled.claim is None
    world.deliver_all()


def test_stale_settle(world: World) -> None:
    """A result whose lease was settled as lost is refused; the new owner's counts."""
    world.accept(callback("e1"))
    (old,) = world.claim().callbacks
    world.now += world.ledger.options.lease_ms
    (lost,) = world.run(world.ledger.wake()).lost
    assert ("e1", old.claim, 1, 0) == (lost.event_id, lost.claim, lost.attempt, lost.lost_before)
    assert world.settle("e1", lost.claim, Retry(0), error="worker_lost", losses=1)[1]
    (new,) = world.claim().callbacks
    assert 2 == new.attempt
    assert not world.settle("e1", old.claim)[1]
    assert "sending" == world.event("e1").state
    assert world.settle("e1", new.claim)[1]
    assert world.settle("e1", new.claim)[1], "told again, because its reply was lost"
    assert ["worker_lost", None] == [attempt.error for attempt in world.event("e1").attempts]


def test_retry_waits(world: World) -> None:
    """A retry is due after its delay, and its attempts are recorded with times."""
    world.accept(callback("e1"))
    (one,) = world.claim().callbacks
    world.settle("e1", one.claim, Retry(15_000), error="http_500")
    event = world.event("e1")
    assert (State.RETRYING, START_MS + 15_000) == (event.state, event.next_attempt_ms)
    world.now += 14_999
    assert [] == world.claim().callbacks
    world.now += 1
    assert [Hint(endpoint_id(A), "acme")] == world.run(world.ledger.wake()).hints
    assert ["e1"] == world.deliver_all()
    assert [START_MS, START_MS + 15_000] == [attempt.started_at_ms for attempt in world.event("e1").attempts]


def test_released_costs_nothing(world: World) -> None:
    """A callback given back has no attempt more, and is claimed again after its delay."""
    world.accept(callback("e1"))
    (one,) = world.claim().callbacks
    assert world.settle("e1", one.claim, Released(1000))[1]
    assert (State.PENDING, 0) == (world.event("e1").state, len(world.event("e1").attempts))
    world.now += 1000
    assert [1] == [again.attempt for again in world.claim().callbacks]
    world.settle("e1", 2, Failed(), error="http_410")


def test_first_attempts_in_order(world: World) -> None:
    """A later status of a message waits for the earlier one's first attempt, not for its retries."""
    world.accept(callback("e1"), callback("e2"), callback("e3", message="m2"))
    claimed = {one.event_id: one.claim for one in world.claim().callbacks}
    assert {"e1", "e3"} == set(claimed)
    world.settle("e3", claimed["e3"])
    world.settle("e1", claimed["e1"], Retry(60_000), error="http_500")
    assert ["e2"] == world.deliver_all()
    world.now += 60_000
    assert ["e1"] == world.deliver_all()


def test_lost_leases_leave_others_their_turn(world: World) -> None:
    """What is being settled is not found again at once, so that the rest of its workspace is woken meanwhile."""
    world.accept(callback("e1"))
    world.claim()
    world.now += 31_000

    def lost() -> list[str]:
        return [one.event_id for one in world.run(world.ledger.wake(1)).lost]

    assert (["e1"], []) == (lost(), lost())
    world.now += 1_000
    assert ["e1"] == lost()


def test_clock_that_went_back(world: World) -> None:
    """A hint of an hour ahead holds nothing up."""
    world.accept(callback("e1"), claim=0)
    world.run(world.ledger.wake())
    world.now -= 3_600_000
    hints, _ = world.accept(callback("e2", message="m2"))
    assert [endpoint_id(A)] == hints


def test_a_lost_lease_keeps_the_order(world: World) -> None:
    """A lease that ran out is no first attempt: the next one of the message still waits."""
    world.accept(callback("e1"), callback("e2"))
    (one,) = world.claim().callbacks
    world.now += world.ledger.options.lease_ms
    world.run(world.ledger.wake())
    world.settle("e1", one.claim, Retry(0), error="worker_lost", losses=1)
    assert ["e1", "e2"] == world.deliver_all()


@pytest.mark.parametrize("way", ["claim", "expire", "settle"])
def test_expiry(world: World, way: str) -> None:
    """What is past its expiry ends `expired`, whoever finds it, and its message's next one goes on."""
    world.accept(callback("e1", ttl_ms=1000), callback("e2"))
    if way == "settle":
        (one,) = world.claim().callbacks
        world.settle("e1", one.claim, Expired(), error="http_500")
    world.now += 1000
    if way == "expire":
        assert 1 == world.run(world.ledger.expire())
        assert 0 == world.run(world.ledger.expire())
    assert ["e2"] == world.deliver_all()
    assert State.EXPIRED == world.event("e1").state


def test_expiry_waits_for_the_worker(world: World) -> None:
    """A callback in a worker's hands is not ended under it."""
    world.accept(callback("e1", ttl_ms=1000))
    (one,) = world.claim().callbacks
    world.now += 2000
    world.run(world.ledger.expire())
    assert State.SENDING == world.event("e1").state
    assert world.settle("e1", one.claim)[1]
    assert State.DELIVERED == world.event("e1").state


def test_expiry_of_thousands(world: World) -> None:
    """A dead endpoint's callbacks end 500 a call, though nobody claims them."""
    for batch in range(6):
        world.accept(*[callback(f"e{batch}-{n}", message=f"m{n % 7}", ttl_ms=1000) for n in range(200)])
    world.now += 1000
    assert [500, 500, 200] == [world.run(world.ledger.expire(500)) for _ in range(3)]
    assert 1200 == _counters(world)["expired"]
    assert 0 == world.call("zcard", world.keys.schedule_of("acme"))


def test_ended_callbacks_leave_only_their_record(world: World) -> None:
    """After its end a callback is a record, a body for an hour, and its message's list, all with a time to live.

    Its workspace stays in `schedule` until wake looks at it next.
    """
    world.accept(callback("e1"))
    world.deliver_all()
    left = {key.decode().removeprefix(Keys().root).split(":")[0] for key in world.call("keys", "*")}
    assert {
        "body",
        "endpoint",
        "endpoints",
        "event",
        "events",
        "intake",
        "message",
        "schedule",
        "stats",
    } == left
    life = world.call("pttl", world.keys.body("acme", "e1"))
    assert 3_590_000 < life <= 3_600_000


def test_an_entry_is_a_short_text(world: World) -> None:
    """What is kept of a delivered callback for the retention: a line of words, and a line for each attempt."""
    world.accept(callback("e1"))
    (one,) = world.claim().callbacks
    world.now += 20
    world.settle("e1", one.claim, Retry(1000), error="http_503")
    world.now += 1000
    world.deliver_all()
    kept = world.call("get", world.keys.event("acme", "e1")).decode()
    assert [
        f"d MESSAGE_SENT s {START_MS} d 2 {endpoint_id(A)} m1 172800000 1020 left=1",
        "20 5 - http_503",
        "1020 5 200",
    ] == kept.split("\n")


def test_what_is_no_entry(world: World) -> None:
    """What somebody else wrote under a key of the ledger is told as that, with what to do."""
    world.call("set", world.keys.event("acme", "e1"), "by hand")
    with pytest.raises(InvalidInput, match=r"not an entry of the ledger.*'by hand'; delete that key"):
        world.event("e1")
    world.call("delete", world.keys.event("acme", "e1"))


@pytest.mark.parametrize(
    "raw",
    ["by hand", b"\xff", "d MESSAGE_SENT s 99999999999999999 d 0 e m1 1 1", "d T s 1 d 0 e m1 1 1 base=x"],
)
def test_what_is_no_entry_hides_no_other(world: World, raw: str | bytes) -> None:
    """In a list of callbacks what cannot be read is left out."""
    world.accept(*(callback(f"e{number}") for number in range(3)))
    kept = world.call("get", world.keys.event("acme", "e1"))
    world.call("set", world.keys.event("acme", "e1"), raw)
    found = world.run(world.callbacks.of_message("acme", "m1"))
    world.call("set", world.keys.event("acme", "e1"), kept)
    assert ["e0", "e2"] == [one.event_id for one in found]


def test_what_is_no_rejected_entry_hides_no_other(world: World) -> None:
    """In the list of what was rejected, what no script of ours wrote is left out."""
    fields = {
        "entry": "1-1",
        "at": START_MS,
        "reason": "invalid",
        "detail": "",
        "workspace": "",
        "eventId": "",
    }
    world.call("xadd", world.keys.rejected, {"by": "hand"})
    world.call("xadd", world.keys.rejected, fields | {"raw": "{"})
    world.call("xadd", world.keys.rejected, fields | {"raw": "{", "at": "x"})
    found = world.run(world.rejected.newest(10))
    world.call("delete", world.keys.rejected)
    assert ["1-1"] == [one.entry for one in found]


def fail(world: World, count: int = 1, *, retry_after_ms: int = 0) -> None:
    """So many failures of the endpoint, each with another callback."""
    for _ in range(count):
        (one, *_) = world.claim(count=1).callbacks
        world.settle(
            one.event_id,
            one.claim,
            Retry(0),
            error="http_503",
            health=EndpointHealth.DOWN,
            retry_after_ms=retry_after_ms,
        )


def test_breaker(world: World) -> None:
    """After ten failures in a row an endpoint pauses; its probes double the pause, up to a limit; one success ends it."""
    world.accept(*[callback(f"e{n}", message=f"m{n}") for n in range(30)])
    fail(world, 9)
    assert ("same", 1) == (world.settled and world.settled.breaker, len(world.claim(count=1).callbacks))
    world.settle("e0", 10, Retry(0), error="http_500", health=EndpointHealth.DOWN)
    pauses = []
    for _ in range(8):
        assert world.settled
        assert "opened" == world.settled.breaker
        pauses.append(world.settled.paused_until_ms - world.now)
        world.now = world.settled.paused_until_ms - 1
        assert [] == world.claim().callbacks
        world.now += 1
        assert [Hint(endpoint_id(A), "acme")] == world.run(world.ledger.wake()).hints
        (probe,) = world.claim().callbacks
        assert [] == world.claim().callbacks, "one probe at a time"
        world.settle(probe.event_id, probe.claim, Retry(0), error="timeout", health=EndpointHealth.DOWN)
    assert [10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 600_000, 600_000] == pauses
    assert world.settled
    world.now = world.settled.paused_until_ms
    (probe,) = world.claim().callbacks
    world.settle(probe.event_id, probe.claim, health=EndpointHealth.UP)
    assert ("closed", 2) == (world.settled.breaker, len(world.claim().callbacks))
    world.now += world.ledger.options.lease_ms
    for lost in world.run(world.ledger.wake()).lost:
        world.settle(lost.event_id, lost.claim, Retry(0), error="worker_lost", losses=1)
    world.deliver_all()


def test_breaker_counts_a_row(world: World) -> None:
    """Any answer that is no failure of the endpoint ends the row, also one that did not take the callback."""
    world.accept(*[callback(f"e{n}", message=f"m{n}") for n in range(3)])
    fail(world, 9)
    (one,) = world.claim(count=1).callbacks
    world.settle(one.event_id, one.claim, Retry(0), error="http_400", health=EndpointHealth.ANSWERED)
    fail(world, 9)
    assert world.settled
    assert "same" == world.settled.breaker
    world.deliver_all()


def test_probe_of_a_dead_worker(world: World) -> None:
    """When the worker that has the probe dies, there is another probe after its lease."""
    world.accept(callback("e1"), callback("e2", message="m2"))
    fail(world, 10)
    world.now += 10_000
    assert 1 == len(world.claim().callbacks)
    world.now += world.ledger.options.lease_ms
    (lost,) = world.run(world.ledger.wake()).lost
    world.settle(lost.event_id, lost.claim, Retry(0), error="worker_lost", losses=1)
    assert 1 == len(found := world.claim().callbacks)
    world.settle(found[0].event_id, found[0].claim, health=EndpointHealth.UP)
    world.deliver_all()


def test_callback_that_lost_two_workers_goes_alone(world: World) -> None:
    """Whose worker died with it again is given when nothing of its endpoint is in flight, and nothing beside it."""
    world.call("hset", world.keys.endpoint(endpoint_id(A)), "window", 8)
    world.accept(*[callback(f"e{n}", message=f"m{n}") for n in range(3)])
    for losses in (1, 2):
        claimed = world.claim().callbacks
        assert 3 == len(claimed)
        for one in claimed:
            world.settle(one.event_id, one.claim, Retry(0), error="worker_lost", losses=losses)
    world.accept(callback("fresh", message="m4"))
    for _ in range(3):
        (alone,) = world.claim().callbacks
        assert (False, []) == ((again := world.claim()).more, again.callbacks)
        assert "fresh" != alone.event_id, "what has been due longest goes first"
        assert world.settle(alone.event_id, alone.claim)[0], "the next one can go"
    assert ["fresh"] == [one.event_id for one in world.claim().callbacks]
    world.settle("fresh", 1)


def test_suspect_waits_for_what_is_in_flight(world: World) -> None:
    """A suspect behind others waits until they are settled; then it goes, also where fresh ones keep coming."""
    world.call("hset", world.keys.endpoint(endpoint_id(A)), "window", 8)
    world.accept(callback("suspect"))
    for losses in (1, 2):
        (one,) = world.claim().callbacks
        world.settle("suspect", one.claim, Retry(1000), error="worker_lost", losses=losses)
        world.now += 1000 * (losses == 1)
    world.accept(*[callback(f"e{n}", message=f"other{n}") for n in range(3)])
    beside = world.claim().callbacks
    assert 3 == len(beside)
    world.now += 1001
    world.accept(callback("fresh", message="m9"))
    assert [] == world.claim().callbacks
    for one in beside:
        world.settle(one.event_id, one.claim)
    assert ["suspect"] == [one.event_id for one in world.claim().callbacks]
    world.settle("suspect", 3)
    world.deliver_all()


@pytest.mark.parametrize("gone", ["delete", "set"])
def test_a_lost_chain_is_made_anew(world: World, gone: str) -> None:
    """The sweep puts callbacks back in the order of their message, not all at once."""
    world.call("hset", world.keys.workspace("acme"), "ordering", "strict")
    ids = ["e2", "e0", "e3", "e1"]
    world.accept(*map(callback, ids))
    chain = world.keys.chain(endpoint_id(A), "m1")
    world.call(*(("delete", chain) if gone == "delete" else ("set", chain, "by hand")))
    world.run(world.ledger.sweep("0", 1000))
    for id_ in ids:
        [one] = world.claim().callbacks
        assert id_ == one.event_id
        world.settle(id_, one.claim, health=EndpointHealth.UP)
    world.call("flushall")


def test_a_lost_copy_is_put_back(world: World) -> None:
    """A replayed copy that is in no list gets a place behind those of its message that wait, once."""
    world.call("hset", world.keys.workspace("acme"), "ordering", "latest")
    world.accept(callback("a", timestamp_ms=world.now))
    world.deliver_all()
    assert "replayed" == world.run(world.ledger.replay("acme", "a", copy="copy"))
    world.claim()
    world.accept(callback("n1", timestamp_ms=world.now + 5), callback("n2", timestamp_ms=world.now + 5))
    endpoint = endpoint_id(A)
    world.call(
        "delete", world.keys.chain(endpoint, "m1"), world.keys.leased(endpoint), world.keys.lane(endpoint)
    )
    world.run(world.ledger.sweep("0", 1000))
    assert [] == world.run(world.ledger.sweep("0", 1000)).put_back
    assert {"copy", "n1", "n2"} >= {*world.deliver_all()} >= {"n1", "n2"}
    assert world.event("copy").ended


def test_erased_while_a_newer_one_is_sent(world: World) -> None:
    """In the order `latest` nothing older goes behind a callback that was in a worker's hands when the others were erased."""
    world.call("hset", world.keys.workspace("acme"), "ordering", "latest")
    world.accept(callback("delivered", timestamp_ms=world.now))
    world.deliver_all()
    world.accept(callback("read", timestamp_ms=world.now + 5))
    (one,) = world.claim().callbacks
    assert (1, 1) == world.run(world.ledger.erase("acme", ["delivered", "read"]))
    world.settle(one.event_id, one.claim, health=EndpointHealth.UP)
    world.accept(callback("sent", timestamp_ms=world.now - 5))
    assert [] == world.deliver_all()
    assert (2, 0) == world.run(world.ledger.erase("acme", ["delivered", "read", "sent"]))
    assert not world.call("exists", world.keys.newest(endpoint_id(A), "m1"))


def test_a_lease_that_ends_with_a_pause_is_no_probe(world: World) -> None:
    """What was claimed before a pause does not end it, also if its lease ends in the millisecond in which the pause was to."""
    world.accept(*(callback(f"e{n}", message=f"m{n}") for n in range(4)))
    [one] = world.claim(count=1).callbacks
    world.now += 500
    [other] = world.claim(count=1).callbacks
    lease_ms = world.ledger.options.lease_ms
    down = {"error": "http_429", "health": EndpointHealth.DOWN, "retry_after_ms": lease_ms}
    world.settle(one.event_id, one.claim, Retry(1000), **down)
    world.now += 300
    world.settle(other.event_id, other.claim, health=EndpointHealth.UP)
    assert [] == world.claim(count=4).callbacks
    world.now += lease_ms
    [probe] = world.claim(count=4).callbacks
    world.settle(probe.event_id, probe.claim, health=EndpointHealth.UP)
    assert 2 == len(world.claim(count=4).callbacks)


def test_retry_after_paces_the_endpoint(world: World) -> None:
    """Retry-After leaves the whole endpoint alone; after it one callback goes first."""
    world.accept(*[callback(f"e{n}", message=f"m{n}") for n in range(4)])
    fail(world, 1, retry_after_ms=30_000)
    world.now += 29_999
    assert [] == world.claim().callbacks
    world.now += 1
    (probe,) = world.claim().callbacks
    world.settle(probe.event_id, probe.claim, health=EndpointHealth.UP)
    assert 2 == len(world.claim().callbacks)
    world.now += world.ledger.options.lease_ms
    for lost in world.run(world.ledger.wake()).lost:
        world.settle(lost.event_id, lost.claim, Retry(0), error="worker_lost", losses=1)
    world.deliver_all()


def test_rate(world: World) -> None:
    """`rate_per_second` is held over time and smoothed: a tenth of a second's worth at once."""
    world.call("hset", world.keys.workspace("acme"), mapping={"max_concurrency": 100, "rate_per_second": 50})
    world.call("hset", world.keys.endpoint(endpoint_id(A)), "window", 100)
    world.accept(*[callback(f"e{n}", message=f"m{n}") for n in range(200)])
    given = []
    for _ in range(200):
        claim = world.claim()
        for one in claim.callbacks:
            world.settle(one.event_id, one.claim, health=EndpointHealth.UP)
        given.append(len(claim.callbacks))
        assert claim.wait_ms <= 20
        world.now += 10
    assert 5 == given[0]
    assert max(given[1:]) <= 1
    assert 100 <= sum(given) <= 105
    world.call("hdel", world.keys.workspace("acme"), "rate_per_second")
    world.deliver_all()


def test_fresh_ones_beside_a_backlog(world: World) -> None:
    """A quarter of each claim goes to what became due last."""
    world.call("hset", world.keys.workspace("acme"), "max_concurrency", 8)
    world.call("hset", world.keys.endpoint(endpoint_id(A)), "window", 8)
    for n in range(40):
        world.accept(callback(f"e{n}", message=f"m{n}"))
        world.now += 1000
    assert {"e38", "e39", *(f"e{n}" for n in range(6))} == {one.event_id for one in world.claim().callbacks}
    world.now += world.ledger.options.lease_ms
    for lost in world.run(world.ledger.wake()).lost:
        world.settle(lost.event_id, lost.claim, Retry(0), error="worker_lost", losses=1)
    world.deliver_all()


def test_stopped_by_the_operator(world: World) -> None:
    """A stopped endpoint gives nothing and is not hinted, but its callbacks expire; going again it is ready at once."""
    world.accept(callback("e1"), callback("e2", message="m2", ttl_ms=1000))
    assert Stopped.CHANGED is world.run(world.ledger.stop(endpoint_id(A)))
    world.now += HINT_MS
    assert ([], []) == (world.claim().callbacks, world.run(world.ledger.wake()).hints)
    assert 1 == world.run(world.ledger.expire())
    assert Stopped.SAME is world.run(world.ledger.stop(endpoint_id(A)))
    assert Stopped.CHANGED is world.run(world.ledger.stop(endpoint_id(A), resume=True))
    assert Stopped.SAME is world.run(world.ledger.stop(endpoint_id(A), resume=True))
    assert [Hint(endpoint_id(A), "acme")] == world.run(world.ledger.wake()).hints
    assert ["e1"] == world.deliver_all()
    assert Stopped.UNKNOWN is world.run(world.ledger.stop("nobody"))


def test_strict_order(world: World) -> None:
    """In the order `strict` a later status waits for the earlier one's end, through all its retries."""
    world.call("hset", world.keys.workspace("acme"), "ordering", "strict")
    world.accept(callback("e1"), callback("e2"))
    (one,) = world.claim().callbacks
    world.settle("e1", one.claim, Retry(60_000), error="http_500")
    assert [] == world.claim().callbacks
    world.now += 60_000
    assert ["e1", "e2"] == world.deliver_all()


def test_latest_supersedes(world: World) -> None:
    """In the order `latest` a newer status ends older ones that wait or retry, and an older one that comes later."""
    world.call("hset", world.keys.workspace("acme"), "ordering", "latest")
    world.accept(callback("e1", timestamp_ms=START_MS - 3))
    (one,) = world.claim().callbacks
    world.settle("e1", one.claim, Retry(60_000), error="http_500")
    assert ["accepted"] * 2 == world.accept(
        callback("e2", timestamp_ms=START_MS - 2), callback("e3", timestamp_ms=START_MS - 1)
    )[1]
    assert ["superseded"] == world.accept(callback("e0", timestamp_ms=START_MS - 9))[1]
    assert ["e3"] == world.deliver_all()
    assert ["superseded"] == world.accept(callback("e9", timestamp_ms=START_MS - 2))[1]
    states = [world.event(event_id).state.value for event_id in ("e0", "e1", "e2", "e3", "e9")]
    assert ["superseded", "superseded", "superseded", "delivered", "superseded"] == states


def test_latest_waits_for_the_one_in_hand(world: World) -> None:
    """A newer status waits while an older one is in a worker's hands; failing, that one is not tried again."""
    world.call("hset", world.keys.workspace("acme"), "ordering", "latest")
    world.accept(callback("e1", timestamp_ms=START_MS - 2))
    (one,) = world.claim().callbacks
    world.accept(callback("e2", timestamp_ms=START_MS - 1))
    assert [] == world.claim().callbacks
    assert world.settle("e1", one.claim, Retry(0), error="http_500")[1]
    assert State.SUPERSEDED == world.event("e1").state
    assert ["e2"] == world.deliver_all()


def test_latest_at_the_same_time(world: World) -> None:
    """Statuses with the same timestamp go in the order of acceptance; a nanosecond decides."""
    world.call("hset", world.keys.workspace("acme"), "ordering", "latest")
    same = callback("e1"), callback("e2")
    later = replace(callback("e3", message="m2"), timestamp_ns=START_MS * 1_000_000 + 1)
    earlier = callback("e4", message="m2")
    assert ["accepted", "accepted", "accepted", "superseded"] == world.accept(*same, later, earlier)[1]
    assert ["e1", "e3", "e2"] == world.deliver_all()


def test_expedite(world: World) -> None:
    """All that waits in a lane is due at once, whatever paused or stopped its endpoint."""
    world.accept(callback("e1"))
    (one,) = world.claim().callbacks
    world.settle("e1", one.claim, Retry(900_000), error="http_500")
    world.run(world.ledger.stop(endpoint_id(A)))
    world.run(world.ledger.expedite(endpoint_id(A)))
    assert ["e1"] == world.deliver_all()


def test_sign_of_life(world: World) -> None:
    """A worker's heartbeat is kept for a while, and listed, until the worker takes it back."""
    for name in ("w1", "w2"):
        world.run(world.ledger.wake(100, name, '{"pid":1}'))
    sign = {"pid": 1, "signedMs": world.now}
    assert {"w1": sign, "w2": sign} == world.run(world.installation.workers())
    world.run(world.ledger.leave("w1"))
    assert {"w2": sign} == world.run(world.installation.workers())
    assert 1 == world.run(world.ledger.wake()).workers


def _counters(world: World) -> dict[str, int]:
    """The counters of the test's own minute."""
    key = world.keys.stats("minute", START_MS // 60_000)
    return {name.decode(): int(value) for name, value in world.call("hgetall", key).items()}


def test_p95_follows_the_attempts(world: World) -> None:
    """The endpoint's p95 settles where one attempt in twenty takes longer."""
    for number in range(600):
        world.accept(callback(f"e{number}", message=f"m{number}"))
        [one] = world.claim().callbacks
        took = 1000 if number % 50 == 0 else 100 + number % 10
        attempt = Attempt(world.now, took, 200)
        settlement = Settlement(one.event_id, one.claim, Delivered(), attempt, EndpointHealth.UP)
        world.run(world.ledger.settle([ToSettle(endpoint_id(A), [settlement])]))
    [endpoint] = world.run(world.endpoints.all())
    assert endpoint.p95_ms is not None
    assert 95 <= endpoint.p95_ms <= 140


def test_a_rate_that_was_raised_holds_soon(world: World) -> None:
    """An endpoint that waits an hour for its next token is looked at again within seconds of a new rate."""
    key = world.keys.workspace("acme")
    world.call("hset", key, mapping={"rate_per_second": "0.0003", "revision": "r"})
    world.accept(callback("e1", message="m1"), callback("e2", message="m2"))
    assert ["e1"] == [one.event_id for one in world.claim().callbacks]
    world.settle("e1", 1)
    world.call("hset", key, "rate_per_second", "0")
    world.now += 5001
    assert [Hint(endpoint_id(A), "acme")] == world.run(world.ledger.wake()).hints
    assert ["e2"] == world.deliver_all()


@pytest.mark.parametrize("rate", [0.001, 0.0037, 0.3, 1, 3, 7, 13, 29.5, 333, 9_999])
def test_every_rate_gives_tokens(world: World, rate: float) -> None:
    """Whatever the rate, a claim gives a first token at once, and the next when it says."""
    world.call("hset", world.keys.workspace("acme"), mapping={"rate_per_second": rate, "revision": "r"})
    world.accept(*(callback(f"e{n}", message=f"m{n}") for n in range(4)))
    first = world.claim(count=1)
    assert 1 == len(first.callbacks)
    world.settle("e0", 1)
    claim = world.claim(count=1)
    if not claim.callbacks:
        assert claim.wait_ms > 0
        world.now += claim.wait_ms
        claim = world.claim(count=1)
    assert 1 == len(claim.callbacks)


def test_an_endpoint_that_is_full(world: World) -> None:
    """What comes while as many wait as may goes to `rejected`, chained ones counted; other endpoints go on."""
    world.ledger.options = dataclasses.replace(world.ledger.options, max_waiting=3)
    chained = [callback(f"e{n}", message="m1") for n in range(5)]
    other = callback("x1", endpoint="beta https://b.example:443")
    assert ["accepted"] * 3 + ["full", "full", "accepted"] == world.accept(*chained, other)[1]
    assert ["full"] == world.accept(callback("e5", message="m2"))[1]
    assert ["duplicate"] == world.accept(callback("e0"))[1]
    assert ["endpoint_full"] * 3 == [entry.reason for entry in world.run(world.rejected.newest())]
    world.deliver_all()
    assert ["accepted"] == world.accept(callback("e3", message="m1"))[1]
    world.deliver_all("acme https://a.example:443", "beta https://b.example:443")


def test_scripts_that_are_forgotten_again_and_again(world: World) -> None:
    """Where Redis knows a script at no try, its whole text is sent: nothing fails, nothing is done twice."""
    send = world.ledger._scripts._call

    async def forgetful(*command: Argument) -> object:
        await world.client.script_flush()
        return await send(*command)

    world.ledger._scripts._call = forgetful
    assert ["accepted"] == world.accept(callback("e1"))[1]
    assert ["duplicate"] == world.accept(callback("e1"))[1]
    assert ["e1"] == world.deliver_all()


def test_a_stale_settlement_beside_the_valid_one(world: World) -> None:
    """Of several settlements of one callback in a call the valid one counts, once, wherever it stands."""
    world.accept(callback("e1"))
    [one] = world.claim().callbacks
    attempt = Attempt(world.now, 5, 200)
    settlements = [
        Settlement("e1", claim, Delivered(), attempt, EndpointHealth.UP)
        for claim in (one.claim - 1, one.claim, one.claim)
    ]
    [settled] = world.run(world.ledger.settle([ToSettle(endpoint_id(A), settlements)]))
    assert [False, True, False] == settled.counted
    assert State.DELIVERED == world.event("e1").state
    assert 1 == _counters(world)["delivered"]


def test_clock_set_back(world: World) -> None:
    """What was accepted before Redis's clock was set back is due after a sweep; what is replayed later on purpose is not."""
    late = "late https://late.example:443"
    world.accept(callback("done", endpoint=late))
    world.claim(late)
    world.settle("done", 1, Failed(), endpoint=late, error="http_500")
    world.now += 7_200_000
    world.accept(callback("e1"))
    world.now -= 3_600_000
    world.run(world.ledger.replay("late", "done", in_ms=1_800_000))
    assert [] == world.claim().callbacks
    world.run(world.ledger.sweep("0", 1000))
    assert ["e1"] == [one.event_id for one in world.claim().callbacks]
    assert [] == world.claim(late).callbacks
