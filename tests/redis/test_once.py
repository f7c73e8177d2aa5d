"""What breaks off or is told twice is counted and reported once, and leaves counts that are right."""

from collections.abc import Iterator

import pytest

from dispatcher.errors import EndpointBroken, RedisUnavailable
from dispatcher.rules.outcomes import Attempt, Delivered, EndpointHealth, Failed, Retry, State
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import endpoint_id
from dispatcher.store.replies import Ended, Settled, Settlement, ToSettle
from dispatcher.store.stored_callback import Waiting
from dispatcher.store.wire import Wire
from tests.world import World, callback

A, C = "acme https://a.example:443", "acme https://c.example:443"
ID = endpoint_id(A)


class Told(World):
    """A world that notes which ends are reported."""

    def __init__(self, url: str) -> None:
        client = connect_async(url)
        super().__init__(client, Wire(client))
        self.ends: list[Ended] = []
        self.ledger._on_end = self.ends.append

    def settle_all(self, *settlements: Settlement, wanted: int = 0) -> Settled | EndpointBroken:
        [found] = self.run(self.ledger.settle([ToSettle(ID, list(settlements), wanted)]))
        return found

    def counted(self, name: str) -> int:
        return self.run(self.stats.day(self.now))[name]

    def waiting(self, endpoint: str = ID) -> int:
        return int(self.call("hget", self.keys.endpoint(endpoint), "waiting") or 0)


@pytest.fixture
def told(redis_url: str) -> Iterator[Told]:
    """Its intake led by the test."""
    world = Told(redis_url)
    world.lead()
    yield world
    world.close()


def delivered(world: World, event_id: str) -> Settlement:
    return Settlement(event_id, 1, Delivered(), Attempt(world.now, 5, 200), EndpointHealth.UP)


def gone(world: World, event_id: str) -> Settlement:
    attempt = Attempt(world.now, 5, 410, "http_410", answer=b"gone")
    return Settlement(event_id, 1, Failed(), attempt, EndpointHealth.ANSWERED)


def test_a_settle_that_breaks_midway(told: Told) -> None:
    """What it settled before the error is done: repeating it ends no callback again, and reports none again."""
    told.accept(callback("e1", message="m1"), callback("e2", message="m2"))
    told.claim()
    chain = told.keys.chain(ID, "m2")
    told.call("set", chain, "by hand")
    both = gone(told, "e1"), delivered(told, "e2")
    for _ in range(3):
        assert isinstance(told.settle_all(*both), EndpointBroken)
    told.call("delete", chain)
    settled = told.settle_all(*both)
    assert isinstance(settled, Settled)
    assert [True, True] == settled.counted
    assert (1, 1, ["e1"]) == (
        told.counted("failed"),
        told.counted("delivered"),
        [one.event_id for one in told.ends],
    )
    assert 0 == told.waiting()


def test_a_settle_whose_reply_was_lost(told: Told) -> None:
    """Told again, its results count as recorded; those of another attempt do not."""
    told.accept(callback("e1"), callback("e2", message="m2"))
    told.claim()
    both = delivered(told, "e1"), gone(told, "e2")
    told.settle_all(*both)
    other = Settlement("e1", 1, Delivered(), Attempt(told.now + 1, 7, 200), EndpointHealth.UP)
    again = told.settle_all(*both, other)
    assert isinstance(again, Settled)
    assert [True, True, False] == again.counted
    assert (1, 1) == (told.counted("failed"), told.counted("delivered"))


def test_ends_while_claiming_are_counted_though_it_breaks(told: Told) -> None:
    """A callback that expired when the next ones were claimed is no longer counted as waiting, whatever comes after it."""
    told.accept(
        callback("e1"),
        callback("x", message="mx", ttl_ms=1000),
        callback("y", message="my", ttl_ms=1000),
    )
    told.claim(count=1)
    told.now += 2000
    told.call("hdel", told.keys.endpoint(ID), "hinted_until")
    told.call("set", told.keys.chain(ID, "my"), "by hand")
    assert isinstance(told.settle_all(delivered(told, "e1"), wanted=5), EndpointBroken)
    assert (State.EXPIRED, 1) == (told.event("x").state, told.waiting())


def test_an_accept_that_breaks_again_and_again(told: Told) -> None:
    """Its callback is counted as waiting once, so that the limit of waiting ones rejects nobody's."""
    told.accept(callback("e0", message="m0"), claim=1)
    schedule = told.keys.schedule_of("acme")
    told.call("delete", schedule)
    told.call("set", schedule, "by hand")
    for _ in range(5):
        assert ["broken"] == told.accept(callback("e1"))[1]
    assert 1 == told.waiting()
    told.call("delete", schedule)
    assert ["accepted"] == told.accept(callback("e1"))[1]
    assert 2 == told.waiting()


def test_a_replay_that_breaks_off(told: Told) -> None:
    """The callback has ended once: its expiry does not end it again."""
    told.accept(callback("e1"))
    told.claim()
    told.settle_all(gone(told, "e1"))
    told.call("set", told.keys.lane(ID), "by hand")
    with pytest.raises(RedisUnavailable):
        told.run(told.ledger.replay("acme", "e1", ttl_ms=60_000))
    told.call("delete", told.keys.lane(ID))
    told.now += 61_000
    told.run(told.ledger.expire())
    assert (1, 0) == (told.counted("failed"), told.waiting())


def test_rejections_whose_reply_was_lost(told: Told) -> None:
    """Told again, they are kept and counted once, however many they are."""
    told.accept(*(callback(f"e{n}", message=f"m{n}") for n in range(200)))
    entries = told.enqueued(200)
    others = [callback(f"e{n}", message=f"m{n}", digest="other") for n in range(200)]
    for _ in range(2):
        told.accept(*others, entries=entries)
    assert 200 == told.call("xlen", told.keys.rejected)
    assert b"200" == told.call("hget", told.keys.rejected_counts, "conflict")


def test_a_damaged_counter_costs_itself(told: Told) -> None:
    """A workspace whose counter holds text loses that one; the others' are counted."""
    names = [f"w{n} https://a.example:443" for n in range(12)]
    hour = told.keys.stats("hour", told.now // 3_600_000)
    told.call("hset", hour, "w3 accepted", "by hand")
    told.accept(*(callback(f"e{n}", endpoint=name) for n, name in enumerate(names)))
    counted = {int(n) for n in told.call("hmget", hour, [f"w{n} accepted" for n in range(12) if n != 3])}
    assert {1} == counted


def test_a_count_of_what_is_gone(told: Told) -> None:
    """An end whose endpoint's record is gone leaves no record with a count below zero."""
    told.accept(callback("e1", ttl_ms=1000))
    told.call("delete", told.keys.endpoint(ID))
    told.now += 2000
    told.run(told.ledger.expire())
    assert 0 == told.call("exists", told.keys.endpoint(ID))


def test_a_lost_count_is_made_again(told: Told) -> None:
    """A count of what waits that held text is counted from lane and leases, so the window stays kept."""
    told.accept(*(callback(f"e{n}", message=f"m{n}") for n in range(5)), claim=2)
    told.call("hset", told.keys.endpoint(ID), "waiting", "by hand")
    told.run(told.ledger.mend([ID]))
    assert 5 == told.waiting()


def test_a_raised_rate_is_felt_at_once(told: Told) -> None:
    """A token that the old rate would have given in a minute and a half comes when the new rate gives it."""
    of_workspace = told.keys.workspace("acme")
    told.call("hset", of_workspace, mapping={"revision": "1", "rate_per_second": "0.01"})
    told.accept(callback("e1", message="m1"), callback("e2", message="m2"))
    assert ["e1"] == [one.event_id for one in told.claim().callbacks]
    told.settle_all(delivered(told, "e1"))
    told.call("hset", of_workspace, mapping={"revision": "2", "rate_per_second": "100"})
    told.claim()
    told.now += 200
    assert ["e2"] == [one.event_id for one in told.claim().callbacks]


def test_a_move_keeps_the_order_of_a_message(told: Told) -> None:
    """What waits behind a leased callback of its message stays: that one may come back."""
    told.call("hset", told.keys.workspace("acme"), mapping={"revision": "1", "ordering": "strict"})
    told.accept(callback("e1"))
    told.claim()
    told.accept(callback("e2"), callback("other", message="m2"))
    moved = (
        "acme",
        "https://a.example/hooks",
        "https://c.example/hooks",
        C,
        [*map(Waiting, ("e1", "e2", "other"))],
    )
    assert 1 == told.run(told.ledger.move(*moved))
    told.settle_all(Settlement("e1", 1, Retry(0), Attempt(told.now, 5, 500, "http_500"), EndpointHealth.DOWN))
    assert ["e1"] == [one.event_id for one in told.claim().callbacks]


def paused_by_retry_after(told: Told) -> str:
    """The eventId of the probe after a pause that a Retry-After caused."""
    told.accept(*(callback(f"e{n}", message=f"m{n}") for n in range(2)))
    [first] = told.claim(count=1).callbacks
    asked = Attempt(told.now, 5, 503, "http_503", retry_after_ms=1000)
    paused = told.settle_all(
        Settlement(first.event_id, 1, Retry(900_000), asked, EndpointHealth.DOWN, retry_after_ms=1000)
    )
    assert isinstance(paused, Settled)
    assert ("same", told.now + 1000) == (paused.breaker, paused.paused_until_ms)
    told.now += 1001
    [probe] = told.claim(count=1).callbacks
    return probe.event_id


def test_the_end_of_a_retry_after_is_no_recovery(told: Told) -> None:
    """The breaker did not open, so it does not close."""
    found = told.settle_all(delivered(told, paused_by_retry_after(told)))
    assert isinstance(found, Settled)
    assert ("same", 0) == (found.breaker, found.paused_until_ms)


def test_a_failure_after_a_retry_after_is_one_of_many(told: Told) -> None:
    """It does not open the breaker before as many failures as open it at any other time."""
    failed = Attempt(told.now + 1001, 5, 503, "http_503")
    probe = paused_by_retry_after(told)
    found = told.settle_all(Settlement(probe, 1, Retry(900_000), failed, EndpointHealth.DOWN))
    assert isinstance(found, Settled)
    assert ("same", 0) == (found.breaker, found.paused_until_ms)
    assert b"2" == told.call("hget", told.keys.endpoint(ID), "failures")


def test_a_claim_that_redis_lost(told: Told) -> None:
    """It is given again with the same claim number: so a worker knows what it has in hand, and its result counts."""
    told.accept(callback("e1"))
    kept = {key: told.call("dump", key) for key in told.call("keys", "*")}
    [first] = told.claim().callbacks
    told.call("flushall")
    for key, value in kept.items():
        told.call("restore", key, 0, value)
    [again] = told.claim().callbacks
    assert (first.event_id, first.claim) == (again.event_id, again.claim)
    recorded = told.settle_all(delivered(told, "e1"))
    assert isinstance(recorded, Settled)
    assert ([True], 0) == (recorded.counted, told.waiting())
    assert State.DELIVERED is told.event("e1").state
