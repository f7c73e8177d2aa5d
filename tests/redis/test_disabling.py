"""Subscriptions whose receivers are gone for good, on a real server: by the rules, and because the receiver asks for it."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from dispatcher.errors import InvalidInput
from dispatcher.model import StatusChange, iso
from dispatcher.rules.decide import Policy, decide, health_of
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import Attempt, Outcome, State
from dispatcher.rules.workspace import Workspace
from dispatcher.sending.answer import Answer
from dispatcher.sending.sender import Sender
from dispatcher.store.audit import Audit, Who
from dispatcher.store.keys import endpoint_id
from dispatcher.store.replies import Settled, Settlement, ToSettle
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.worker.alerts import Alerts
from dispatcher.worker.disabling import ASKED, Disabler, DisablingRules
from tests.redis.test_subscriptions import CRM, OWN, Customer
from tests.redis.test_subscriptions import change as change_of_m1
from tests.world import START_MS, World

DAY = 86_400_000


def change(event_id: str, **fields: Any) -> StatusChange:
    """A status change of a message of its own."""
    message = {"uuid": f"m-{event_id}", "src": "ACME", "dest": "+233200000001"}
    return change_of_m1(event_id, message=message, **fields)


class Receiver:
    """Answers with one status; `posts` counts what it got."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.posts = 0

    async def post(
        self, _url: str, _headers: Mapping[str, str], _body: bytes, _workspace: str, **_options: object
    ) -> Answer:
        """One POST."""
        self.posts += 1
        return Answer(self.status)


class Scene:
    """acme with default, crm and billing; a worker that serves crm, and its disabler."""

    def __init__(self, world: World, endpoint: str = CRM) -> None:
        self.world, self.endpoint = world, endpoint
        self.attempts = 20
        self.customer = Customer(world)
        self.alerts = Alerts("w")
        self.audit = Audit(world.client.execute_command, world.keys, "", Who("worker", "w"))
        self.rules = DisablingRules()
        self.cache = WorkspaceCache(self.customer.workspaces)

    @property
    def workspace(self) -> Workspace:
        """acme, as it is now."""
        return self.customer.workspace

    def serve(self, status: int, error: str | None = None) -> int:
        """Claims what is due once and posts it, as a turn does; how many POSTs there were."""
        receiver = Receiver(status)
        sender = Sender(receiver, "test")
        for one in self.world.claim(self.endpoint).callbacks:
            attempt = self.world.run(sender.send(one, self.workspace, self.world.now))
            if error and attempt.error:
                attempt = Attempt(attempt.started_at_ms, 5, attempt.http_status, error)
            self.settled = self.settle(one.event_id, one.claim, attempt, self.outcome(attempt, one.attempt))
        return receiver.posts

    def outcome(self, attempt: Attempt, number: int) -> Outcome:
        """As the policy says; retries are due at once."""
        return decide(
            attempt,
            number,
            now_ms=self.world.now,
            expires_ms=10**15,
            policy=Policy(max_attempts=self.attempts),
            rng=0.5,
        )

    def settle(self, id_: str, claim: int, attempt: Attempt, outcome: Outcome) -> Settled:
        """Records one attempt."""
        one = Settlement(id_, claim, outcome, attempt, health_of(attempt))
        self.settled_last = [one]
        [settled] = self.world.run(self.world.ledger.settle([ToSettle(endpoint_id(self.endpoint), [one])]))
        assert isinstance(settled, Settled)
        return settled

    def fail(self, id_: str, status: int, days: float) -> Settled:
        """A new status change's callback, answered with this status so many days after the start."""
        self.world.now = START_MS + round(days * DAY)
        self.customer.tell(change(id_, timestamp=iso(self.world.now)))
        assert self.serve(status) >= 1
        return self.settled

    def look(self, act: Callable[[Disabler], None]) -> None:
        """Has a disabler do something, and waits for it."""

        async def run() -> None:
            disabler = Disabler(
                self.customer.subscriptions,
                self.cache,
                self.world.ledger,
                self.alerts,
                self.audit,
                self.rules,
            )
            act(disabler)
            await disabler.ended()

        self.world.run(run())

    def look_at(self, settled: Settled) -> None:
        """What a turn does after a failure."""
        self.look(
            lambda disabler: disabler.look_at(EndpointName.parse(self.endpoint), settled, self.settled_last)
        )


def test_since_when_every_attempt_failed(world: World) -> None:
    """It is kept with the endpoint: since when all failed, since when all were answered 410; a 2xx ends it."""
    scene = Scene(world)
    seen = [scene.fail(f"e{n}", status, days=n) for n, status in enumerate([503, 410, 410, 500, 410, 200])]
    at = [START_MS + n * DAY for n in range(6)]
    assert [(one.failing_since_ms, one.gone_since_ms) for one in seen] == [
        (at[0], 0),
        (at[0], at[1]),
        (at[0], at[1]),
        (at[0], 0),
        (at[0], at[4]),
        (0, 0),
    ]


def test_what_says_nothing_about_the_receiver_changes_nothing(world: World) -> None:
    """A worker's death neither begins nor ends it."""
    scene = Scene(world)
    began = scene.fail("e1", 410, days=0)
    scene.customer.tell(change("e2"))
    assert scene.serve(500, error="worker_lost") == 1
    assert scene.settled.gone_since_ms == began.gone_since_ms


@pytest.mark.parametrize(
    ("status", "days", "reason"),
    [
        (410, 1.0, "it answered 410 to every attempt since 2027-01-15T08:00:00.000Z"),
        (410, 0.9, None),
        (500, 5.0, "every attempt failed since 2027-01-15T08:00:00.000Z"),
        (500, 4.9, None),
    ],
)
def test_the_rules(world: World, status: int, days: float, reason: str | None) -> None:
    """After a day of 410, or five days of failures, it is disabled; the operator hears of it once."""
    scene = Scene(world)
    scene.fail("e1", status, days=0)
    scene.attempts = 1
    with capture_logs() as logged:
        scene.look_at(scene.fail("e2", status, days=days))
        scene.look_at(scene.settled)
    crm = scene.workspace.subscriptions["crm"]
    assert (crm.state, crm.disabled and crm.disabled.reason) == (
        ("disabled", reason) if reason else ("active", None)
    )
    told = [one for one in logged if one["event"] == "subscription.disabled"]
    assert [(one["workspace"], one["subscription"], one["reason"]) for one in told] == (
        [("acme", "crm", reason)] if reason else []
    )
    trail = [fields for _, fields in world.call("xrange", world.keys.audit)]
    assert [(one[b"what"], one[b"via"]) for one in trail] == (
        [(b"subscription.disable", b"worker")] if reason else []
    )
    assert scene.workspace.state == scene.workspace.subscriptions["billing"].state == "active"


def test_a_failure_with_attempts_left_is_no_proof(world: World) -> None:
    """One failure long after another, with nothing sent in between, disables nothing while it is tried again."""
    scene = Scene(world)
    scene.fail("e1", 500, days=0)
    scene.look_at(scene.fail("e2", 500, days=6))
    assert scene.workspace.subscriptions["crm"].state == "active"


@pytest.mark.parametrize(("status", "error"), [(500, "auth"), (410, "auth"), (410, "proxy"), (500, "proxy")])
def test_a_failure_long_ago_and_one_of_ours(world: World, status: int, error: str) -> None:
    """After one failure of the receiver, what it is not asked for proves nothing, however long that lasts."""
    scene = Scene(world)
    scene.fail("e1", status, days=0)
    scene.attempts = 1
    scene.world.now = START_MS + 6 * DAY
    scene.customer.tell(change("e2", timestamp=iso(scene.world.now)))
    assert scene.serve(500, error=error) == 1
    scene.look_at(scene.settled)
    assert scene.workspace.subscriptions["crm"].state == "active"


@pytest.mark.parametrize("error", ["proxy", "auth"])
def test_our_proxy_is_not_the_receiver(world: World, error: str) -> None:
    """What the egress proxy does is no failure of the receiver, nor that we could not say who we are."""
    scene = Scene(world)
    scene.world.now = START_MS
    scene.customer.tell(change("e1"))
    assert scene.serve(500, error=error) == 1
    assert scene.settled.failing_since_ms == 0


def test_no_rules(world: World) -> None:
    """0 is never."""
    scene = Scene(world)
    scene.rules = DisablingRules(0, 0)
    scene.fail("e1", 410, days=0)
    scene.look_at(scene.fail("e2", 410, days=6))
    assert scene.workspace.subscriptions["crm"].state == "active"


def test_what_waits_ends_and_nothing_comes_after(world: World) -> None:
    """Waiting callbacks end failed without a POST; later status changes cause none; the others get theirs."""
    scene = Scene(world)
    scene.fail("e1", 500, days=0)
    assert scene.customer.states("e1.crm") == {"e1.crm": State.RETRYING}
    before = scene.workspace
    scene.look(lambda disabler: disabler.disable(EndpointName.parse(CRM), ASKED))
    assert scene.serve(200) == 0
    assert scene.customer.states("e1.crm") == {"e1.crm": State.FAILED}
    assert world.event("e1.crm").attempts[-1].error == "subscription_disabled"
    assert scene.customer.tell(change("e2"), rendered_by=before) == ["changed"]
    assert scene.customer.tell(change("e3")) == ["accepted"]
    assert scene.customer.states("e3.crm") == {"e3.crm": None}
    assert world.deliver_all(OWN) == ["e1", "e3"]


def test_resume(world: World) -> None:
    """It is active again, and its time begins anew: the next failure does not disable it."""
    scene = Scene(world)
    scene.fail("e1", 410, days=0)
    scene.look_at(scene.fail("e2", 410, days=2))
    with pytest.raises(InvalidInput, match="is disabled; `dispatcher subscription resume` brings it back"):
        world.run(scene.customer.subscriptions.pause("acme", "crm"))
    world.run(scene.customer.subscriptions.resume("acme", "crm", world.ledger))
    crm = scene.workspace.subscriptions["crm"]
    assert (crm.state, crm.disabled) == ("active", None)
    scene.look_at(scene.fail("e3", 410, days=2.1))
    assert scene.workspace.subscriptions["crm"].state == "active"


def test_another_url_by_now(world: World) -> None:
    """What still fails at the previous URL does not disable it."""
    scene = Scene(world)
    scene.fail("e1", 410, days=0)
    settled = scene.fail("e2", 410, days=2)
    world.run(scene.customer.subscriptions.update("acme", "crm", callback_url="https://new.example/hooks"))
    scene.look_at(settled)
    assert scene.workspace.subscriptions["crm"].state == "active"


def test_the_default_one(world: World) -> None:
    """Its own URL's callbacks end; one to a URL that came with its status change is posted all the same."""
    scene = Scene(world, OWN)
    url = "https://a.example/of-its-own"
    scene.customer.tell(change("e1"), change("e2", callbackUrl=url))
    scene.look(lambda disabler: disabler.disable(EndpointName.parse(OWN), ASKED))
    assert (scene.workspace.state, scene.workspace.subscriptions["crm"].state) == ("disabled", "active")
    assert scene.serve(200) == 1
    assert scene.customer.states("e1", "e2") == {"e1": State.FAILED, "e2": State.DELIVERED}
    scene.customer.tell(change("e3"), change("e4", callbackUrl=url))
    assert scene.serve(200) == 1
    assert scene.customer.states("e3", "e3.crm", "e4") == {
        "e3": State.FANNED_OUT,
        "e3.crm": State.PENDING,
        "e4": State.DELIVERED,
    }


@pytest.mark.parametrize("name", [OWN, CRM], ids=["default", "crm"])
def test_the_operators_stop_stays(world: World, name: str) -> None:
    """What waits at a stopped endpoint ends when it is resumed; nothing is posted there before."""
    scene = Scene(world, name)
    scene.customer.tell(change("e1"), change("e2", callbackUrl="https://a.example/of-its-own"))
    world.run(world.ledger.stop(endpoint_id(name)))
    scene.look(lambda disabler: disabler.disable(EndpointName.parse(name), ASKED))
    assert world.call("hget", world.keys.endpoint(endpoint_id(name)), "stopped")
    assert scene.serve(200) == 0
    assert scene.customer.states("e1" if name == OWN else "e1.crm").popitem()[1] == State.PENDING


def test_removed_or_paused_meanwhile(world: World) -> None:
    """Then nothing is disabled, and nobody is told."""
    scene = Scene(world)
    world.run(scene.customer.subscriptions.pause("acme", "crm"))
    with capture_logs() as logged:
        scene.look(lambda disabler: disabler.disable(EndpointName.parse(CRM), ASKED))
        assert scene.workspace.subscriptions["crm"].state == "paused"
        scene.customer.remove("crm")
        scene.look(lambda disabler: disabler.disable(EndpointName.parse(CRM), ASKED))
    assert [] == logged
