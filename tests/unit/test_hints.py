"""Hints for other workers: how they are published, and what happens when that fails or hangs, or the worker stops."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from dispatcher.store.replies import Hint
from dispatcher.worker import hints
from dispatcher.worker.hints import HINT_ENDPOINTS, Hints
from dispatcher.worker.metrics import Metrics
from tests.fakes import played, quiet, until


def of(workspace: str, count: int) -> list[Hint]:
    """Endpoints of a workspace."""
    return [Hint(f"{workspace}{n}", workspace) for n in range(count)]


class Scene:
    """Hints, and a broker that takes them, refuses them (`error`), or is silent (`silent` is set)."""

    def __init__(self) -> None:
        self.published: list[Sequence[Hint]] = []
        self.served: list[Hint] = []
        self.error: Exception | None = None
        self.answers = threading.Event()
        self.answers.set()
        self.asked = 0
        self.stopping = asyncio.Event()
        self.metrics = Metrics()
        self.hints = Hints(self._publish, self.metrics)

    def start(self) -> "asyncio.Task[None]":
        """Begins to publish."""
        return asyncio.create_task(self.hints.run(self.served.extend, self.stopping))

    def add(self, hints: Sequence[Hint]) -> None:
        """Adds endpoints for other workers to serve."""
        for hint in hints:
            self.hints.add(hint)

    def _publish(self, batch: Sequence[Hint]) -> None:
        self.asked += 1
        self.answers.wait(10)  # a test that fails must end
        if self.error:
            raise self.error
        self.published.append(batch)


def play(story: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    """Runs a story and checks that no task failed."""

    async def run() -> None:
        await story(Scene())

    assert [] == played(run())


def test_few_in_one_message_workspaces_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many endpoints of one workspace wait, another's is in the first message."""

    async def story(scene: Scene) -> None:
        scene.add(of("hog", 2 * HINT_ENDPOINTS))
        scene.add(of("quiet", 1))
        publishing = scene.start()
        await scene.hints.end()
        await publishing
        assert [HINT_ENDPOINTS, HINT_ENDPOINTS, 1] == [len(batch) for batch in scene.published]
        assert Hint("quiet0", "quiet") in scene.published[0]

    monkeypatch.setattr(hints, "LAST_SECONDS", 3600.0)  # the end must not take this long
    play(story)


def test_a_broker_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints that the broker refuses are served here; that is logged once, until it works again."""

    async def story(scene: Scene) -> None:
        scene.error = OSError("no broker")
        publishing = scene.start()
        with capture_logs() as logged:
            for one in of("acme", 2):
                scene.add([one])
                await until(lambda one=one: one in scene.served, "served here")
            scene.error = None
            scene.add(of("bolt", 1))
            await until(lambda: scene.published, "published")
            await quiet()
            scene.error = OSError("no broker again")
            scene.add(of("cobra", 1))
            await until(lambda: len(scene.served) == 3, "served here again")
        assert ["no broker", "no broker again"] == [line["problem"] for line in logged]
        assert {"hints.unpublished"} == {line["event"] for line in logged}
        assert len(scene.served) == scene.metrics.hints_unpublished
        await scene.hints.end()
        await publishing

    monkeypatch.setattr(hints, "AWAY_SECONDS", 0.0)
    play(story)


def test_a_broker_that_is_away() -> None:
    """After one refusal all endpoints that wait are served here, and those that come next, without asking again."""

    async def story(scene: Scene) -> None:
        scene.error = OSError("no broker")
        scene.add(of("acme", 4 * HINT_ENDPOINTS))
        publishing = scene.start()
        await until(lambda: len(scene.served) == 4 * HINT_ENDPOINTS, "all are served here")
        scene.add(of("bolt", 1))
        assert of("bolt", 1) == scene.served[-1:]
        await scene.hints.end()
        await publishing
        assert 1 == scene.asked

    play(story)


def test_a_broker_that_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the next attempt after a refusal has no answer yet, others are served here; then they are published again."""

    async def story(scene: Scene) -> None:
        scene.error = OSError("no broker")
        scene.add(of("acme", 1))
        publishing = scene.start()
        await until(lambda: scene.served, "served here")
        scene.error = None
        scene.answers.clear()
        scene.add(of("bolt", 1))
        await until(lambda: scene.asked == 2, "asked again")
        scene.add(of("cobra", 1))
        assert of("acme", 1) + of("cobra", 1) == scene.served
        scene.answers.set()
        await until(lambda: scene.published, "published again")
        await quiet()
        scene.add(of("delta", 1))
        await until(lambda: len(scene.published) == 2, "published")
        await scene.hints.end()
        await publishing
        assert [of("bolt", 1), of("delta", 1)] == scene.published

    monkeypatch.setattr(hints, "AWAY_SECONDS", 0.0)
    play(story)


def test_a_broker_that_refuses_while_the_worker_stops() -> None:
    """A stopping worker drops hints that the broker refuses: wakers find those endpoints."""

    async def story(scene: Scene) -> None:
        scene.error = OSError("no broker")
        scene.stopping.set()
        scene.add(of("acme", HINT_ENDPOINTS + 1))
        publishing = scene.start()
        await scene.hints.end()
        await publishing
        assert ([], [], 1) == (scene.served, scene.published, scene.asked)

    play(story)


def test_a_hint_that_comes_while_one_is_published() -> None:
    """A hint that comes while another is published is in the next message."""

    async def story(scene: Scene) -> None:
        scene.answers.clear()
        publishing = scene.start()
        scene.add(of("acme", 1))
        await until(lambda: scene.asked, "the first message")
        scene.add(of("bolt", 2))
        scene.answers.set()
        await until(lambda: len(scene.published) == 2, "the second message")
        assert [of("acme", 1), of("bolt", 2)] == scene.published
        await scene.hints.end()
        await publishing

    play(story)


@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
def test_hints_of_the_last_moment(rounds: int) -> None:
    """Hints that are added just before the end are published, wherever the publisher is at that moment."""

    async def story(scene: Scene) -> None:
        scene.stopping.set()
        publishing = scene.start()
        scene.add(of("acme", 1))
        await quiet(rounds)
        scene.add(of("bolt", 1))
        await scene.hints.end()
        await publishing
        assert of("acme", 1) + of("bolt", 1) == [hint for batch in scene.published for hint in batch]

    play(story)


def test_a_broker_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end does not wait long for a silent broker, and does not send the waiting hints later."""

    async def story(scene: Scene) -> None:
        scene.answers.clear()
        publishing = scene.start()
        scene.add(of("acme", 1))
        await until(lambda: scene.asked, "the first message")
        scene.add(of("bolt", 1))
        await scene.hints.end()
        assert not publishing.done()
        publishing.cancel()
        scene.answers.set()
        await until(lambda: scene.published, "the answer that came too late")
        await quiet()
        assert publishing.cancelled()
        assert ([of("acme", 1)], 1) == (scene.published, scene.asked)

    monkeypatch.setattr(hints, "LAST_SECONDS", 0.01)
    play(story)


LATE_HINT = """
import asyncio, threading
from dispatcher.store.replies import Hint
from dispatcher.worker.hints import Hints
from dispatcher.worker.metrics import Metrics

async def end_of_the_interpreter():
    while True:
        try:
            await asyncio.to_thread(int)
        except RuntimeError:
            return

async def work():
    metrics, stopping = Metrics(), asyncio.Event()
    hints = Hints(lambda batch: published.set(), metrics)
    task = asyncio.create_task(hints.run(lambda served: print("served", len(served)), stopping))
    hints.add(Hint("e1", "w"))
    await end_of_the_interpreter()
    stopping.set()
    hints.add(Hint("e2", "w"))
    await hints.end()
    await task
    print("unpublished", metrics.hints_unpublished)

published = threading.Event()
threading.Thread(target=lambda: asyncio.run(work())).start()
published.wait()
"""


def test_a_hint_after_the_end_of_the_interpreter() -> None:
    """Where the process ends around the engine (QUIT), what no thread can publish is dropped: the broker has not failed."""
    done = subprocess.run([sys.executable, "-c", LATE_HINT], capture_output=True, text=True, timeout=60)
    assert ("unpublished 0\n", "") == (done.stdout, done.stderr)
