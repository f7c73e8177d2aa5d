"""Several subscriptions of one workspace, on a real server: one status change, a callback for each that wants it."""

from contextlib import suppress
from typing import Any

import pytest

from dispatcher.errors import AlreadyExists, InvalidInput, NotFound, RedisUnavailable, StillWaiting
from dispatcher.model import StatusChange, iso
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import Retry, State
from dispatcher.rules.render import RenderOptions, fan_out
from dispatcher.rules.workspace import Workspace
from dispatcher.store.arguments import Room, ToAccept
from dispatcher.store.keys import endpoint_id
from dispatcher.store.sealing import SecretBox
from dispatcher.store.subscriptions import Subscriptions
from dispatcher.store.workspaces import Workspaces
from tests.subscription_machine import RacedWorkspaces
from tests.world import START_MS, TOKEN, World

OWN = "acme https://a.example:443"
CRM, BILLING = "acme.crm https://crm.example:443", "acme.billing https://billing.example:443"


class Customer:
    """A workspace with two subscriptions beside its default one."""

    def __init__(self, world: World, url: str = "https://a.example/hooks") -> None:
        self.world = world
        self.workspaces = Workspaces(world.client, world.keys, SecretBox())
        self.subscriptions = Subscriptions(self.workspaces)
        world.run(self.workspaces.add("acme", "zeckta", url, now_ms=START_MS))
        self.add("crm")
        self.add("billing", events=["MESSAGE_DELIVERED"])

    def add(self, name: str, **terms: Any) -> Workspace:
        """Adds a subscription at a server of its own."""
        return self.world.run(
            self.subscriptions.add("acme", name, f"https://{name}.example/hooks", now_ms=START_MS, **terms)
        )

    def remove(self, name: str, *, force: bool = False) -> int:
        """Removes a subscription."""
        return self.world.run(self.subscriptions.remove("acme", name, self.world.ledger, force=force))

    @property
    def workspace(self) -> Workspace:
        """As it is now."""
        return self.world.run(self.workspaces.require("acme"))

    def tell(self, *changes: StatusChange, rendered_by: Workspace | None = None) -> list[str]:
        """Has status changes accepted, as intake does; the word for each."""
        workspace, batch = rendered_by or self.workspace, ToAccept()
        for entry, one in zip(self.world.enqueued(len(changes)), changes, strict=True):
            for callback in fan_out(one, workspace, self.world.now, RenderOptions()):
                batch.add(entry, callback)
        revisions = {"acme": workspace.revision}
        accepted = self.world.run(self.world.ledger.accept(TOKEN, revisions, [], batch, Room()))
        return accepted.words

    def states(self, *ids: str) -> dict[str, State | None]:
        """The states of callbacks; None: there is none."""
        found = {one: self.world.run(self.world.callbacks.get("acme", one)) for one in ids}
        return {one: callback and callback.state for one, callback in found.items()}


def change(event_id: str = "e1", status: str = "SENT", **fields: Any) -> StatusChange:
    """A status change of message m1."""
    message = {"uuid": "m1", "src": "ACME", "dest": "+233200000001"}
    given = {"eventId": event_id, "workspace": "acme", "status": status, "timestamp": iso(START_MS)}
    return StatusChange.from_dict(given | {"message": message} | fields)


@pytest.fixture
def customer(world: World) -> Customer:
    """acme, with default, crm (all events) and billing (deliveries)."""
    return Customer(world)


def queued(world: World) -> int:
    """Entries on the queue."""
    return int(world.call("xlen", world.keys.events))


def test_one_callback_for_each_that_wants_it(world: World, customer: Customer) -> None:
    """Each has an entry, an endpoint and an end of its own; the queue entry is gone, the message has all."""
    assert customer.tell(change("e1"), change("e2", "DELIVERED")) == ["accepted", "accepted"]
    assert queued(world) == 0
    assert world.deliver_all(OWN, CRM, BILLING) == ["e1", "e2", "e1.crm", "e2.crm", "e2.billing"]
    assert customer.states("e1.billing") == {"e1.billing": None}
    assert world.event("e2").others == ("billing", "crm")
    shown = world.run(world.callbacks.others(world.event("e2")))
    assert [(one.event_id, one.subscription, one.endpoint) for one in shown] == [
        ("e2.billing", "billing", "https://billing.example:443"),
        ("e2.crm", "crm", "https://crm.example:443"),
    ]
    of_message = world.run(world.callbacks.of_message("acme", "m1"))
    assert {one.event_id for one in of_message} == {"e1", "e2", "e1.crm", "e2.crm", "e2.billing"}


@pytest.mark.parametrize("is_same", [True, False], ids=["the same", "another"])
def test_told_again(world: World, customer: Customer, is_same: bool) -> None:
    """It causes no callback again, for nobody; another status change with its eventId is a conflict, once."""
    customer.tell(change())
    again = change() if is_same else change(status="DELIVERED")
    assert customer.tell(again) == ["duplicate" if is_same else "conflict"]
    assert world.deliver_all(OWN, CRM, BILLING) == ["e1", "e1.crm"]
    assert customer.tell(again) == ["duplicate" if is_same else "conflict"]
    assert world.deliver_all(OWN, CRM, BILLING) == []
    rejected = world.run(world.rejected.newest())
    assert [one.reason for one in rejected] == ([] if is_same else ["conflict"] * 2)


def test_told_twice_in_one_batch(world: World, customer: Customer) -> None:
    """The second is a duplicate."""
    assert customer.tell(change(), change()) == ["accepted", "duplicate"]
    assert world.deliver_all(OWN, CRM) == ["e1", "e1.crm"]


def test_a_subscription_added_between_two_tellings_gets_nothing_of_the_first(
    world: World, customer: Customer
) -> None:
    """It hears of later status changes alone."""
    customer.tell(change())
    customer.add("late")
    assert customer.tell(change(), change("e2")) == ["duplicate", "accepted"]
    late = "acme.late https://late.example:443"
    assert world.deliver_all(OWN, CRM, late) == ["e1", "e2", "e1.crm", "e2.crm", "e2.late"]


def test_a_change_between_rendering_and_acceptance(world: World, customer: Customer) -> None:
    """What was rendered for other subscriptions than there are now stays on the queue, whole."""
    before = customer.workspace
    customer.remove("crm")
    assert customer.tell(change(), rendered_by=before) == ["changed"]
    assert queued(world) == 1
    assert customer.states("e1", "e1.crm") == {"e1": None, "e1.crm": None}


def test_who_wants_it_is_known_without_the_default_one(world: World) -> None:
    """Where the default subscription has no URL the status change is known all the same: told again, it is a duplicate."""
    customer = Customer(world, url="")
    assert customer.tell(change()) == ["accepted"]
    assert customer.states("e1", "e1.crm") == {"e1": State.FANNED_OUT, "e1.crm": State.PENDING}
    customer.add("late")
    assert customer.tell(change()) == ["duplicate"]
    assert customer.tell(change(status="FAILED")) == ["conflict"]
    assert world.deliver_all(CRM, "acme.late https://late.example:443") == ["e1.crm"]
    assert world.event("e1").others == ("crm",)


def test_what_nobody_wants_is_known_too(world: World) -> None:
    """A subscription that is added later does not get it if it is told again."""
    customer = Customer(world, url="")
    customer.remove("crm")
    assert customer.tell(change()) == ["accepted"]
    customer.add("late")
    assert customer.tell(change()) == ["duplicate"]
    assert queued(world) == 0


def test_a_url_of_its_own_replaces_all(world: World, customer: Customer) -> None:
    """`callbackUrl` in a status change is the only receiver of it."""
    assert customer.tell(change(callbackUrl="https://own.example/x")) == ["accepted"]
    assert world.deliver_all("acme https://own.example:443") == ["e1"]
    assert customer.states("e1.crm") == {"e1.crm": None}


def test_a_full_endpoint_fails_alone(world: World, customer: Customer) -> None:
    """The callback for it ends `failed` (endpoint_full) and can be replayed; the others are accepted."""
    world.ledger.options = type(world.ledger.options)(max_waiting=1)
    assert customer.tell(change("e1")) == ["accepted"]
    assert world.deliver_all(OWN) == ["e1"]
    assert customer.tell(change("e2")) == ["accepted"]
    assert customer.states("e2", "e2.crm") == {"e2": State.PENDING, "e2.crm": State.FAILED}
    assert world.event("e2.crm").error == "endpoint_full"
    assert customer.tell(change("e2")) == ["duplicate"]
    assert world.deliver_all(OWN, CRM) == ["e2", "e1.crm"]
    assert world.run(world.ledger.replay("acme", "e2.crm")) == "replayed"
    assert world.deliver_all(CRM) == ["e2.crm"]


def test_one_that_met_a_full_endpoint_opens_no_way_past_those_before_it(
    world: World, customer: Customer
) -> None:
    """The third callback of a message waits for the first, which is to be sent again, though the second has ended."""
    world.call("hset", world.keys.workspace("acme"), "ordering", "strict")
    world.ledger.options = type(world.ledger.options)(max_waiting=1)
    customer.tell(change("e1"))
    [first] = world.claim(OWN, 1).callbacks
    world.settle("e1", first.claim, Retry(60_000), error="http_500")
    customer.tell(change("e2"))
    assert customer.states("e1", "e2") == {"e1": State.RETRYING, "e2": State.FAILED}
    world.ledger.options = type(world.ledger.options)()
    customer.tell(change("e3"))
    assert [] == world.claim(OWN, 5).callbacks
    world.now += 60_000
    assert world.deliver_all(OWN) == ["e1", "e3"]


def test_a_full_default_endpoint_fails_alone(world: World, customer: Customer) -> None:
    """The status change is accepted as a whole: the other subscriptions get it."""
    world.ledger.options = type(world.ledger.options)(max_waiting=1)
    customer.tell(change("e1"))
    world.deliver_all(CRM)
    assert customer.tell(change("e2")) == ["accepted"]
    assert customer.states("e2", "e2.crm") == {"e2": State.FAILED, "e2.crm": State.PENDING}
    assert customer.tell(change("e2")) == ["duplicate"]
    assert world.deliver_all(OWN, CRM) == ["e1", "e2.crm"]


@pytest.mark.parametrize("damaged", [OWN, CRM], ids=["default", "crm"])
def test_a_damaged_endpoint_leaves_the_status_change_on_the_queue(
    world: World, customer: Customer, damaged: str
) -> None:
    """Once its key is mended, the same status change is completed: each subscription gets it once."""
    key = world.keys.endpoint(endpoint_id(damaged))
    world.call("set", key, "overwritten")
    assert customer.tell(change()) == ["broken"]
    assert queued(world) == 1
    world.run(world.ledger.mend([endpoint_id(damaged)]))
    assert customer.tell(change()) in (["accepted"], ["duplicate"])
    assert sorted(world.deliver_all(OWN, CRM)) == ["e1", "e1.crm"]
    world.call("delete", *world.call("keys", "dispatcher:aside:*"), world.keys.events)


@pytest.mark.parametrize("kind", ["lane", "leased", "chain", "expiries"])
def test_a_run_that_breaks_off_is_completed(world: World, customer: Customer, kind: str) -> None:
    """Wherever it breaks, told again each subscription has one callback."""
    customer.tell(change("e0"))
    key = {
        "lane": world.keys.lane(endpoint_id(CRM)),
        "leased": world.keys.leased(endpoint_id(CRM)),
        "chain": world.keys.chain(endpoint_id(CRM), "m1"),
        "expiries": world.keys.expiries,
    }[kind]
    before = world.call("dump", key)
    world.call("set", key, "overwritten")
    with suppress(RedisUnavailable):
        customer.tell(change("e1"))
    world.call("delete", key)
    if before:
        world.call("restore", key, 0, before)
    customer.tell(change("e1"))
    customer.tell(change("e1"))
    assert sorted(world.deliver_all(OWN, CRM)) == ["e0", "e0.crm", "e1", "e1.crm"]
    world.call("delete", world.keys.events)


def test_limits_and_order_are_the_subscriptions(world: World, customer: Customer) -> None:
    """Its own concurrency and order; the default one's are others."""
    customer.add("narrow", max_concurrency=1, ordering="latest")
    customer.tell(change("e1"), change("e2", "DELIVERED", timestamp=iso(START_MS + 1)))
    narrow = "acme.narrow https://narrow.example:443"
    assert customer.states("e1.narrow", "e2.narrow") == {
        "e1.narrow": State.SUPERSEDED,
        "e2.narrow": State.PENDING,
    }
    assert [one.event_id for one in world.claim(narrow).callbacks] == ["e2.narrow"]
    found = world.run(world.endpoints.get(EndpointName("acme", "https://narrow.example:443", "narrow")))
    assert found
    assert (found.owner, found.subscription) == ("acme.narrow", "narrow")
    world.settle("e2.narrow", 1, endpoint=narrow)
    assert sorted(world.deliver_all(OWN, CRM, BILLING)) == ["e1", "e1.crm", "e2", "e2.billing", "e2.crm"]


def test_paused_it_waits(world: World, customer: Customer) -> None:
    """What there is and what comes waits until it is resumed; the others go on."""
    world.run(customer.subscriptions.pause("acme", "crm"))
    customer.tell(change("e1"))
    assert world.claim(CRM).callbacks == []
    assert world.deliver_all(OWN) == ["e1"]
    world.run(customer.subscriptions.resume("acme", "crm", world.ledger))
    hints = world.run(world.ledger.wake()).hints
    assert [hint.endpoint for hint in hints] == [endpoint_id(CRM)]
    assert world.deliver_all(CRM) == ["e1.crm"]


def test_removed_while_callbacks_wait(world: World, customer: Customer) -> None:
    """Refused; with force it is gone, what waits is due at once, and its name is free again."""
    customer.tell(change())
    with pytest.raises(StillWaiting, match="1 callback waits for subscription 'crm'"):
        customer.remove("crm")
    assert customer.remove("crm", force=True) == 1
    assert list(customer.workspace.subscriptions) == ["billing"]
    assert [one.event_id for one in world.claim(CRM).callbacks] == ["e1.crm"]
    customer.add("crm")
    world.settle("e1.crm", 1, endpoint=CRM)
    world.deliver_all(OWN)


@pytest.mark.parametrize("force", [False, True], ids=["refused", "forced"])
@pytest.mark.parametrize("is_known", [False, True], ids=["a new endpoint", "a known one"])
def test_accepted_while_it_is_removed(world: World, customer: Customer, is_known: bool, force: bool) -> None:
    """After the removal has looked what waits, and before it is written: refused, and the callback is sent."""
    if is_known:
        customer.tell(change("e0"))
        world.deliver_all(OWN, CRM)
    raced = RacedWorkspaces(world.client, world.keys, SecretBox())
    workspace, [entry] = customer.workspace, world.enqueued(1)
    batch = ToAccept((entry, one) for one in fan_out(change(), workspace, world.now, RenderOptions()))

    async def accept() -> None:
        revisions = {"acme": workspace.revision}
        assert (await world.ledger.accept(TOKEN, revisions, [], batch, Room())).words == ["accepted"]

    raced.between = accept()
    removal = Subscriptions(raced).remove("acme", "crm", world.ledger, force=force)
    if force:
        world.run(removal)
    else:
        with pytest.raises(StillWaiting, match="1 callback waits for subscription 'crm'"):
            world.run(removal)
    assert ("crm" in customer.workspace.subscriptions) != force
    assert world.deliver_all(OWN, CRM) == ["e1", "e1.crm"]


def test_changed_while_it_is_removed(world: World, customer: Customer) -> None:
    """Its URL is changed, and a callback accepted for the new one: the removal looks again."""
    raced = RacedWorkspaces(world.client, world.keys, SecretBox())

    async def change_url() -> None:
        workspace = await customer.subscriptions.update("acme", "crm", callback_url="https://new.example/")
        rendered = fan_out(change(), workspace, world.now, RenderOptions())
        batch = ToAccept((entry, one) for one in rendered)
        await world.ledger.accept(TOKEN, {"acme": workspace.revision}, [], batch, Room())

    [entry] = world.enqueued(1)
    raced.between = change_url()
    with pytest.raises(StillWaiting):
        world.run(Subscriptions(raced).remove("acme", "crm", world.ledger))
    assert world.deliver_all(OWN, "acme.crm https://new.example:443") == ["e1", "e1.crm"]


REFUSED: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "default": ("default", {}, InvalidInput, "the workspace's own"),
    "a name with a full stop": ("a.b", {}, InvalidInput, "1 to 32 letters"),
    "there already": ("crm", {}, AlreadyExists, "has a subscription 'crm' already"),
    "an unknown event": ("new", {"events": ["DELIVERED"]}, InvalidInput, "it has MESSAGE_DELIVERED, "),
    "an unknown channel": ("new", {"channels": ["sms", "FAX"]}, InvalidInput, "there are SMS, RCS, WHATSAPP"),
    "another platform": ("new", {"dialect": "sendexa"}, InvalidInput, "its workspace's platform, zeckta"),
    "an order": ("new", {"ordering": "any"}, InvalidInput, "one of first_attempt"),
    "a limit": ("new", {"max_concurrency": 0}, InvalidInput, "1 to 1,000 POSTs at once"),
}


@pytest.mark.parametrize(("name", "terms", "error", "says"), REFUSED.values(), ids=REFUSED)
def test_refused(
    customer: Customer, name: str, terms: dict[str, Any], error: type[Exception], says: str
) -> None:
    """Nothing is changed, and the error says what is allowed."""
    before = customer.workspace
    with pytest.raises(error, match=says):
        customer.add(name, **terms)
    assert customer.workspace == before


def test_sixteen_beside_the_default_one(customer: Customer) -> None:
    """A seventeenth is refused."""
    for number in range(14):
        customer.add(f"s{number}")
    with pytest.raises(InvalidInput, match="has 16 subscriptions beside the default one"):
        customer.add("one-more")


def test_an_unknown_one(world: World, customer: Customer) -> None:
    """The error suggests the nearest, and names all."""
    with pytest.raises(NotFound, match="did you mean crm\\? it has default, billing, crm"):
        world.run(customer.subscriptions.pause("acme", "cmr"))


def test_a_damaged_record_stops_its_subscription_alone(world: World, customer: Customer) -> None:
    """The others go on, and it says why."""
    world.call("hset", world.keys.workspace("acme"), "retry_schedule:crm", "0 abc")
    found = customer.workspace
    assert found.subscriptions["crm"].problem == "its record in Redis is damaged"
    assert found.subscriptions["billing"].problem is None
    assert customer.tell(change("e1", "DELIVERED")) == ["accepted"]
    assert world.deliver_all(OWN, CRM, BILLING) == ["e1", "e1.crm", "e1.billing"]


def test_its_url_is_the_registered_one(customer: Customer) -> None:
    """Not another one at the same server, which somebody else may have chosen."""
    crm = customer.workspace.subscriptions["crm"]
    assert crm.has_url("https://crm.example/hooks")
    assert not crm.has_url("https://crm.example/other")


def test_equal_values_keep_the_revision(world: World, customer: Customer) -> None:
    """An update that changes nothing has no effect on what is being accepted."""
    revision = customer.workspace.revision
    world.run(customer.subscriptions.update("acme", "billing", events=["MESSAGE_DELIVERED"]))
    assert customer.workspace.revision == revision
    world.run(customer.subscriptions.update("acme", "billing", events=[]))
    assert customer.workspace.revision != revision
    assert customer.workspace.subscriptions["billing"].events == ()


def test_a_secret_of_its_own(world: World, customer: Customer) -> None:
    """Rotation leaves the others' secrets alone; the workspace's encryption is rotated with theirs."""
    before = customer.workspace
    world.run(customer.subscriptions.rotate_secret("acme", "crm", now_ms=START_MS, grace_ms=1000))
    after = customer.workspace
    assert len(after.subscriptions["crm"].secrets) == 2
    assert (after.secrets, after.subscriptions["billing"]) == (
        before.secrets,
        before.subscriptions["billing"],
    )
    assert world.run(customer.workspaces.rotate_encryption()).count == 1
    assert customer.workspace.subscriptions == after.subscriptions
