"""The wake loop: what one wake does, what it survives, what the heartbeat says."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from dispatcher.errors import OtherFormat, RedisUnavailable
from dispatcher.store.format import FORMAT, FORMATS
from dispatcher.store.replies import Hint, Lost
from dispatcher.worker import heartbeat, waker
from dispatcher.worker.heartbeat import PROBES, Heartbeat
from dispatcher.worker.load import Load
from dispatcher.worker.lost_leases import LostLeases
from dispatcher.worker.turns import CROWD, Turns
from dispatcher.worker.waker import (
    CROWDED_PAUSE_SECONDS,
    EXPIRE_LIMIT,
    WAKE_LIMIT,
    Waker,
)
from tests.fakes import NOW_MS, FakeWorker, played, quiet, until, woken

SOON = 0.001
WAKE, EXPIRE = f"wake {WAKE_LIMIT}", f"expire {EXPIRE_LIMIT}"


class PlannedLoad(Load):
    """Remembers the pauses."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def look_in(self, seconds: float) -> None:
        """Adds a pause."""
        self.pauses.append(seconds)


class Scene(FakeWorker):
    """A waker with a real `Turns` and `LostLeases`."""

    def __init__(self, wake_seconds: float = SOON) -> None:
        super().__init__()
        self.load = PlannedLoad()
        self.turns = Turns([self.parts], self.hints, self.load)
        self.lost_leases = LostLeases(self.parts, self.turns)
        self.intake = SimpleNamespace(leading=False)
        self.agreed = 0
        self.stopping = asyncio.Event()
        self.heartbeat = Heartbeat("w1", self.turns, self.slots, self.load, self.parts.metrics)
        self.waker = Waker(
            self.parts,
            self.turns,
            self.intake,
            self.lost_leases,
            self._agree,
            self.heartbeat,
            wake_seconds=wake_seconds,
        )

    async def _agree(self) -> None:
        self.agreed += 1

    def wakes(self) -> int:
        """How many wakes there were."""
        return self.ledger.calls.count(WAKE)

    async def run_for(self, wakes: int) -> None:
        """Runs the loop until there were that many wakes."""
        running = asyncio.create_task(self.waker.run(self.stopping))
        await until(lambda: running.done() or self.wakes() >= wakes, "that many wakes")
        self.stopping.set()
        await running


def play(story: Callable[[Scene], Coroutine[Any, Any, None]], **kwargs: Any) -> None:
    """Runs a story and checks that no task failed."""

    async def run() -> None:
        await story(Scene(**kwargs))

    assert [] == played(run())


def lost(event_id: str = "e1", endpoint: str = "a") -> Lost:
    """A callback whose lease ran out."""
    return Lost(endpoint, "acme https://a.example:443", event_id, 3, 1, NOW_MS + 60_000, 0)


def test_one_wake() -> None:
    """Endpoints that are due have turns, lost leases are settled, and attempts are published if they are watched."""

    async def story(scene: Scene) -> None:
        scene.ledger.due["a"] = ["e1"]
        found = woken([Hint("a", "acme")], [lost("e2", "b")], workers=3, watched=True)
        scene.ledger.wakes = [found]
        assert not await scene.waker.wake()
        assert [EXPIRE, WAKE] == scene.ledger.calls
        assert (3, True, 0) == (scene.turns.workers, scene.parts.tail.watched, scene.agreed)
        await scene.turns.ended()
        await scene.lost_leases.ended()
        assert ["e1", "e2"] == sorted(scene.settler.event_ids)

    play(story)


@pytest.mark.parametrize(
    ("expired", "more_due", "more"),
    [(0, False, False), (EXPIRE_LIMIT, False, True), (EXPIRE_LIMIT - 1, False, False), (0, True, True)],
)
def test_more(expired: int, more_due: bool, more: bool) -> None:
    """There is more to find if `expire` reached its limit, or Redis says so."""

    async def story(scene: Scene) -> None:
        scene.ledger.expiries, scene.ledger.wakes = [expired], [woken(more=more_due)]
        assert more == await scene.waker.wake()

    play(story)


@pytest.mark.parametrize(
    ("workers", "took", "pause"),
    [
        (1, 0.002, 0.002),
        (1, 0.02, 0.02),
        (2, 0.002, 0.004),
        (5, 0.002, 0.005),
        (5, 0.02, 0.02),
        (1, 3.0, CROWDED_PAUSE_SECONDS),
    ],
)
def test_the_next_wake_comes_sooner_where_there_is_more(
    monkeypatch: pytest.MonkeyPatch, workers: int, took: float, pause: float
) -> None:
    """If there is more to find, after as long as the last one took, or more with several workers; later while many endpoints wait."""
    seconds = [0.0]
    monkeypatch.setattr(waker, "time", SimpleNamespace(monotonic=lambda: seconds[0]))

    async def story(scene: Scene) -> None:
        async def expire(_limit: int) -> int:
            seconds[0] += took
            return 0

        scene.ledger.expire = expire  # type: ignore[method-assign]
        scene.ledger.gate.shut()
        crowd = [Hint(f"a{n}", "acme") for n in range(CROWD + 8)]
        scene.ledger.wakes = [woken(more=True, workers=workers), woken(), woken(crowd, more=True), woken()]
        await scene.run_for(4)
        expected = [pause, SOON, CROWDED_PAUSE_SECONDS, SOON]
        assert expected == pytest.approx(scene.load.pauses[:4])
        scene.ledger.gate.open()
        scene.turns.close()
        await scene.turns.ended()

    play(story)


def test_a_waker_of_one_of_several_partitions() -> None:
    """It is the only one of its partition: however many workers there are, it pauses for as long as its wake took."""

    async def story(scene: Scene) -> None:
        noted: list[int] = []
        intake = SimpleNamespace(leading=True, note_due=noted.append)
        alone = Waker(scene.parts, scene.turns, intake, scene.lost_leases, scene._agree)
        scene.turns.workers = 5
        assert (0.002, [0]) == (alone._pause_before_next(0.002), noted)

    play(story)


def test_redis_is_away() -> None:
    """The loop survives an outage of Redis; its beginning and its end are logged once."""

    async def story(scene: Scene) -> None:
        scene.ledger.wakes = [RedisUnavailable("away"), RedisUnavailable("away"), woken()]
        with capture_logs() as logged:
            await scene.run_for(3)
        assert ["redis.away", "redis.back"] == [line["event"] for line in logged]

    play(story)


def test_redis_goes_away_while_callbacks_expire() -> None:
    """If `expire` fails because Redis is away, nothing else is called before the next wake."""

    async def story(scene: Scene) -> None:
        scene.ledger.expiries = [RedisUnavailable("away")]
        with pytest.raises(RedisUnavailable):
            await scene.waker.wake()
        assert [EXPIRE] == scene.ledger.calls

    play(story)


def test_a_fault_of_ours() -> None:
    """The loop survives internal errors and logs each with its traceback; Redis does not count as away."""

    async def story(scene: Scene) -> None:
        scene.ledger.wakes = [KeyError("bug"), woken()]
        with capture_logs() as logged:
            await scene.run_for(2)
        assert ["waker.internal_error"] == [line["event"] for line in logged]
        assert logged[0]["exc_info"]

    play(story)


@pytest.mark.parametrize(("error", "says"), [(RedisUnavailable("away"), 0), (KeyError("bug"), 1)])
def test_the_heartbeat_cannot_be_ended(error: Exception, says: int) -> None:
    """A worker that stops goes on with that, whatever ending its heartbeat meets: it expires by itself."""

    async def story(scene: Scene) -> None:
        scene.ledger.error = error
        with capture_logs() as logged:
            await scene.waker.end()
        assert ["waker.internal_error"] * says == [line["event"] for line in logged]

    play(story)


def test_what_expired_cannot_be_ended() -> None:
    """If expired callbacks cannot be ended, what is due is found all the same."""

    async def story(scene: Scene) -> None:
        scene.ledger.expiries = [KeyError("bug")]
        scene.ledger.wakes = [woken([Hint("a", "acme")])]
        with capture_logs() as logged:
            assert not await scene.waker.wake()
        assert ["waker.internal_error"] == [line["event"] for line in logged]
        assert 1 == len(scene.turns)
        await scene.turns.ended()

    play(story)


@pytest.mark.parametrize("found", [OtherFormat("refused"), woken(format=str(FORMATS[-1] + 1))])
def test_another_format(found: Any) -> None:
    """The loop ends if Redis has another format: this version must not write to it."""

    async def story(scene: Scene) -> None:
        scene.ledger.wakes = [found]
        with pytest.raises(OtherFormat):
            await scene.run_for(2)
        assert 1 == scene.wakes()

    play(story)


def test_redis_was_emptied() -> None:
    """If Redis was emptied, `agree` is called once, and what is found is served all the same."""

    async def story(scene: Scene) -> None:
        scene.ledger.wakes = [woken([Hint("a", "acme")], format=""), woken()]
        await scene.run_for(2)
        assert 1 == scene.agreed
        await scene.turns.ended()
        assert "a" == scene.ledger.claims[0][0]

    play(story)


def test_stop_ends_the_pause() -> None:
    """A stop ends the pause, however long it is."""

    async def story(scene: Scene) -> None:
        await scene.run_for(1)
        assert [3600.0] == scene.load.pauses

    play(story, wake_seconds=3600.0)


def test_stop_before_the_first_wake() -> None:
    """A loop that is stopped before its first wake calls nothing in Redis."""

    async def story(scene: Scene) -> None:
        scene.stopping.set()
        await scene.waker.run(scene.stopping)
        assert [] == scene.ledger.calls

    play(story)


def test_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat says what others see of this worker; the wake right after it sends none."""

    async def story(scene: Scene) -> None:
        scene.intake.leading = True
        scene.ledger.wakes = [woken([Hint("a", "acme")])]
        scene.ledger.gate.shut()
        await scene.waker.wake()
        await scene.waker.wake()
        first, second = scene.ledger.heartbeats
        said = json.loads(first)
        assert (0, 0, True, FORMAT) == tuple(
            said[name] for name in ("turns", "inFlight", "leadsIntake", "format")
        )
        assert "" == second
        scene.ledger.gate.open()
        await scene.turns.ended()

    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 3600.0)
    play(story)


def test_probe() -> None:
    """The wake after a probe of `check --live` names it, however recent the last heartbeat is; the latest are named."""

    async def story(scene: Scene) -> None:
        await scene.waker.wake()
        for number in range(PROBES + 1):
            scene.heartbeat.answer(f"p{number}")
        await scene.waker.wake()
        named = json.loads(scene.ledger.heartbeats[1])["probes"]
        assert [f"p{number}" for number in range(1, PROBES + 1)] == named

    play(story)


def test_what_is_measured() -> None:
    """The metrics have turns, slots, lag and who leads intake, as they were at the last look."""

    async def story(scene: Scene) -> None:
        metrics = scene.parts.metrics
        scene.sender.gate.shut()
        scene.ledger.due["a"] = ["e1"]
        scene.turns.hint([Hint("a", "acme")])
        await until(lambda: scene.sender.sent, "a POST")
        scene.intake.leading = True
        await scene.run_for(1)
        assert (1, 1, True) == (metrics.turns, metrics.in_flight, metrics.leads_intake)
        scene.sender.gate.open()
        await scene.turns.ended()

    play(story)


@pytest.mark.parametrize("error", [None, RedisUnavailable("away")])
def test_end(error: Exception | None) -> None:
    """At the end the heartbeat is removed, if Redis is available, and lost leases that were found are settled."""

    async def story(scene: Scene) -> None:
        scene.settler.gate.shut()
        scene.ledger.wakes = [woken(lost=[lost()])]
        await scene.waker.wake()
        scene.ledger.error = error
        ending = asyncio.create_task(scene.waker.end())
        await quiet()
        assert ("leave w1", False) == (scene.ledger.calls[-1], ending.done())
        scene.settler.gate.open()
        await ending
        assert ["e1"] == scene.settler.event_ids

    play(story)
