"""The latest alerts on a real server: kept once, also while they cannot be sent, and no more than so many."""

import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.latest_alerts import KEPT, LatestAlerts
from dispatcher.store.wire import Wire
from dispatcher.worker.alert_loop import AlertLoop
from dispatcher.worker.alerts import AlertOptions, Alerts
from tests.world import World

DOWN = EndpointName("acme", "https://a.example")


@pytest.fixture
def latest(world: World) -> Iterator[LatestAlerts]:
    """The list on the world's Redis."""
    wire = Wire(world.client)
    yield LatestAlerts(wire.call, world.keys, "", 60_000)
    world.run(wire.close())


def test_what_a_worker_raises_is_kept_once(world: World, latest: LatestAlerts) -> None:
    """With no URL to send to, and though the loop looks every minute."""
    alerts = Alerts("w1", AlertOptions(down_seconds=0))
    loop = AlertLoop(alerts, [], latest)
    alerts.down(DOWN, 1, 2, "timeout")
    for _ in range(2):
        world.run(loop.step(list))
    [one] = world.run(latest.read(10))
    assert ("endpoint_down", "acme", "w1") == (one.kind, one.workspace, one.worker)
    assert one.facts["endpoint"] == "https://a.example"
    assert one.facts["error"] == "timeout"
    assert 0 < world.run(world.client.pttl(world.keys.alerts)) <= 60_000


def test_the_newest_are_kept(world: World, latest: LatestAlerts) -> None:
    """The oldest make room, and one that somebody wrote by hand hides none."""
    for number in range(KEPT + 5):
        world.run(latest.keep("w1", [{"kind": "k", "workspace": "acme", "n": number}], number))
    world.run(world.client.lpush(world.keys.alerts, "garbage"))
    with capture_logs() as logs:
        found = world.run(latest.read(KEPT + 100))
    assert [one.facts["n"] for one in found] == list(range(KEPT + 4, 4, -1))
    assert ["alerts.unreadable"] == [line["event"] for line in logs]


def test_a_silent_redis_does_not_keep_alerts_from_being_sent(latest: LatestAlerts) -> None:
    """Keeping is given up; what was raised is still to be sent."""

    class Silent:
        async def keep(self, *_: object) -> None:
            await asyncio.Event().wait()

    sent: list[int] = []

    class Sent(Alerts):
        async def send(self, now_ms: int) -> None:
            sent.append(len(self._unsent.alerts))

    alerts = Sent("w1", AlertOptions(down_seconds=0))
    alerts.down(DOWN, 1, 2, "timeout")
    asyncio.run(AlertLoop(alerts, [], Silent()).step(list))  # type: ignore[arg-type]
    assert [1] == sent
