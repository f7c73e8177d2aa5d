"""Traces and masks on a real server: what is kept with a callback, and what else is done with it."""

from typing import Any

import pytest

from dispatcher.errors import InvalidInput
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.workspace import Workspace
from dispatcher.store.keys import endpoint_id
from dispatcher.store.stored_callback import Waiting
from tests.redis.test_subscriptions import CRM, OWN, Customer, change
from tests.world import START_MS, World

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STATE = "congo=t61rcWkgMzE,rojo=1"
TRACED = {"traceparent": PARENT, "tracestate": STATE}


@pytest.fixture
def customer(world: World) -> Customer:
    """acme, with default, crm (all events) and billing (deliveries)."""
    return Customer(world)


def kept(world: World, event_id: str) -> bytes:
    """What Redis keeps to POST."""
    found: bytes = world.call("get", world.keys.body("acme", event_id))
    return found


def test_a_trace_reaches_every_subscription(world: World, customer: Customer) -> None:
    """The worker that claims a callback has URL, body and trace apart; without a trace nothing more is kept."""
    customer.tell(
        change("e1", **TRACED),
        change("e2", traceparent=PARENT, message=other("m2")),
        change("e3", message=other("m3")),
    )
    for endpoint, name in ((OWN, ""), (CRM, ".crm")):
        traces: dict[str, tuple[str, ...]] = {}
        while claimed := world.claim(endpoint).callbacks:
            for one in claimed:
                traces[one.event_id] = one.trace
                assert one.url == f"{EndpointName.parse(endpoint).origin.removesuffix(':443')}/hooks"
                assert (one.body or b"").startswith(b'{"eventId":"e')
                world.settle(one.event_id, 1, endpoint=endpoint)
        assert traces == {f"e1{name}": (PARENT, STATE), f"e2{name}": (PARENT,), f"e3{name}": ()}
    assert kept(world, "e3").startswith(b"https://a.example/hooks\n{")


def other(uuid: str) -> dict[str, str]:
    """Another message."""
    return {"uuid": uuid, "src": "ACME", "dest": "+233200000001"}


def test_told_again_with_another_trace(world: World, customer: Customer) -> None:
    """It is a duplicate; the first trace stands."""
    assert customer.tell(change(**TRACED)) == ["accepted"]
    again = change(traceparent=PARENT.replace("4bf9", "ffff"))
    assert customer.tell(again, change()) == ["duplicate", "duplicate"]
    assert [one.trace for one in world.claim(OWN).callbacks] == [(PARENT, STATE)]
    world.settle("e1", 1, endpoint=OWN)
    world.deliver_all(CRM)


@pytest.mark.parametrize("fields", [{}, TRACED], ids=["plain", "traced"])
def test_moved_replayed_and_named_again(world: World, customer: Customer, fields: dict[str, Any]) -> None:
    """An operator's commands know the URL without the trace, and keep the trace."""
    customer.remove("crm")
    trace = tuple(fields.values())
    customer.tell(change(**fields))
    endpoint = world.run(world.endpoints.get(EndpointName.parse(OWN)))
    assert endpoint
    assert world.run(world.endpoints.next_url(endpoint)) == "https://a.example/hooks"
    body = kept(world, "e1").partition(b"\n")[2]
    new = EndpointName("acme", "https://new.example:443")
    moving = world.ledger.move(
        "acme", "https://a.example/hooks", "https://new.example/x", str(new), [Waiting("e1")]
    )
    assert world.run(moving) == 1
    world.call("hdel", world.keys.endpoint(endpoint_id(new)), "name")
    assert world.run(world.endpoints.restore(endpoint_id(new), "acme", "e1", START_MS))
    [claimed] = world.claim(str(new)).callbacks
    assert (claimed.url, claimed.trace, claimed.body) == ("https://new.example/x", trace, body)
    world.settle("e1", 1, endpoint=str(new))
    assert world.run(world.ledger.replay("acme", "e1")) == "replayed"
    assert [one.trace for one in world.claim(str(new)).callbacks] == [trace]
    world.settle("e1", 2, endpoint=str(new))


def bodies(world: World, customer: Customer, event_id: str) -> dict[str, bytes]:
    """The bodies of a status change, by subscription."""
    customer.tell(change(event_id, message=other("m1") | {"cost": "0.10"}))
    found = {name: kept(world, f"{event_id}{name}").partition(b"\n")[2] for name in ("", ".crm")}
    world.deliver_all(OWN, CRM)
    return found


def update(customer: Customer, name: str, **terms: Any) -> Workspace:
    """Changes a subscription."""
    return customer.world.run(customer.subscriptions.update("acme", name, **terms))


def test_masks(world: World, customer: Customer) -> None:
    """Each subscription's bodies lack what it leaves out, the default one's as well; an empty mask leaves out nothing."""
    whole = bodies(world, customer, "e1")
    assert whole[""] == whole[".crm"]
    update(customer, "crm", without_fields=["message.dest"])
    update(customer, "default", without_fields=["message.cost", "timestamp"])
    found = bodies(world, customer, "e1b")
    assert b'"dest"' not in found[".crm"]
    assert b'"cost":0.10' in found[".crm"]
    assert b'"cost"' not in found[""]
    assert b'"dest"' in found[""]
    update(customer, "crm", without_fields=[])
    update(customer, "default", without_fields=[])
    assert bodies(world, customer, "e1")[""] == whole[""]
    assert {one.replace(b"e1c", b"e1") for one in bodies(world, customer, "e1c").values()} == {whole[""]}


def test_a_mask_that_is_refused(customer: Customer) -> None:
    """Nothing changes; one that fits its dialect does not fit another by itself."""
    before = customer.workspace
    with pytest.raises(InvalidInput, match="has no field 'dest'; it can leave out"):
        update(customer, "crm", without_fields=["dest"])
    with pytest.raises(InvalidInput, match="eventId cannot be left out"):
        customer.add("new", without_fields=["eventId"])
    assert customer.workspace == before


def test_a_mask_and_another_dialect(world: World) -> None:
    """A change of the dialect checks the mask that there is."""
    customer = Customer(world)
    world.run(customer.workspaces.add("sen", "sendexa", "https://a.example/hooks", now_ms=START_MS))
    add = customer.subscriptions.add(
        "sen", "crm", "https://crm.example/", now_ms=START_MS, without_fields=["from"]
    )
    world.run(add)
    with pytest.raises(InvalidInput, match="sendexa-short has no field 'from'"):
        world.run(customer.subscriptions.update("sen", "crm", dialect="sendexa-short"))
    changed = world.run(
        customer.subscriptions.update("sen", "crm", dialect="sendexa-short", without_fields=["recipient"])
    )
    assert changed.subscriptions["crm"].without_fields == ("recipient",)


def test_a_removed_subscription_takes_its_mask_along(customer: Customer) -> None:
    """One of the same name begins without it."""
    update(customer, "crm", without_fields=["message.dest"])
    customer.remove("crm")
    customer.add("crm")
    assert customer.workspace.subscriptions["crm"].without_fields == ()
