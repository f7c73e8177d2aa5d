"""Lists that are made of records and entries, and were lost: the sweep puts back what was in them, and nothing is removed meanwhile."""

from collections.abc import Callable

import pytest

from dispatcher.errors import StillWaiting
from dispatcher.rules.outcomes import Failed, State
from dispatcher.store.keys import Keys, endpoint_id
from dispatcher.store.sealing import SecretBox
from dispatcher.store.subscriptions import Subscriptions
from dispatcher.store.workspaces import Workspaces
from dispatcher.worker.sweeper import Sweeper
from tests.world import World, callback

A, B = "acme https://a.example:443", "beta https://b.example:443"
CRM = "acme.crm https://old.example:443"
KEYS = Keys()
URL = "https://a.example/hooks"

LOSSES: dict[str, Callable[[World, str], object]] = {
    "removed": lambda world, key: world.call("delete", key),
    "overwritten": lambda world, key: (world.call("delete", key), world.call("set", key, "by hand")),
}


@pytest.fixture(params=LOSSES)
def lose(request: pytest.FixtureRequest, world: World) -> Callable[[str], object]:
    """Has a key lost in one of the ways."""
    return lambda key: LOSSES[request.param](world, key)


@pytest.fixture
def workspaces(world: World) -> Workspaces:
    """Workspaces with readable secrets."""
    return Workspaces(world.client, world.keys, SecretBox())


def swept(world: World) -> None:
    """A worker meets what is broken, mends it and looks at everything."""
    sweeper = Sweeper(world.endpoints, world.ledger)
    world.run(world.ledger.expire())
    while not world.run(sweeper.step()):
        pass


def test_endpoints(world: World, lose: Callable[[str], object]) -> None:
    """Endpoints where callbacks wait, that are stopped, and that were used are listed again, each as before."""
    world.accept(callback("waits"), callback("stopped", endpoint=B))
    world.accept(callback("used", endpoint=CRM))
    world.deliver_all(B, CRM)
    world.run(world.ledger.stop(endpoint_id(B)))
    used_ms = world.now
    lose(KEYS.endpoints)
    world.now += 5
    swept(world)
    found = dict(world.call("zrange", KEYS.endpoints, 0, -1, withscores=True))
    expected = {A: world.now, B: float("inf"), CRM: used_ms}
    assert {endpoint_id(name).encode(): at for name, at in expected.items()} == found
    assert 1 == sum(one.waiting for one in world.run(world.endpoints.all()))
    world.deliver_all(A)


def test_endpoint_that_was_not_used_for_long(world: World) -> None:
    """One that left the list after the retention does not come back by its record, which is kept longer."""
    world.accept(callback("e1"))
    world.deliver_all(A)
    world.now += world.ledger.options.retention_ms + 3_600_001
    swept(world)
    swept(world)
    assert 1 == world.call("exists", KEYS.endpoint(endpoint_id(A)))
    assert 0 == world.call("exists", KEYS.endpoints)


def test_ended(world: World, lose: Callable[[str], object]) -> None:
    """What ended failed or expired is found by its state again; what is erased is not."""
    world.accept(callback("e1"), callback("e2", message="m2"), callback("e3", message="m3", ttl_ms=5))
    for one in world.claim(count=2).callbacks:
        world.settle(one.event_id, one.claim, Failed(), error="http_400")
    world.now += 5
    world.run(world.ledger.expire())
    lists = {state: KEYS.ended("acme", state) for state in ("failed", "expired")}
    before = {state: world.call("zrange", key, 0, -1, withscores=True) for state, key in lists.items()}
    assert (2, 1) == (len(before["failed"]), len(before["expired"]))
    for key in lists.values():
        lose(key)
    swept(world)
    for state, key in lists.items():
        assert before[state] == world.call("zrange", key, 0, -1, withscores=True)
        assert world.call("pttl", key) > 0
    world.run(world.ledger.erase("acme", ["e1"]))
    swept(world)
    assert [b"e2"] == world.call("zrange", lists["failed"], 0, -1)


def test_workspace_is_not_removed(world: World, workspaces: Workspaces) -> None:
    """Before the list of endpoints is whole again, waiting callbacks keep their workspace; with force they are due at once."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    world.accept(callback("e1"), callback("e2", message="m2"), callback("other", endpoint=B))
    world.run(world.ledger.stop(endpoint_id(A)))
    world.call("delete", KEYS.endpoints)
    with pytest.raises(StillWaiting, match="2 callbacks of 'acme' wait"):
        world.run(workspaces.remove("acme", world.ledger))
    assert 2 == world.run(workspaces.remove("acme", world.ledger, force=True))
    assert ["e1", "e2"] == sorted(one.event_id for one in world.claim().callbacks)
    assert State.PENDING is world.event("other", "beta").state
    world.call("flushall")


def test_subscription_is_not_removed(world: World, workspaces: Workspaces) -> None:
    """Callbacks that wait at a subscription's previous URL keep it."""
    subscriptions = Subscriptions(workspaces)
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    world.run(subscriptions.add("acme", "crm", "https://new.example/", now_ms=1))
    world.accept(callback("e1.crm", endpoint=CRM), callback("e1"))
    world.call("delete", KEYS.endpoints)
    with pytest.raises(StillWaiting, match="1 callback waits for subscription 'crm'"):
        world.run(subscriptions.remove("acme", "crm", world.ledger))
    assert 1 == world.run(subscriptions.remove("acme", "crm", world.ledger, force=True))
    world.call("flushall")
