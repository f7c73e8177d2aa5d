"""What versions without subscriptions wrote works on, with no step; none of them works beside a workspace that has some."""

import json
from pathlib import Path
from typing import Any

import pytest

from dispatcher.errors import InvalidInput, OtherFormat
from dispatcher.model import StatusChange, iso
from dispatcher.rules.outcomes import Retry, State
from dispatcher.rules.render import RenderOptions, fan_out
from dispatcher.rules.request_headers import request_headers
from dispatcher.store.arguments import Room, ToAccept
from dispatcher.store.format import FORMAT, WITH_SUBSCRIPTIONS, require_format
from dispatcher.store.sealing import SecretBox
from dispatcher.store.subscriptions import Subscriptions
from dispatcher.store.workspaces import Workspaces
from tests.redis.test_format import load, migrate
from tests.world import START_MS, TOKEN, World

DATA = Path(__file__).parent / "data" / "before-subscriptions.json"
"""What a worker of the last version without subscriptions left: callbacks that wait, retry, are leased, delivered or failed."""
OWN, OTHER = "acme https://a.example:443", "acme https://b.example:443"
CRM = "acme.crm https://crm.example:443"
PENDING = {"waits", "behind", "leased", "after-leased", "retries", "own-url"}


class Before:
    """The installation that the earlier version left."""

    def __init__(self, world: World) -> None:
        self.world = world
        load(world, DATA)
        migrate(world)
        self.workspaces = Workspaces(world.client, world.keys, SecretBox())
        self.subscriptions = Subscriptions(self.workspaces)

    def add(self, name: str = "crm", **terms: Any) -> None:
        """Adds a subscription."""
        url = f"https://{name}.example/hooks"
        self.world.run(self.subscriptions.add("acme", name, url, now_ms=START_MS, **terms))

    def tell(self, event_id: str, message: str, status: str = "SENT") -> str:
        """Has a status change accepted; the word for it."""
        said = {"uuid": message, "src": "ACME", "dest": "+233200000001"}
        fields = {"eventId": event_id, "workspace": "acme", "status": status, "timestamp": iso(START_MS)}
        change = StatusChange.from_dict(fields | {"message": said})
        workspace = self.world.run(self.workspaces.require("acme"))
        rendered = fan_out(change, workspace, self.world.now, RenderOptions())
        batch = ToAccept((entry, one) for entry in self.world.enqueued(1) for one in rendered)
        revisions = {"acme": workspace.revision}
        [word] = self.world.run(self.world.ledger.accept(TOKEN, revisions, [], batch, Room())).words
        return word


@pytest.fixture
def before(world: World) -> Before:
    """The installation that the earlier version left."""
    return Before(world)


def test_it_goes_on(world: World, before: Before) -> None:
    """All of it comes to its end, in its order, signed as it was; what is told again is known; a new one fans out."""
    assert world.run(world.installation.format()) == str(FORMAT)
    before.add()
    assert [before.tell("done", "m1"), before.tell("done", "m1", "DELIVERED")] == ["duplicate", "conflict"]
    assert before.tell("waits", "m5") == "duplicate"
    assert world.run(world.callbacks.get("acme", "done.crm")) is None
    assert before.tell("new", "m5", "DELIVERED") == "accepted"
    workspace = world.run(before.workspaces.require("acme"))
    claimed = world.claim(OWN).callbacks
    assert claimed
    headers = request_headers(claimed[0], b"{}", workspace, world.now, "agent")
    assert (headers["X-Team"], len(headers["webhook-signature"].split())) == ("ops", 2)
    delivered: list[str] = []
    for _ in range(4):
        world.now += world.ledger.options.lease_ms + 61_000
        for lost in world.run(world.ledger.wake()).lost:
            world.settle(
                lost.event_id,
                lost.claim,
                Retry(0),
                endpoint=lost.endpoint_name,
                error="worker_lost",
                losses=1,
            )
        delivered += world.deliver_all(OWN, OTHER, CRM)
    assert set(delivered) == PENDING | {"new", "new.crm"}
    for earlier, later in (("waits", "behind"), ("behind", "new"), ("leased", "after-leased")):
        assert delivered.index(earlier) < delivered.index(later)
    assert world.run(world.ledger.replay("acme", "gone")) == "replayed"
    assert world.deliver_all(OWN) == ["gone"]
    ended = {world.event(one).state for one in PENDING | {"done", "gone", "new", "new.crm"}}
    assert ended == {State.DELIVERED}
    assert world.call("zcard", world.keys.expiries) == 0


def test_the_first_subscription_shuts_earlier_versions_out(world: World, before: Before) -> None:
    """They would take its callbacks for removed ones: at their next wake they read a number that they refuse."""
    with pytest.raises(InvalidInput):
        before.add(events=["NO_SUCH_EVENT"])
    assert world.run(world.installation.format()) == str(FORMAT)
    before.add()
    assert world.run(world.ledger.wake()).format == str(WITH_SUBSCRIPTIONS)
    require_format(str(WITH_SUBSCRIPTIONS))


def test_no_subscription_while_an_earlier_version_works(world: World, before: Before) -> None:
    """Adding one is refused, in one line that names the worker; nothing is changed."""
    heartbeats = {"new@host/1": {"format": FORMAT, "formats": [2, 3]}, "old@host/2": {"format": FORMAT}}
    for name, heartbeat in heartbeats.items():
        world.run(world.ledger.wake(1, name, json.dumps(heartbeat)))
    with pytest.raises(OtherFormat, match=r"^worker old@host/2 is of a version that does not know .*$"):
        before.add()
    assert world.run(before.workspaces.require("acme")).subscriptions == {}
    assert world.run(world.installation.format()) == str(FORMAT)
    world.run(world.ledger.leave("old@host/2"))
    before.add()
    assert world.run(world.installation.format()) == str(WITH_SUBSCRIPTIONS)
    world.run(world.ledger.leave("new@host/1"))
