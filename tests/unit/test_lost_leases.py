"""Callbacks whose worker died: what is recorded of them, and that none is recorded twice or holds up others."""

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from dispatcher.errors import RedisUnavailable
from dispatcher.rules.outcomes import Attempt, Expired, Failed, Outcome, Retry
from dispatcher.rules.subscription import Subscription
from dispatcher.rules.workspace import Workspace
from dispatcher.store.replies import Hint, Lost, Settlement
from dispatcher.worker.load import Load
from dispatcher.worker.lost_leases import LostLeases
from dispatcher.worker.turns import Turns
from tests.fakes import NOW_MS, FakeWorker, played, quiet, until

LOST = Lost("a", "acme https://a.example:443", "e1", 3, 1, NOW_MS + 3_600_000, 0)


class Scene(FakeWorker):
    """Lost leases, and closed turns, so that the test sees what is hinted."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = Turns([self.parts], self.hints, Load())
        self.turns.close()
        self.lost_leases = LostLeases(self.parts, self.turns)


def play(story: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    """Runs a story and checks that no task failed."""

    async def run() -> None:
        await story(Scene())

    assert [] == played(run())


@pytest.mark.parametrize(
    ("lost", "outcome", "losses"),
    [
        (LOST, Retry(0), 1),
        (msgspec.structs.replace(LOST, attempt=5), Failed(), 1),
        (msgspec.structs.replace(LOST, expires_ms=NOW_MS), Expired(), 1),
    ],
    ids=["first", "last attempt", "expired"],
)
def test_what_is_recorded(lost: Lost, outcome: Outcome, losses: int) -> None:
    """A lost callback is recorded as an attempt `worker_lost`, by the policy; the first loss is retried at once."""

    async def story(scene: Scene) -> None:
        with capture_logs() as logged:
            scene.lost_leases.settle([lost])
            await scene.lost_leases.ended()
        attempt = Attempt(NOW_MS, 0, error="worker_lost")
        assert [("a", [Settlement("e1", 3, outcome, attempt, losses=losses)], 0)] == scene.settler.asked
        assert [("callback.worker_lost", "e1")] == [(line["event"], line["event_id"]) for line in logged]
        assert [] == scene.hints

    play(story)


def test_the_receivers_own_schedule_decides() -> None:
    """The last attempt of its retry schedule is the last one, also where a worker died with it."""

    async def story(scene: Scene) -> None:
        crm = Subscription("crm", "zeckta", "https://a.example", (), NOW_MS, retry_schedule=(0, 30))
        scene.workspaces.found = Workspace(
            "acme", "zeckta", "", (), NOW_MS, "r", retry_schedule=(0, 1, 2), subscriptions={"crm": crm}
        )
        second = msgspec.structs.replace(LOST, attempt=2)
        of_crm = msgspec.structs.replace(second, endpoint="b", endpoint_name="acme.crm https://a.example:443")
        scene.lost_leases.settle([second, of_crm])
        await scene.lost_leases.ended()
        outcomes = {endpoint: one.outcome for endpoint, [one], _ in scene.settler.asked}
        assert {"a": Retry(0), "b": Failed()} == outcomes

    play(story)


def test_the_second_loss_waits() -> None:
    """After a second loss the callback waits, since it may be what kills workers."""

    async def story(scene: Scene) -> None:
        scene.lost_leases.settle([msgspec.structs.replace(LOST, lost_before=1, attempt=2)])
        await scene.lost_leases.ended()
        [(_, [settlement], _)] = scene.settler.asked
        assert isinstance(settlement.outcome, Retry)
        assert (True, 2) == (settlement.outcome.delay_ms > 0, settlement.losses)

    play(story)


def test_found_twice() -> None:
    """Callbacks that another wake finds while they are being settled are not settled again; later finds are."""

    async def story(scene: Scene) -> None:
        other = msgspec.structs.replace(LOST, event_id="e2")
        scene.settler.gate.shut()
        scene.lost_leases.settle([LOST])
        await until(lambda: scene.settler.gate.waiting, "a settle")
        scene.lost_leases.settle([LOST, other])
        await quiet()
        assert ["e1"] == scene.settler.event_ids
        scene.settler.gate.open()
        await scene.lost_leases.ended()
        scene.lost_leases.settle([other])
        await scene.lost_leases.ended()
        assert ["e1", "e2"] == scene.settler.event_ids

    play(story)


def test_found_before_the_task_has_begun() -> None:
    """Two wakes in a row settle a callback once, although its task has not begun."""

    async def story(scene: Scene) -> None:
        scene.lost_leases.settle([LOST])
        scene.lost_leases.settle([LOST])
        await scene.lost_leases.ended()
        assert ["e1"] == scene.settler.event_ids

    play(story)


@pytest.mark.parametrize(
    ("error", "event"), [(RedisUnavailable("away"), "redis.away"), (KeyError("bug"), "waker.internal_error")]
)
def test_that_cannot_be_settled(error: Exception, event: str) -> None:
    """A failure to settle is logged, and the callbacks are settled when they are found again."""

    async def story(scene: Scene) -> None:
        scene.settler.error = error
        with capture_logs() as logged:
            scene.lost_leases.settle([LOST])
            await scene.lost_leases.ended()
        assert [event] == [line["event"] for line in logged]
        scene.settler.error = None
        with capture_logs() as logged:
            scene.lost_leases.settle([LOST])
            await scene.lost_leases.ended()
        assert ["callback.worker_lost"] == [line["event"] for line in logged]

    play(story)


def test_one_endpoint_holds_up_no_other() -> None:
    """While Redis does not answer for one endpoint, those of the others are settled."""

    async def story(scene: Scene) -> None:
        scene.settler.gate.shut()
        scene.settler.answers_at_once = {"b"}
        with capture_logs() as logged:
            scene.lost_leases.settle([LOST, msgspec.structs.replace(LOST, endpoint="b", event_id="e2")])
            await until(lambda: logged, "the other one")
        assert ["e2"] == [line["event_id"] for line in logged]
        scene.settler.gate.open()
        await scene.lost_leases.ended()

    play(story)


def test_what_did_not_count() -> None:
    """Nothing is logged for a callback that its own or another worker settled after all."""

    async def story(scene: Scene) -> None:
        scene.settler.counted = [False, True]
        with capture_logs() as logged:
            scene.lost_leases.settle([LOST, msgspec.structs.replace(LOST, event_id="e2")])
            await scene.lost_leases.ended()
        assert ["e2"] == [line["event_id"] for line in logged]

    play(story)


def test_an_endpoint_that_is_ready_again() -> None:
    """An endpoint that is ready again is hinted, with its workspace."""

    async def story(scene: Scene) -> None:
        scene.settler.more = True
        scene.lost_leases.settle([LOST])
        await scene.lost_leases.ended()
        assert [Hint("a", "acme")] == scene.hints

    play(story)
