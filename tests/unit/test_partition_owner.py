"""What leading partitions survives: faults of ours that concern one of them."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from dispatcher.errors import OtherFormat, RedisUnavailable
from dispatcher.worker.heartbeat import Heartbeat
from dispatcher.worker.load import Load
from dispatcher.worker.outages import Outages
from dispatcher.worker.partition_owner import PartitionOwner
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.tenure import Tenure
from dispatcher.worker.turns import Turns
from tests.fakes import FakeWorker, until

COUNT = 3


class Scene(FakeWorker):
    """An owner; `answers` says of each partition whether its server answers, or what asking that meets."""

    def __init__(self) -> None:
        super().__init__()
        turns, load = Turns([self.parts], self.hints, Load()), Load()  # type: ignore[arg-type]
        self.answers: dict[int, bool | Exception] = dict.fromkeys(range(COUNT), True)
        self.asked: list[int] = []
        nothing: Any = None
        heartbeat = Heartbeat("w1", turns, self.slots, load)
        self.owner = PartitionOwner(
            COUNT,
            nothing,
            heartbeat,
            nothing,
            self._answers,
            turns,
            self.parts.tail,
            RedisWatch(),
            Outages(str),
        )

    async def _answers(self, partition: int) -> bool:
        self.asked.append(partition)
        answer = self.answers[partition]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ask_again(self) -> set[int]:
        """Asks the servers of all partitions that do not answer, as if it were time; those that still do not."""
        self.owner._cannot = dict.fromkeys(self.owner._cannot, 0.0)
        self.asked.clear()
        self.owner._note_unreachable()
        assert self.owner._trying
        await asyncio.wait([self.owner._trying])
        return set(self.owner._cannot)


def test_asking_a_server_meets_a_bug() -> None:
    """It is logged once for all partitions and asked again; servers that answer are not held to be away meanwhile."""

    async def story() -> None:
        unseen: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context["message"]))
        scene = Scene()
        scene.owner._cannot = dict.fromkeys(range(COUNT), 0.0)
        scene.answers |= {0: KeyError("bug"), 1: KeyError("bug")}
        with capture_logs() as logged:
            assert {0, 1} == await scene.ask_again()
        assert [("owner.internal_error", [0, 1])] == [(line["event"], line["partitions"]) for line in logged]
        assert isinstance(logged[0]["exc_info"], KeyError)
        scene.owner._note_unreachable()
        assert [0, 1, 2] == scene.asked, "not at once again"
        scene.answers |= {0: True, 1: False}
        with capture_logs() as logged:
            assert {1} == await scene.ask_again()
        assert ([0, 1], [], []) == (scene.asked, logged, unseen)

    asyncio.run(story())


def tenure(*errors: Exception) -> tuple[Tenure, list[str], asyncio.Event]:
    """A tenure whose format is agreed on after these errors; what it did; what stops it."""
    done: list[str] = []
    left = list(errors)
    stopping = asyncio.Event()

    async def agree() -> None:
        done.append("agree")
        if left:
            raise left.pop(0)

    async def runs(*_: object) -> None:
        done.append("run")
        await stopping.wait()

    async def ends() -> None:
        done.append("end")

    intake: Any = SimpleNamespace(run=runs, stop=lambda: None, note_failure=lambda _: done.append("away"))
    waker: Any = SimpleNamespace(run=runs, end=ends)
    return Tenure(5, intake, waker, agree), done, stopping


def test_a_partition_whose_format_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours there is logged, and tried again: it ends neither this worker, nor the next one that leads the partition."""
    monkeypatch.setattr("dispatcher.worker.tenure.AGREE_SECONDS", 0.001)

    async def story() -> None:
        one, done, stopping = tenure(KeyError("bug"), RedisUnavailable("away"))
        with capture_logs() as logged:
            running = asyncio.create_task(one.run(stopping))
            await until(lambda: running.done() or done.count("run") == 2)
        assert not running.done()
        assert [("tenure.internal_error", 5)] == [(line["event"], line["partition"]) for line in logged]
        assert ["agree", "agree", "away", "agree", "run", "run"] == done
        stopping.set()
        await running

    asyncio.run(story())


def test_a_partition_of_another_format() -> None:
    """That ends the worker: this version must not write there."""

    async def story() -> None:
        one, _, stopping = tenure(OtherFormat("refused"))
        with pytest.raises(OtherFormat):
            await one.run(stopping)

    asyncio.run(story())
