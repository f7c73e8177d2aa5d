"""Keys in which somebody wrote, by hand, what no script of ours would: others are unharmed, and nothing stays stuck."""

from collections.abc import Callable

import pytest

from dispatcher.rules.outcomes import EndpointHealth, Retry
from dispatcher.store.arguments import ToAccept
from dispatcher.store.keys import Keys, endpoint_id
from tests.redis.test_wrong_types import accept, entries, sweep
from tests.redis.test_wrong_types import world as world  # a fixture
from tests.world import TOKEN, World, callback

A, B = "acme https://a.example:443", "beta https://b.example:443"
KEYS = Keys()
UNREADABLE = {
    "no entry": lambda _: b"garbage",
    "nothing": lambda _: b"",
    "another status": lambda raw: raw.replace(b" s ", b" z ", 1),
    "another state": lambda raw: raw.replace(b" pending ", b" lost ").replace(b" sending ", b" lost "),
    "no number": lambda raw: raw.replace(b" 0 ", b" none ").replace(b" 1 ", b" none "),
    "an attempt": lambda raw: raw + b"\nyesterday",
    "attempts before": lambda raw: raw + b" base=x",
    "not UTF-8": lambda raw: b"\xff" + raw,
}
RECORDS = (
    "window",
    "hinted_until",
    "pause",
    "tat",
    "seen",
    "failures",
    "pause_ms",
    "p95",
    "down_since",
    "waiting",
    "failing",
    "gone",
)


def test_a_name_of_another_workspace(world: World) -> None:
    """An endpoint whose record names another workspace has its own again after a sweep, and sends what waits."""
    world.accept(callback("e1"), callback("e2", message="m2"))
    record = KEYS.endpoint(endpoint_id(A))
    world.call("hset", record, "name", "other https://a.example:443")
    world.claim()  # finds nothing of that workspace
    sweep(world)
    assert A.encode() == world.call("hget", record, "name")
    assert world.call("pttl", record) > 0
    sweep(world)
    assert ["e1", "e2"] == sorted(world.deliver_all())


def both_go_on(world: World) -> None:
    """Both endpoints take a new callback, from the queue to its end."""
    made = entries(world, 2)
    new = callback("new-a", message="new"), callback("new-b", endpoint=B, message="new")
    if "broken" in (words := accept(world, made, *new)):
        sweep(world)
        accept(world, [entry for entry, word in zip(made, words, strict=True) if word == "broken"], new[0])
    world.now += 10_000
    world.run(world.ledger.wake(64))
    assert {"new-a", "new-b"} <= set(world.deliver_all(A, B))
    assert 0 == world.call("xlen", KEYS.events)


@pytest.mark.parametrize("moment", ["waiting", "in hand", "expired", "lost"])
@pytest.mark.parametrize("damage", UNREADABLE)
def test_entry(world: World, damage: str, moment: str) -> None:
    """An entry that is none stops neither the waker, nor the expiries, nor its endpoint, wherever its callback is."""
    world.accept(callback("e1", ttl_ms=60_000), callback("quiet", endpoint=B))
    if moment in ("in hand", "lost"):
        assert ["e1"] == [one.event_id for one in world.claim().callbacks]
    key = KEYS.event("acme", "e1")
    world.call("set", key, UNREADABLE[damage](world.call("get", key)))
    world.now += {"waiting": 0, "in hand": 0, "expired": 61_000, "lost": 31_000}[moment]
    for _ in range(3):
        world.run(world.ledger.expire())
        woken = world.run(world.ledger.wake(64))
        for lost in woken.lost:
            world.settle(lost.event_id, lost.claim, Retry(0), error="worker_lost")
        world.now += 6_000
    world.call("set", key, "garbage")
    both_go_on(world)
    world.now += 200_000_000
    for _ in range(3):
        world.run(world.ledger.expire())
        world.run(world.ledger.wake(64))
        sweep(world)
    assert 0 == world.call("zcard", KEYS.expiries)
    assert 0 == world.call("zcard", KEYS.schedule)
    assert b"garbage" == world.call("get", f"{KEYS.root}aside:event:acme:e1") or not world.call("exists", key)


@pytest.mark.parametrize(
    "value", ["by hand", "nan", "inf", "-inf", "-5", "0", "9" * 15, "9" * 30, "1e300", "0x10", ""]
)
@pytest.mark.parametrize("field", RECORDS)
def test_record_of_an_endpoint(world: World, field: str, value: str) -> None:
    """A number that is none is taken out of an endpoint's record; what the operator set stays, and what waits goes out."""
    world.accept(callback("before"), callback("quiet", endpoint=B))
    world.run(world.ledger.stop(endpoint_id(A)))
    world.call("hset", KEYS.endpoint(endpoint_id(A)), field, value)
    world.now += 10_000
    world.run(world.ledger.wake(64))
    assert ["quiet"] == world.deliver_all(B)
    sweep(world)
    assert [] == world.deliver_all(A), "it is stopped"
    world.run(world.ledger.stop(endpoint_id(A), resume=True))
    both_go_on(world)
    assert not world.call("exists", KEYS.event("acme", "before")) or world.event("before").ended


@pytest.mark.parametrize("moment", ["waiting", "in hand", "expired"])
def test_entry_of_another_type(world: World, moment: str) -> None:
    """It counts as removed and is set aside: the others of its endpoint go on at once."""
    world.accept(callback("e1", ttl_ms=60_000), callback("e2", message="m2", ttl_ms=600_000))
    if moment == "in hand":
        assert ["e1", "e2"] == [one.event_id for one in world.claim().callbacks]
    key = KEYS.event("acme", "e1")
    world.call("delete", key)
    world.call("rpush", key, "by hand")
    world.now += 61_000
    world.run(world.ledger.expire())
    for lost in world.run(world.ledger.wake(64)).lost:
        world.settle(lost.event_id, lost.claim, Retry(0), error="worker_lost")
    world.now += 10_000
    assert ["e2"] == world.deliver_all(A)
    both_go_on(world)
    sweep(world)
    assert [b"by hand"] == world.call("lrange", f"{KEYS.root}aside:event:acme:e1", 0, -1)


COUNTERS: dict[str, tuple[Callable[[World], str], str]] = {
    "minute": (lambda world: KEYS.stats("minute", world.now // 60_000), "accepted"),
    "hour": (lambda world: KEYS.stats("hour", world.now // 3_600_000), "acme accepted"),
    "day": (lambda world: KEYS.stats("day", world.now // 86_400_000), f"{endpoint_id(A)} delivered"),
    "rejections": (lambda _: KEYS.rejected_counts, "invalid"),
}


@pytest.mark.parametrize("unit", COUNTERS)
def test_counter(world: World, unit: str) -> None:
    """A counter that is no number is not counted on, and nothing waits for it."""
    key, field = COUNTERS[unit]
    world.call("hset", key(world), field, "by hand")
    assert ["accepted"] == accept(world, entries(world, 1), callback("e1"))
    assert ["e1"] == world.deliver_all(A)
    both_go_on(world)


@pytest.mark.parametrize("key", [KEYS.expiries, KEYS.schedule, KEYS.schedule_of("acme")])
def test_member_of_a_shared_set(world: World, key: str) -> None:
    """A member that names nothing is passed over."""
    world.accept(callback("before"))
    world.call("zadd", key, {"nothing of ours": 1, "": 2})
    for _ in range(3):
        world.run(world.ledger.expire())
        world.run(world.ledger.wake(64))
        world.now += 6_000
    both_go_on(world)


@pytest.mark.parametrize("field", ["max_concurrency", "rate_per_second", None])
def test_workspace(world: World, field: str | None) -> None:
    """With text where a number should be, or where it is none: what is of another is accepted and delivered, its own waits."""
    world.call("delete", KEYS.workspace("acme"))
    world.call("hset", KEYS.workspace("acme"), field, "by hand") if field else world.call(
        "set", KEYS.workspace("acme"), "by hand"
    )
    made = entries(world, 2)
    words = accept(world, made, callback("e1"), callback("quiet", endpoint=B))
    assert "accepted" == words[1]
    assert ["quiet"] == world.deliver_all(B)
    world.call("delete", KEYS.workspace("acme"))
    if "accepted" != words[0]:
        assert ["accepted"] == accept(world, made[:1], callback("e1"))
    world.now += 10_000
    world.run(world.ledger.wake(64))
    assert ["e1"] == world.deliver_all(A)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1", "1e300"])
@pytest.mark.parametrize("field", ["max_concurrency", "rate_per_second", "width"])
def test_a_limit_that_is_none(world: World, field: str, value: str) -> None:
    """A number that nobody can have set counts as not set: what waits goes out."""
    world.call("hset", KEYS.workspace("acme"), field, value)
    world.accept(callback("e1"), callback("e2", message="m2"))
    assert ["e1", "e2"] == sorted(world.deliver_all())


@pytest.mark.parametrize("value", ["nan", "inf", "-5", "9" * 15, "9" * 30])
@pytest.mark.parametrize("field", ["down_since", "failing", "gone", "pause_ms", "failures"])
def test_what_is_known_of_failures(world: World, field: str, value: str) -> None:
    """A number that nobody can have written counts as none: a failed attempt is recorded, with times that are times."""
    world.accept(callback("e1"))
    world.call("hset", KEYS.endpoint(endpoint_id(A)), field, value)
    [one] = world.claim().callbacks
    assert (False, True) == world.settle(
        "e1", one.claim, Retry(1000), error="http_503", health=EndpointHealth.DOWN
    )
    settled = world.settled
    for ms in (
        settled.down_since_ms,
        settled.failing_since_ms,
        settled.gone_since_ms,
        settled.paused_until_ms,
    ):
        assert 0 <= ms <= world.now + 604_800_000


def test_workspace_of_another_type_has_changed(world: World) -> None:
    """As accept says it, so that its entries are rendered again and put off, and those of the batch beside them are taken."""
    made = entries(world, 2)
    world.call("set", KEYS.workspace("acme"), "by hand")
    batch = ToAccept(zip(made, (callback("e1"), callback("quiet", endpoint=B)), strict=True))
    accepted = world.run(world.ledger.accept(TOKEN, {"acme": "1"}, [], batch))
    assert (["acme"], ["changed", "accepted"]) == (accepted.changed, accepted.words)


@pytest.mark.parametrize("score", ["inf", "-inf"])
def test_a_time_that_is_none_does_not_stop_intake(world: World, score: str) -> None:
    """The next time at which something is due is read with each renewal of the lease: a damaged one means now."""
    world.call("zadd", KEYS.schedule, {"acme": score})
    found = world.run(world.ledger.lead(TOKEN, 5000, full=False, renew=True))
    assert found is not None
    assert 0 == found.due_ms


@pytest.mark.parametrize("place", ["lane", "leased", "expiries", "schedule", "own schedule"])
def test_a_time_that_does_not_come(world: World, place: str) -> None:
    """What somebody gave such a time goes out, or expires, after a sweep."""
    world.accept(callback("e1", ttl_ms=60_000), callback("quiet", endpoint=B))
    if place == "leased":
        assert ["e1"] == [one.event_id for one in world.claim().callbacks]
    key, member = {
        "lane": (KEYS.lane(endpoint_id(A)), "e1"),
        "leased": (KEYS.leased(endpoint_id(A)), "e1"),
        "expiries": (KEYS.expiries, "acme:e1"),
        "schedule": (KEYS.schedule, "acme"),
        "own schedule": (KEYS.schedule_of("acme"), endpoint_id(A)),
    }[place]
    assert world.call("zscore", key, member) is not None
    world.call("zadd", key, {member: "inf"})
    world.now += 1000
    world.run(world.ledger.wake(64))
    assert ["quiet"] == world.deliver_all(B)
    sweep(world)
    if place == "expiries":
        world.now += 61_000
        world.run(world.ledger.expire())
        assert world.event("e1").ended
        return
    world.now += 31_000
    woken = world.run(world.ledger.wake(64))
    if place == "leased":
        assert ["e1"] == [one.event_id for one in woken.lost]
    else:
        assert [endpoint_id(A)] == [one.endpoint for one in woken.hints]
        assert ["e1"] == world.deliver_all(A)
