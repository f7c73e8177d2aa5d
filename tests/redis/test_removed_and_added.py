"""A subscription that was removed, and one of the same name that was added later: they are two, on a real server."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from config.settings import Settings
from dispatcher.model import iso
from dispatcher.rules.outcomes import Failed
from tasks import wiring
from tasks.actions import replay
from tasks.actions.events import Filter
from tasks.actions.replay import How
from tests.redis.test_actions import at_once
from tests.redis.test_subscription_terms import serve
from tests.redis.test_subscriptions import BILLING, CRM, OWN, Customer, change
from tests.world import World

HOW = How(expiry_seconds=3600)


@pytest.fixture
def do(world: World, redis_url: str) -> Callable[..., Any]:
    """Runs an action on the store, by the real clock, which the world's ledger has too."""
    world.now = round(time.time() * 1000) - 1000

    def run(action: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        async def act() -> Any:
            async with wiring.store(Settings(_env_file=None, redis_url=redis_url)) as store:
                return await action(store, *args)

        return world.run(act())

    return run


def failed(world: World, *endpoints: str) -> None:
    """What waits for these endpoints ends failed."""
    for endpoint in endpoints:
        for one in world.claim(endpoint).callbacks:
            world.settle(one.event_id, one.claim, Failed(), endpoint=endpoint, error="http_500")


def removed_and_added(world: World, customer: Customer) -> None:
    """crm is removed, and another crm is added a second later."""
    customer.remove("crm", force=True)
    world.now += 1000
    world.run(customer.subscriptions.add("acme", "crm", "https://new.example/", now_ms=world.now))


def test_a_callback_of_the_first_is_not_replayed(world: World, do: Callable[..., Any]) -> None:
    """Neither once it is gone, nor when another one has its name; nor as a copy. The second one's are."""
    customer = Customer(world)
    for name in "crm", "billing":
        customer.remove(name)
        url = f"https://{name}.example/hooks"
        world.run(customer.subscriptions.add("acme", name, url, now_ms=world.now))
    customer.tell(change("e1", timestamp=iso(world.now)))
    failed(world, OWN, CRM, BILLING)
    customer.remove("crm")
    assert do(replay.replay_one, "acme", "e1.crm", HOW) == ("subscription_removed", "e1.crm")
    removed = world.now + 1
    world.run(customer.subscriptions.add("acme", "crm", "https://new.example/", now_ms=removed))
    as_new = How(expiry_seconds=3600, as_new=True)
    assert do(replay.replay_one, "acme", "e1.crm", as_new) == ("subscription_removed", "e1.crm")
    world.now = removed
    customer.tell(change("e2", timestamp=iso(world.now)))
    new = "acme.crm https://new.example:443"
    failed(world, OWN, new)
    assert do(replay.replay_one, "acme", "e2.crm", HOW) == ("replayed", "e2.crm")
    failed(world, new)
    events = do(replay.replayable, Filter("failed", "acme"))
    counted = do(replay.replay_all, Filter("failed", "acme"), events, HOW, at_once)
    assert counted.words == {"replayed": 3, "subscription_removed": 1}
    world.now += 60_000
    failed(world, OWN, new, BILLING)


@pytest.mark.parametrize("copy", ["", "e1b.crm"], ids=["itself", "a copy"])
def test_one_that_was_replayed_before(world: World, copy: str) -> None:
    """It waits while its subscription is removed and added again: it ends failed, without a POST."""
    customer = Customer(world)
    customer.tell(change("e1"))
    failed(world, OWN, CRM)
    assert world.run(world.ledger.replay("acme", "e1.crm", copy=copy, ttl_ms=3_600_000)) == "replayed"
    removed_and_added(world, customer)
    assert serve(world, CRM) == []
    assert world.event(copy or "e1.crm").error == "subscription_removed"


def test_replayed_once_more(world: World) -> None:
    """What the present subscription got is replayed as before."""
    customer = Customer(world)
    customer.tell(change("e1"))
    failed(world, OWN, CRM)
    assert world.run(world.ledger.replay("acme", "e1.crm", ttl_ms=3_600_000)) == "replayed"
    assert serve(world, CRM) == ["https://crm.example/hooks"]
