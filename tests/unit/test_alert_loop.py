"""When the operator's alerts are sent, and what keeps them from being sent."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from structlog.testing import capture_logs

from dispatcher.errors import RedisUnavailable
from dispatcher.worker import alert_loop
from dispatcher.worker.alert_loop import AlertLoop, AlertSource
from tests.fakes import NOW_MS, until


class FakeAlerts:
    """Remembers its calls; the operator's URL may not answer, and there may be an internal error."""

    def __init__(self, *, silent: bool = False, error: Exception | None = None) -> None:
        self.asked: list[str] = []
        self.silent, self.error = silent, error

    worker = "worker"

    def take(self) -> list[object]:
        """What was raised since the last time."""
        return []

    def rates(self, figures: Mapping[str, object]) -> None:
        """Success rates."""
        self.asked.append(f"rates of {', '.join(figures)}")

    def certificates(self, ending: Sequence[object], now_ms: int) -> None:
        """Client certificates."""
        assert now_ms == NOW_MS
        self.asked.append(f"{len(ending)} certificates")

    async def send(self, _now_ms: int) -> None:
        """Sends the gathered alerts."""
        self.asked.append("send")
        if self.silent:
            await asyncio.Event().wait()
        if self.error:
            raise self.error


class FakeStats:
    """Of one workspace, unless there is an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def workspaces(self, now_ms: int, hours: int) -> dict[str, object]:
        """Its figures."""
        assert (NOW_MS, 2) == (now_ms, hours)
        if self.error:
            raise self.error
        return {"acme": None}


class FakeCertificates:
    """Two of them end soon."""

    async def ending(self, now_ms: int) -> list[object]:
        """Those."""
        assert now_ms == NOW_MS
        return [None, None]


def loop_of(alerts: FakeAlerts, stats: FakeStats | None = None) -> AlertLoop:
    """The loop over them."""
    source = AlertSource(stats or FakeStats(), FakeCertificates(), lambda: NOW_MS)  # type: ignore[arg-type]
    return AlertLoop(alerts, [source])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("leads", "error", "asked"),
    [
        (True, None, ["rates of acme", "2 certificates", "send"]),
        (False, None, ["send"]),
        (True, RedisUnavailable("away"), []),
        (True, KeyError("bug"), ["send"]),
    ],
    ids=["leads", "does not lead", "Redis is away", "a fault of ours"],
)
def test_a_minute(leads: bool, error: Exception | None, asked: list[str]) -> None:
    """One worker looks at success rates; every one sends what it gathered, unless Redis is away."""
    alerts = FakeAlerts()
    asyncio.run(loop_of(alerts, FakeStats(error)).step(lambda: [0] if leads else []))
    assert asked == alerts.asked


def test_alerts_that_cannot_be_kept_are_sent() -> None:
    """For instance because their key in Redis has another type; that is logged."""

    class Broken:
        async def keep(self, *_: object) -> None:
            raise ValueError("WRONGTYPE")

    alerts = FakeAlerts()
    with capture_logs() as logged:
        asyncio.run(AlertLoop(alerts, [], Broken()).step(list))  # type: ignore[arg-type]
    assert (["send"], ["alerts.internal_error"]) == (alerts.asked, [one["event"] for one in logged])


def test_a_lease_that_is_lost_meanwhile() -> None:
    """A partition that is no longer led when its turn comes is not looked at: its server may be silent."""
    alerts, owned = FakeAlerts(), {0, 1}

    def now_ms() -> int:
        owned.discard(1)
        return NOW_MS

    first = AlertSource(FakeStats(), FakeCertificates(), now_ms)  # type: ignore[arg-type]
    second = AlertSource(FakeStats(KeyError("asked")), FakeCertificates(), now_ms)  # type: ignore[arg-type]
    with capture_logs() as logged:
        asyncio.run(AlertLoop(alerts, [first, second]).step(lambda: owned))  # type: ignore[arg-type]
    assert (["rates of acme", "2 certificates", "send"], []) == (alerts.asked, logged)


def test_a_fault_in_sending() -> None:
    """An internal error in sending is logged, and the next round comes all the same."""
    alerts = FakeAlerts(error=KeyError("bug"))

    async def story() -> None:
        stopping = asyncio.Event()
        running = asyncio.create_task(loop_of(alerts).run(list, stopping))
        await until(lambda: len(alerts.asked) > 1, "the next minute")
        stopping.set()
        await running

    with pytest.MonkeyPatch.context() as patch, capture_logs() as logged:
        patch.setattr(alert_loop, "ALERT_SECONDS", 0.0)
        asyncio.run(story())
    assert {"alerts.internal_error"} == {line["event"] for line in logged}


def test_the_end_waits_for_no_silent_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last alerts are sent, or given up soon if the operator's URL does not answer."""
    monkeypatch.setattr(alert_loop, "LAST_SECONDS", 0.01)
    alerts = FakeAlerts(silent=True)
    asyncio.run(loop_of(alerts).end())
    assert ["send"] == alerts.asked
