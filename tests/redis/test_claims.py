"""Claims of several endpoints in one call: what one of them meets costs the others nothing."""

from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from dispatcher.errors import RedisUnavailable
from dispatcher.rules.outcomes import State
from dispatcher.store.keys import Keys, endpoint_id
from dispatcher.store.replies import Claim, Settled, ToClaim, ToSettle
from tests.world import World, callback

KEYS = Keys()
NAMES = [f"acme https://{name}.example:443" for name in "abc"]
ENDPOINTS = [*map(endpoint_id, NAMES)]


def claimed(world: World, most: int = 4) -> list[list[str] | str]:
    """What one call gives of each endpoint: eventIds, or the error."""
    found = world.run(world.ledger.claim([ToClaim(one, most) for one in ENDPOINTS]))
    return [[c.event_id for c in one.callbacks] if isinstance(one, Claim) else str(one) for one in found]


@pytest.fixture
def waiting(world: World) -> World:
    """A world with two callbacks for each endpoint."""
    for name, endpoint in zip("abc", NAMES, strict=True):
        world.accept(*(callback(f"{name}{n}", message=f"{name}{n}", endpoint=endpoint) for n in (1, 2)))
    return world


def test_all_in_their_order(waiting: World) -> None:
    """Each endpoint has its own, also if one has nothing or is not known."""
    asked = [ToClaim(ENDPOINTS[2], 1), ToClaim("0" * 32, 4), *(ToClaim(one, 4) for one in ENDPOINTS)]
    found = waiting.run(waiting.ledger.claim(asked))
    assert [["c1"], [], ["a1", "a2"], ["b1", "b2"], ["c2"]] == [
        [c.event_id for c in one.callbacks] for one in found if isinstance(one, Claim)
    ]


def test_a_key_of_another_type(waiting: World) -> None:
    """Its endpoint is named, and told to whoever mends it; the others have theirs, and it has its own once it is mended."""
    told: list[tuple[str, list[str]]] = []
    waiting.ledger.on_broken = lambda problem, endpoints: told.append((problem, [*endpoints]))
    leased = KEYS.leased(ENDPOINTS[1])
    waiting.call("set", leased, "by hand")
    a, b, c = claimed(waiting)
    assert ([["a1", "a2"], ["c1", "c2"]], True) == ([a, c], "WRONGTYPE" in b)
    [(problem, endpoints)] = told
    assert ("WRONGTYPE" in problem, [ENDPOINTS[1]]) == (True, endpoints)
    waiting.call("delete", leased)
    assert [[], ["b1", "b2"], []] == claimed(waiting)


def test_what_is_forbidden_concerns_all(waiting: World) -> None:
    """An error that does not come from an endpoint's keys is the call's, and not taken for a damaged key."""
    told: list[str] = []
    waiting.ledger.on_broken = lambda problem, _: told.append(problem)
    waiting.call("execute_command", "ACL", "SETUSER", "default", "-zadd")
    try:
        with pytest.raises(RedisUnavailable, match="may not do that"):
            claimed(waiting)
    finally:
        waiting.call("execute_command", "ACL", "SETUSER", "default", "+zadd")
    assert [] == told
    assert [["a1", "a2"], ["b1", "b2"], ["c1", "c2"]] == claimed(waiting)


def claimed_by_settle(world: World) -> list[list[str] | str]:
    """The same of settles that claim."""
    for one in ENDPOINTS:
        world.call("hdel", KEYS.endpoint(one), "hinted_until")
    found = world.run(world.ledger.settle([ToSettle(one, [], 4) for one in ENDPOINTS]))
    claims = [one.claim for one in found if isinstance(one, Settled)]
    return [[c.event_id for c in one.callbacks] for one in claims if one]


DAMAGES = {"another status": (b" s ", b" z "), "not UTF-8": (b"MESSAGE_", b"MESSAG\xff_")}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("way", ["claim", "settle"])
def test_an_entry_that_cannot_be_read(waiting: World, damage: str, way: str) -> None:
    """It is left out, named, and set aside when its lease ends; what is given with it, of its endpoint and of others, can be sent."""
    key, (whole, damaged) = KEYS.event("acme", "b1"), DAMAGES[damage]
    waiting.call("set", key, waiting.call("get", key).replace(whole, damaged, 1))
    with capture_logs() as logged:
        given = claimed(waiting) if way == "claim" else claimed_by_settle(waiting)
    assert [("callback.unreadable", "b1")] == [(one["event"], one["event_id"]) for one in logged]
    assert [["a1", "a2"], ["b2"], ["c1", "c2"]] == given
    waiting.now += 31_000
    waiting.run(waiting.ledger.wake(16))
    aside = f"{KEYS.root}aside:event:acme:b1"
    assert not waiting.call("exists", key)
    waiting.call("set", key, waiting.call("get", aside).replace(damaged, whole, 1))


def test_what_expired_is_ended_in_bounded_calls(world: World) -> None:
    """However many endpoints a call is for, it ends a bounded number of expired callbacks; the next calls end the rest."""
    for name, endpoint in zip("abc", NAMES, strict=True):
        ids = [f"{name}{n}" for n in range(110)]
        world.accept(*(callback(id_, message=id_, endpoint=endpoint, ttl_ms=5) for id_ in ids))
    world.now += 10
    left = [330]
    for _ in range(10):
        assert [[]] * 3 == claimed(world)
        left.append(world.call("zcard", KEYS.expiries))
    assert left[-1] == 0
    assert max(before - after for before, after in pairwise(left)) <= 100 + 2 * len(ENDPOINTS) * 4
    assert State.EXPIRED is world.event("c109").state
