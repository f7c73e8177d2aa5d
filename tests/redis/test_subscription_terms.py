"""Stored terms of one subscription that cannot be followed any more: they stop that one, and no other, on a real server."""

import asyncio
import json
from collections.abc import Mapping
from unittest.mock import Mock

import pytest

from dispatcher.rules.decide import Policy
from dispatcher.rules.outcomes import State
from dispatcher.sending.answer import Answer
from dispatcher.sending.sender import Sender
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import endpoint_id
from dispatcher.store.rejected import Rejected
from dispatcher.store.replies import Hint
from dispatcher.store.sealing import SecretBox
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.store.workspaces import Workspaces
from dispatcher.worker.claimer import Claimer
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.settler import Settler
from dispatcher.worker.slots import Slots
from dispatcher.worker.turn import Turn, TurnParts
from tests.command import command
from tests.redis.test_intake import KEYS, Reader, line
from tests.redis.test_subscriptions import BILLING, CRM, OWN, Customer, change
from tests.world import World


@pytest.fixture
def customer(world: World) -> Customer:
    """acme, with default, crm (all events) and billing (deliveries)."""
    return Customer(world)


class Receivers:
    """Answer 200; `posts` are the URLs that were POSTed to."""

    def __init__(self) -> None:
        self.posts: list[str] = []

    async def post(
        self, url: str, _headers: Mapping[str, str], _body: bytes, _workspace: str, **_options: object
    ) -> Answer:
        """One POST."""
        self.posts.append(url)
        return Answer(200)


def serve(world: World, *endpoints: str, allow_http: bool = False) -> list[str]:
    """Real turns at each endpoint; the URLs that were POSTed to."""
    receivers = Receivers()

    async def work() -> None:
        parts = TurnParts(
            ledger=world.ledger,
            claimer=Claimer(world.ledger),
            settler=Settler(world.ledger),
            sender=Sender(receivers, "test"),
            workspaces=WorkspaceCache(Workspaces(world.client, world.keys, SecretBox())),
            watch=RedisWatch(),
            policy=Policy(),
            slots=Slots(10),
            alerts=Mock(),
            tail=Mock(),
            allow_http=allow_http,
        )
        for endpoint in endpoints:
            await Turn(Hint(endpoint_id(endpoint), "acme"), parts).run()

    world.run(work())
    return receivers.posts


def store(world: World, **fields: str) -> None:
    """Writes fields of acme's record as an earlier version, another setting or a hand left them."""
    for name, value in fields.items():
        world.call("hset", world.keys.workspace("acme"), name.replace("__", ":"), value)


CRM_HTTP, OWN_HTTP = "acme.crm http://crm.example:80", "acme http://a.example:80"


def test_http_stops_one_of_several(world: World, customer: Customer) -> None:
    """Registered while DISPATCHER_ALLOW_HTTP was on: its callback ends failed with the reason, and can be replayed."""
    store(world, callback_url__crm="http://crm.example/hooks")
    assert customer.tell(change("e1", "DELIVERED")) == ["accepted"]
    assert serve(world, OWN, CRM_HTTP, BILLING) == [
        "https://a.example/hooks",
        "https://billing.example/hooks",
    ]
    event = world.event("e1.crm")
    assert (event.state, event.error) == (State.FAILED, "blocked_address")
    assert event.answer == "its callback URL is http://, and DISPATCHER_ALLOW_HTTP is off"
    assert world.run(world.ledger.replay("acme", "e1.crm", ttl_ms=60_000)) == "replayed"
    assert serve(world, CRM_HTTP, allow_http=True) == ["http://crm.example/hooks"]


def test_the_default_ones_http_stops_it_alone(world: World, customer: Customer) -> None:
    """The other subscriptions get the status change."""
    store(world, callback_url="HTTP://a.example/hooks")
    assert customer.tell(change("e1", "DELIVERED")) == ["accepted"]
    assert len(serve(world, OWN_HTTP, CRM, BILLING)) == 2
    assert world.event("e1").error == "blocked_address"


UNREADABLE = {
    "a URL": ({"callback_url__crm": "https://crm.example:0/"}, "callback URL has port 0"),
    "no URL": ({"callback_url__crm": "crm"}, "callback URL must start with https://"),
    "a dialect": ({"dialect__crm": "zeckta-new"}, "this installation has no dialect 'zeckta-new'"),
}


def test_shown(world: World, customer: Customer, redis_url: str) -> None:
    """`subscription list` and `show` say why nothing goes to a URL."""
    store(world, callback_url__crm="http://crm.example/hooks", callback_url__billing="nowhere")
    assert list(customer.workspace.subscriptions) == ["billing", "crm"]
    listed = json.loads(command(redis_url, "subscription", "list", "acme", "--json").stdout)
    found = {one["subscription"]: one["problem"] for one in listed}
    assert found == {
        "default": None,
        "billing": "callback URL must start with https://",
        "crm": "callback URL must be https (DISPATCHER_ALLOW_HTTP=true allows http)",
    }
    shown = command(redis_url, "subscription", "show", "acme", "crm", "--json", ALLOW_HTTP="true")
    assert json.loads(shown.stdout)["problem"] is None


@pytest.mark.parametrize(("fields", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_rendered_ends_failed(
    world: World, customer: Customer, fields: dict[str, str], why: str
) -> None:
    """With the reason, and for that subscription alone; a replay ends the same way."""
    store(world, **fields)
    crm = "acme.crm https://unreadable.invalid:443" if "callback_url__crm" in fields else CRM
    for _ in "once", "replayed":
        customer.tell(change("e1", "DELIVERED"))
        posts = serve(world, OWN, crm, BILLING)
        assert "https://crm.example/hooks" not in posts
        event = world.event("e1.crm")
        assert (event.state, event.error, event.answer) == (State.FAILED, "not_rendered", why)
        assert world.event("e1.billing").state is world.event("e1").state is State.DELIVERED
        assert world.run(world.ledger.replay("acme", "e1.crm", ttl_ms=60_000)) == "replayed"
    serve(world, crm)


UNKNOWN = {
    "an event": ({"events__crm": "MESSAGE_READ_TWICE"}, False),
    "a channel": ({"channels__crm": "FAX"}, False),
    "a field": ({"without_fields__crm": "message.none eventId.x"}, True),
    "a schedule beyond the expiry": ({"retry_schedule__crm": "0 999999999"}, True),
    "an order": ({"ordering__crm": "random"}, True),
    "a state": ({"state__crm": "asleep"}, True),
}


@pytest.mark.parametrize(("fields", "is_sent"), UNKNOWN.values(), ids=UNKNOWN)
def test_terms_that_this_version_does_not_know(
    world: World, customer: Customer, fields: dict[str, str], is_sent: bool
) -> None:
    """Events and channels match nothing, the rest has no effect; `default` behaves alike."""
    store(world, **fields)
    customer.tell(change("e1", "DELIVERED"))
    assert ("https://crm.example/hooks" in serve(world, OWN, CRM, BILLING)) == is_sent
    store(world, **{name.partition("__")[0]: value for name, value in fields.items()})
    customer.tell(change("e2", "DELIVERED"))
    posts = serve(world, OWN, CRM, BILLING)
    assert ("https://a.example/hooks" in posts) == is_sent
    assert "https://billing.example/hooks" in posts


def test_a_damaged_record_keeps_its_terms(world: World, customer: Customer) -> None:
    """What is accepted for it meanwhile has no field and no event that it must not have, once it is repaired."""
    customer.add("lake", events=["MESSAGE_DELIVERED"], without_fields=["message.dest"])
    store(world, created__lake="soon")
    customer.tell(change("e1"), change("e2", "DELIVERED"))
    lake = "acme.lake https://lake.example:443"
    claimed = world.claim(lake).callbacks
    assert [one.event_id for one in claimed] == ["e2.lake"]
    assert b"dest" not in (claimed[0].body or b"")
    world.settle("e2.lake", 1, endpoint=lake)
    world.deliver_all(OWN, CRM, BILLING)


def test_a_name_that_no_subscription_can_have(world: World, customer: Customer) -> None:
    """A field that a hand wrote is no subscription, and damages nothing."""
    world.call("hset", world.keys.workspace("acme"), b"callback_url:\xff.x", "https://x.example/")
    assert list(customer.workspace.subscriptions) == ["billing", "crm"]


def test_one_receiver_as_before(redis_url: str) -> None:
    """A workspace without other subscriptions: its http URL has the status change rejected, with the reason."""

    async def work() -> list[str]:
        reader = Reader(redis_url)
        client = connect_async(redis_url)
        try:
            await Workspaces(client, KEYS, SecretBox(), allow_http=True).add(
                "acme", "zeckta", "http://a.example/hooks", now_ms=1
            )
            await client.xadd(KEYS.events, {"event": line()})
            await reader.drain()
            return [one.detail for one in await Rejected(client, KEYS).newest()]
        finally:
            await client.aclose()
            await reader.close()

    assert "DISPATCHER_ALLOW_HTTP=true allows http" in asyncio.run(work())[0]
