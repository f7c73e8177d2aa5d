"""What somebody wrote over by hand hides nothing else from those who look, and fails no other callback."""

from collections import Counter
from collections.abc import Callable

import pytest
from redis.exceptions import ResponseError
from structlog.testing import capture_logs

from dispatcher.errors import StillWaiting
from dispatcher.rules.outcomes import Attempt, Delivered, EndpointHealth, Failed, State
from dispatcher.store.endpoints import FIELDS
from dispatcher.store.keys import Keys, endpoint_id
from dispatcher.store.queue_writer import Look, QueueWriter
from dispatcher.store.refused_calls import REASONS, Refusals
from dispatcher.store.replies import Settlement, ToSettle
from dispatcher.store.sealing import SecretBox
from dispatcher.store.wire import Wire
from dispatcher.store.workspaces import Workspaces
from tests.world import START_MS, World, callback

A, B = "acme https://a.example:443", "beta https://b.example:443"
KEYS = Keys()
RECORD = KEYS.endpoint(endpoint_id(A))
BY_HAND = ["by hand", "nan", "inf", "-1", "9" * 40, "", b"\xff"]


@pytest.mark.parametrize("value", BY_HAND)
@pytest.mark.parametrize("field", FIELDS)
def test_field_of_an_endpoint(world: World, field: str, value: str | bytes) -> None:
    """An endpoint with a damaged field is shown as far as it can be read, and the others whole."""
    world.accept(callback("e1"), callback("quiet", endpoint=B))
    world.call("hset", RECORD, field, value)
    found = {one.workspace: one for one in world.run(world.endpoints.all())}
    assert (1, "waiting") == (found["beta"].waiting, found["beta"].state)
    assert 2 == len(found) or field == "name"
    for one in found.values():
        one.as_json()  # has times that can be shown


@pytest.mark.parametrize(
    ("key", "is_shown"),
    [(KEYS.endpoint, False), (KEYS.lane, True), (KEYS.leased, True)],
    ids=["record", "lane", "leased"],
)
def test_key_of_an_endpoint(world: World, key: Callable[[str], str], is_shown: bool) -> None:
    """A key of another type hides only what it holds, and is named in the log."""
    world.accept(callback("e1"), callback("quiet", endpoint=B))
    damaged = key(endpoint_id(A))
    world.call("delete", damaged)
    world.call("set", damaged, "by hand")
    with capture_logs() as logged:
        found = {one.workspace for one in world.run(world.endpoints.all())}
    world.call("flushall")
    assert ({"acme", "beta"} if is_shown else {"beta"}) == found
    assert [("redis.unreadable", damaged)] == [(line["event"], line["key"]) for line in logged]


@pytest.mark.parametrize("value", [b"\xff e1", None], ids=["bytes", "type"])
def test_the_list_of_a_message(world: World, value: bytes | None) -> None:
    """What a message's list of callbacks holds by hand hides the message's callbacks at most, which are there by their ids."""
    world.accept(callback("e1"))
    listed = KEYS.message("acme", "m1")
    world.call("delete", listed)
    world.call(*(("set", listed, value) if value else ("lpush", listed, "by hand")))
    with capture_logs() as logged:
        found = world.run(world.callbacks.of_message("acme", "m1"))
        assert [] == world.run(world.callbacks.others(world.event("e1")))
        world.run(world.callbacks.order("acme", ["m1"]))
    assert (1 if value else 0) == len(found)
    assert {listed} == {line["key"] for line in logged} or value
    world.call("flushall")


@pytest.mark.parametrize("value", [*BY_HAND, None])
def test_a_workspace_whose_endpoint_is_damaged(world: World, value: str | bytes | None) -> None:
    """A workspace can be removed whatever another's endpoint, or one of its own, holds."""
    workspaces = Workspaces(world.client, world.keys, SecretBox())
    world.run(workspaces.add("beta", "zeckta", now_ms=1))
    world.accept(callback("e1"), callback("quiet", endpoint=B))
    if value is None:
        world.call("delete", RECORD)
        world.call("set", RECORD, "by hand")
    else:
        world.call("hset", RECORD, "waiting", value)
    with pytest.raises(StillWaiting):
        world.run(workspaces.remove("beta", world.ledger))
    assert 1 == world.run(workspaces.remove("beta", world.ledger, force=True))
    world.call("flushall")


def test_a_workspace_is_removed_beside_members_that_are_not_utf_8(world: World) -> None:
    """A member of the lists of endpoints and of its own API keys that no script of ours would write."""
    workspaces = Workspaces(world.client, world.keys, SecretBox())
    world.run(workspaces.add("beta", "zeckta", now_ms=1))
    world.call("zadd", KEYS.endpoints, {b"\xff": 1})
    world.call("sadd", KEYS.api_keys("beta"), b"\xff")
    assert 0 == world.run(workspaces.remove("beta", world.ledger))
    assert [] == world.run(workspaces.names())
    world.call("flushall")


@pytest.mark.parametrize("value", [*BY_HAND, None])
def test_a_damaged_count_hides_nothing_that_waits(world: World, value: str | bytes | None) -> None:
    """What is due at an endpoint is looked for unless its record says that nothing waits."""
    world.accept(callback("e1"))
    world.call(*(("hdel", RECORD, "waiting") if value is None else ("hset", RECORD, "waiting", value)))
    [found] = world.run(world.endpoints.all())
    assert found.oldest_due_ms is not None


@pytest.mark.parametrize("unit", ["minute", "hour", "day"])
@pytest.mark.parametrize("value", [*BY_HAND, None])
def test_counter(world: World, unit: str, value: str | bytes | None) -> None:
    """A damaged counter counts as nothing; those beside it, and those of other times, are read."""
    length = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}[unit]
    of = {"minute": "", "hour": "beta ", "day": "beta "}[unit]
    now, before = (KEYS.stats(unit, START_MS // length - ago) for ago in (0, 1))
    for key in (now, before):
        world.call("hset", key, f"{of}delivered", 2)
    if value is None:
        world.call("delete", now)
        world.call("set", now, "by hand")
    else:
        for name in (
            "accepted",
            "",
            "beta",
            "beta ",
            "beta t",
            "beta t999999",
            "beta t\N{SUPERSCRIPT TWO}",
            b"\xff",
        ):
            world.call("hset", now, name, value)
    for key in (now, before):
        world.call("expire", key, 60)
    read = {
        "minute": lambda: sum(world.run(world.stats.minutes(START_MS, 2)), Counter())["delivered"],
        "hour": lambda: world.run(world.stats.workspaces(START_MS, 2))["beta"].counts["delivered"],
        "day": lambda: world.run(world.stats.endpoints(START_MS, 2))["beta"]["delivered"],
    }
    assert (2 if value is None else 4) == read[unit]()


def test_durations_of_two_versions(world: World) -> None:
    """In the hour of an upgrade what both versions counted of the same duration adds up."""
    key = KEYS.stats("hour", START_MS // 3_600_000)
    world.call("hset", key, mapping={"beta d17": 2, "beta t17": 3, "beta delivered": 3})
    world.call("expire", key, 60)
    one, all_ = (
        world.run(world.stats.workspace("beta", START_MS, 1)),
        world.run(world.stats.workspaces(START_MS, 1)),
    )
    assert [{17: 5}, {17: 5}, 5] == [one.durations, all_["beta"].durations, all_["beta"].counts["delivered"]]


@pytest.mark.parametrize("value", BY_HAND)
def test_counts_of_refusals_and_rejections(world: World, value: str | bytes) -> None:
    """They are read as far as they can be."""
    wire = Wire(world.client)
    refusals = Refusals(wire.call, KEYS)
    hour = KEYS.api_refusals(START_MS // 3_600_000)
    for key, field in ((KEYS.api_refused, "rate"), (KEYS.rejected_counts, "invalid"), (hour, "rate key_1")):
        world.call("hset", key, mapping={field: 3, b"\xfe": value, "other": value})
    world.call("expire", hour, 60)
    assert (dict.fromkeys(REASONS, 0) | {"rate": 3}).items() <= world.run(refusals.totals()).items()
    assert 3 == world.run(refusals.last(START_MS, 1))["rate", "key_1"]
    assert 3 == world.run(world.rejected.counts())["invalid"]
    world.run(wire.close())


def test_a_name_that_is_not_utf8(world: World) -> None:
    """An endpoint whose name has another byte fails nothing of the others in the same call."""
    world.accept(callback("e1"), callback("e2", message="m2"), callback("quiet", endpoint=B))
    claims = {name: world.claim(name).callbacks for name in (A, B)}
    world.call("hset", RECORD, "name", b"acme https://a\xff.example:443")
    attempt = Attempt(world.now, 5, 200, None)
    outcomes = {"e1": Failed(), "e2": Delivered(), "quiet": Delivered()}
    asked = [
        ToSettle(
            endpoint_id(name),
            [
                Settlement(c.event_id, c.claim, outcomes[c.event_id], attempt, EndpointHealth.UP)
                for c in claims[name]
            ],
            claim=5,
        )
        for name in (A, B)
    ]
    settled = world.run(world.ledger.settle(asked))
    assert [[True, True], [True]] == [one.counted for one in settled]
    assert State.DELIVERED is world.event("quiet", "beta").state
    world.accept(callback("e3"))
    assert ["e3"] == [one.event_id for one in world.claim().callbacks]


def test_a_body_that_is_not_utf8(world: World) -> None:
    """A callback whose URL was written over is claimed as one without a body; those behind it are claimed too."""
    world.accept(callback("e1"), callback("e2", message="m2"))
    world.call("set", KEYS.body("acme", "e1"), b"https://a\xff.example/\nbody")
    found = {one.event_id: (one.url, one.body) for one in world.claim().callbacks}
    assert ("", None) == found["e1"]
    assert "https://a.example/hooks" == found["e2"][0]


def test_calls_that_are_taken_back_late(world: World) -> None:
    """Calls that are taken back after their second was forgotten leave no counter for ever."""
    wire = Wire(world.client)
    world.run(QueueWriter(wire, KEYS).refund(Look(1, {}, 0, set()), {"key_1": 2}))
    assert 0 < world.call("ttl", KEYS.api_rate("key_1", 1)) <= 5
    world.run(wire.close())


@pytest.mark.parametrize("key", [KEYS.events, KEYS.expiries])
def test_a_key_that_stops_a_command_is_named(world: World, key: str) -> None:
    """What waits cannot be told while a shared key is of another type, and the error says which."""
    world.call("set", key, "by hand")
    with pytest.raises(ResponseError, match=f"WRONGTYPE the key {key} holds"):
        world.run(world.installation.waiting())
    world.call("flushall")
