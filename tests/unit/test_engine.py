"""How a worker's engine starts and ends: in order, whatever is under way and whatever fails."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from dispatcher.errors import OtherFormat, RedisUnavailable
from dispatcher.store.replies import Hint
from dispatcher.worker import engine, hints
from dispatcher.worker.engine import Engine
from dispatcher.worker.heartbeat import Heartbeat
from dispatcher.worker.hints import Hints
from dispatcher.worker.load import Load
from dispatcher.worker.lost_leases import LostLeases
from dispatcher.worker.tenure import Tenure
from dispatcher.worker.turns import Turns
from dispatcher.worker.waker import Waker
from tests.fakes import FakeWorker, claim, quiet, until, woken


class FakeLoop:
    """A loop that does nothing until it is cancelled or fails."""

    def __init__(self, name: str, log: list[str]) -> None:
        self._name, self._log = name, log
        self.breaks = asyncio.Event()

    async def run(self, *_: object) -> None:
        """Runs until it fails."""
        try:
            await self.breaks.wait()
        finally:
            self._log.append(f"{self._name} ended")
        raise KeyError("bug")

    async def end(self) -> None:
        """Notes that it ended."""
        self._log.append(f"{self._name} end")


class FakeIntake:
    """An intake whose last batch ends when the test says so; `last` is what it does then."""

    def __init__(self, log: list[str]) -> None:
        self._log = log
        self._stop = asyncio.Event()
        self.batch = asyncio.Event()
        self.batch.set()
        self.last: Callable[[], object] = lambda: None
        self.leading = False

    def stop(self) -> None:
        """Ends `run` after the current batch."""
        self._log.append("intake stop")
        self._stop.set()

    async def run(self) -> None:
        """Runs until it is stopped."""
        await self._stop.wait()
        await self.batch.wait()
        self.last()
        self._log.append("intake ended")


class Scene(FakeWorker):
    """An engine with real turns, hints and waker; `log` has what it does, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.ledger.calls = self.log
        self.broker = threading.Event()
        """Set when it takes hints."""
        self.broker.set()
        self.agree_errors: list[Exception] = []
        self.agreed = 0
        load = Load()
        queue = Hints(self._publish)
        self.turns = Turns([self.parts], queue, load)
        self.intake = FakeIntake(self.log)
        self.alerts, self.sweeper = FakeLoop("alerts", self.log), FakeLoop("sweeper", self.log)
        lost_leases = LostLeases(self.parts, self.turns)
        heartbeat = Heartbeat("w1", self.turns, self.slots, load)
        waker = Waker(self.parts, self.turns, self.intake, lost_leases, self._agree, heartbeat)
        owner = Tenure(0, self.intake, waker)
        self.engine = Engine(
            [self.parts], queue, self.turns, owner, heartbeat, self.sweeper, self.alerts, self._agree
        )

    def _publish(self, hints: Sequence[Hint]) -> None:
        self.broker.wait(10)  # a test that fails must end
        self.log.append(f"published {' '.join(hint.endpoint for hint in hints)}")

    async def _agree(self) -> None:
        self.agreed += 1
        if self.agree_errors:
            raise self.agree_errors.pop(0)

    async def started(self) -> "asyncio.Task[None]":
        """Starts the engine and waits until it has woken for the first time."""
        running = asyncio.create_task(self.engine.run())
        await until(lambda: any(line.startswith("wake") for line in self.log), "the first wake")
        self.log.clear()
        return running


def played(story: Callable[[Scene], Coroutine[Any, Any, None]]) -> list[str]:
    """Runs a story on a loop of its own; returns the events that were logged."""

    async def run() -> None:
        async with asyncio.timeout(10):
            await story(Scene())

    with capture_logs() as logged:
        asyncio.run(run())
    return [line["event"] for line in logged]


def test_the_order_of_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine ends intake's batch, the heartbeat, turns with their POSTs, hints and alerts, in this order."""

    async def story(scene: Scene) -> None:
        running = await scene.started()
        scene.sender.gate.shut()
        scene.ledger.due["a"] = ["e1"]
        await scene.engine.serve([Hint("a", "acme")])
        await until(lambda: scene.sender.sent, "a POST")
        assert 1 == scene.engine.turns
        scene.settler.more = True
        scene.intake.batch.clear()
        scene.engine.stop()
        scene.engine.stop()
        await quiet()
        assert ["intake stop"] == scene.log
        scene.intake.batch.set()
        await quiet()
        assert ["intake stop", "intake ended", "leave w1"] == scene.log
        scene.broker.clear()
        scene.sender.gate.open()
        await until(lambda: not len(scene.turns), "the end of the turn")
        await quiet()
        assert not running.done()
        scene.broker.set()
        await running
        assert ["published a", "sweeper ended", "alerts ended", "alerts end"] == scene.log[3:]

    monkeypatch.setattr(hints, "LAST_SECONDS", 3600.0)
    assert ["engine.started", "callback.attempted", "engine.stopped"] == played(story)


def test_what_intake_accepts_last() -> None:
    """Callbacks that intake's last batch leases to this worker are sent before the engine ends, even after the stop."""

    async def story(scene: Scene) -> None:
        running = await scene.started()
        room = scene.turns.reserve(1, ["acme"])
        loop = asyncio.get_running_loop()
        scene.intake.last = lambda: loop.call_soon(
            scene.turns.serve_claims, [("a", claim("e1"))], room.claims
        )
        scene.engine.stop()
        await running
        assert ["e1"] == scene.settler.event_ids

    played(story)


def test_stop_while_a_wake_is_under_way() -> None:
    """Endpoints that a wake under way at the stop finds go to other workers before the engine ends."""

    async def story(scene: Scene) -> None:
        scene.ledger.wakes = [woken([Hint("a", "acme")])]
        scene.ledger.wake_gate.shut()
        running = await scene.started()
        scene.engine.stop()
        await quiet()
        scene.ledger.wake_gate.open()
        await running
        assert ("published a" in scene.log, scene.sender.sent) == (True, [])

    played(story)


def test_hints_come_while_it_stops() -> None:
    """Endpoints of a Celery message that comes during the stop are published again."""

    async def story(scene: Scene) -> None:
        running = await scene.started()
        scene.intake.batch.clear()
        scene.engine.stop()
        await scene.engine.serve([Hint("a", "acme")])
        scene.intake.batch.set()
        await running
        assert ("published a" in scene.log, scene.sender.sent) == (True, [])

    played(story)


def test_redis_is_away_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that starts without Redis waits for it, logs that once, and then begins."""

    async def story(scene: Scene) -> None:
        scene.agree_errors = [RedisUnavailable("away"), RedisUnavailable("away")]
        running = await scene.started()
        assert 3 == scene.agreed
        scene.engine.stop()
        await running

    monkeypatch.setattr(engine, "AGREE_SECONDS", 0.0)
    assert ["engine.started", "redis.away", "redis.back", "engine.stopped"] == played(story)


def test_stop_while_it_waits_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is stopped while it waits for Redis ends at once: none of its parts begins."""

    async def story(scene: Scene) -> None:
        scene.agree_errors = [RedisUnavailable("away")] * 1_000_000
        running = asyncio.create_task(scene.engine.run())
        await until(lambda: scene.agreed > 1, "the second look")
        scene.engine.stop()
        await running
        assert [] == scene.log

    monkeypatch.setattr(engine, "AGREE_SECONDS", 0.0)
    assert "engine.stopped" in played(story)


def test_hints_come_before_the_format_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hints that come while an engine waits for Redis are served after it has agreed on the format, and not before."""

    async def story(scene: Scene) -> None:
        scene.agree_errors = [RedisUnavailable("away")] * 1_000_000
        running = asyncio.create_task(scene.engine.run())
        await until(lambda: scene.agreed > 1, "the second look")
        await scene.engine.serve([Hint("e1", "acme"), Hint("e1", "acme")])
        await quiet()
        assert (0, []) == (scene.engine.turns, scene.ledger.claims)
        scene.agree_errors.clear()
        await until(lambda: scene.ledger.claims, "the first claim")
        scene.engine.stop()
        await running

    monkeypatch.setattr(engine, "AGREE_SECONDS", 0.0)
    played(story)


def test_another_format() -> None:
    """With another format in Redis the engine does not begin, or ends at once if a wake finds that out."""

    async def at_the_start(scene: Scene) -> None:
        scene.agree_errors = [OtherFormat("another version's")]
        with pytest.raises(OtherFormat):
            await scene.engine.run()
        assert [] == scene.log

    async def later(scene: Scene) -> None:
        scene.ledger.wakes = [OtherFormat("another version's")]
        with pytest.raises(OtherFormat):
            await scene.engine.run()

    played(at_the_start)
    played(later)


def test_a_part_that_breaks() -> None:
    """If a part fails, the engine ends with its error: it would otherwise take hints and do only some of its work."""

    async def story(scene: Scene) -> None:
        running = await scene.started()
        scene.sweeper.breaks.set()
        with pytest.raises(KeyError):
            await running

    assert "engine.stopped" not in played(story)


def test_probe() -> None:
    """A probe reaches the heartbeat."""

    async def story(scene: Scene) -> None:
        running = await scene.started()
        scene.engine.answer("p1")
        await until(lambda: '"p1"' in scene.ledger.heartbeats[-1], "a heartbeat that names it")
        scene.engine.stop()
        await running

    played(story)
