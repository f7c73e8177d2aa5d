"""Single status changes of many calls, enqueued together: who gets which answer, and what Redis is asked."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from dispatcher.api import enqueuer
from dispatcher.api.enqueuer import Answer, Enqueuer
from dispatcher.errors import RedisFull, RedisUnavailable
from dispatcher.store.api_keys import PRODUCERS, ApiKey
from dispatcher.store.queue_writer import Look
from tests.messages import change

NOW_MS = 1_800_000_000_000


class Queue:
    """Stands for QueueWriter. `fails` has what becomes of an event's id."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.batches: list[list[str]] = []
        self.spent: Counter[str] = Counter()
        self.queued = 0
        self.fails: dict[str, Exception] = {}
        self.breaks: dict[str, Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.lanes: dict[str, str] = {}
        self.silent: set[str] = set()
        self.away: dict[str, RedisUnavailable] = {}

    async def look(self, calls: Mapping[str, int], workspaces: Sequence[str]) -> Look:
        await self._do("look")
        if self.silent.intersection(workspaces):
            await asyncio.Event().wait()
        self.spent.update(calls)
        unknown = set(workspaces) - {"acme", *self.lanes}
        return Look(100, {id_: self.spent[id_] for id_ in calls}, self.queued, unknown, {}, self.away)

    async def refund(self, look: Look, calls: Mapping[str, int]) -> None:
        await self._do("refund")
        self.spent.subtract(calls)

    def lane(self, workspace: str) -> str:
        return self.lanes.get(workspace, "")

    async def add(self, changes: Sequence[bytes], workspaces: Sequence[str]) -> list[Exception | None]:
        ids = [json.loads(one)["eventId"] for one in changes]
        self.batches.append(ids)
        await self._do("add")
        return [self.fails.get(id_) for id_ in ids]

    async def _do(self, what: str) -> None:
        self.calls.append(what)
        await self.gate.wait()
        if error := self.breaks.get(what):
            raise error


class Keys:
    """Stands for ProducerKeys: the text is the id; `slow` may call twice a second."""

    def __init__(self) -> None:
        self.away: Exception | None = None

    def kept(self, text: str) -> ApiKey | None:
        return (
            ApiKey(text, PRODUCERS, PRODUCERS, "", 0, 2 if text == "slow" else 100) if text != "new" else None
        )

    async def identify(self, text: str) -> ApiKey | None:
        if self.away:
            raise self.away
        return None


class Bench:
    """An enqueuer, and what its calls were answered."""

    def __init__(self) -> None:
        self.queue, self.keys = Queue(), Keys()
        self.parts: Any = SimpleNamespace(
            producer_keys=self.keys, queue=self.queue, max_queued=5, now_ms=lambda: NOW_MS, allow_http=False
        )
        self.noted: list[Exception] = []
        self.enqueuer = Enqueuer(self.parts, self.noted.append)
        self.answers: dict[str, Answer | None] = {}

    def post(self, id_: str, key: str = "key", workspace: str = "acme", body: bytes = b"") -> None:
        """One call."""
        body = body or change(event_id=id_, workspace=workspace, at_ms=NOW_MS).to_json()
        self.enqueuer.take(key, body, lambda answer: self.reply(id_, answer))

    def reply(self, id_: str, answer: Answer | None) -> None:
        assert id_ not in self.answers, "once"
        self.answers[id_] = answer

    async def all_answered(self, count: int) -> dict[str, int | None]:
        """Statuses by id, once there are as many."""
        while len(self.answers) < count:
            await asyncio.sleep(0)
        return {id_: answer and answer.status for id_, answer in self.answers.items()}


def test_calls_that_come_together() -> None:
    """The first call goes at once; those that come while it is under way go together, in their order, in two round trips."""

    async def use() -> None:
        bench = Bench()
        bench.queue.gate.clear()
        for number in range(1 + enqueuer.AT_ONCE + 6):
            bench.post(f"e{number}", "slower" if number % 2 else "key")
            await asyncio.sleep(0)
        bench.queue.gate.set()
        answers = await bench.all_answered(71)
        assert {202} == set(answers.values())
        assert [1, 64, 6] == [len(batch) for batch in bench.queue.batches]
        assert [f"e{n}" for n in range(71)] == [id_ for batch in bench.queue.batches for id_ in batch]
        assert ["look", "add"] * 3 == bench.queue.calls
        left = [bench.answers[f"e{n}"].headers["X-RateLimit-Remaining"] for n in range(71)]  # type: ignore[union-attr]
        assert [str(99 - n // 2) for n in range(71)] == left

    asyncio.run(use())


def test_calls_that_must_not_be_enqueued() -> None:
    """What is over its rate, or of an unknown workspace, goes to the application, uncounted; the others are enqueued."""

    async def use() -> None:
        bench = Bench()
        for id_, key, workspace in (
            ("a", "slow", "acme"),
            ("b", "slow", "nobody"),
            ("c", "slow", "acme"),
            ("d", "key", "acme"),
        ):
            bench.post(id_, key, workspace)
        bench.post("e", body=b"{}")
        bench.post("f", body=b"[]")
        bench.post("g", "new")
        expected = {"a": 202, "b": None, "c": None, "d": 202, "e": None, "f": None, "g": None}
        assert expected == await bench.all_answered(7)
        assert ({"slow": 1, "key": 1}, [["a", "d"]]) == (dict(bench.queue.spent), bench.queue.batches)

    asyncio.run(use())


def test_a_queue_that_is_long() -> None:
    """While too much is on the queue, calls go to the application."""

    async def use() -> None:
        bench = Bench()
        bench.queue.queued = 6
        bench.post("a")
        assert {"a": None} == await bench.all_answered(1)
        bench.queue.queued = 5
        bench.post("b")
        assert {"a": None, "b": 202} == await bench.all_answered(2)

    asyncio.run(use())


def test_a_server_that_is_silent() -> None:
    """Calls whose server does not answer hold up none of another server's, however many come."""

    async def use() -> None:
        bench = Bench()
        bench.queue.lanes, bench.queue.silent = {"there": "one", "gone": "two"}, {"gone"}
        for number in range(3):
            bench.post(f"g{number}", workspace="gone")
            bench.post(f"t{number}", workspace="there")
            await asyncio.sleep(0)
        assert {"t0": 202, "t1": 202, "t2": 202} == await bench.all_answered(3)
        assert {"one", "two"} >= set(bench.enqueuer._waiting)

    asyncio.run(use())


def test_a_partition_that_is_away() -> None:
    """Calls for a partition that is away are refused, uncounted; others of the same batch are enqueued."""

    async def use() -> None:
        bench = Bench()
        bench.queue.lanes, bench.queue.away = {"gone": ""}, {"gone": RedisUnavailable("away")}
        bench.post("a", workspace="gone")
        bench.post("b")
        bench.post("c", workspace="gone")
        assert {"a": 503, "b": 202, "c": 503} == await bench.all_answered(3)
        assert {"key": 1} == dict(bench.queue.spent)
        assert not bench.enqueuer._waiting

    asyncio.run(use())


def test_one_that_redis_refuses() -> None:
    """If Redis takes some of a batch, only the others are told otherwise, each what became of it."""

    async def use() -> None:
        bench = Bench()
        bench.queue.fails = {"a": RedisFull("full"), "b": RedisUnavailable("gone"), "c": ValueError("a bug")}
        for id_ in "abcd":
            bench.post(id_)
        assert {"a": 503, "b": 503, "c": None, "d": 202} == await bench.all_answered(4)
        bodies = {id_: json.loads(one.body) for id_, one in bench.answers.items() if one}
        assert {"error": "not available now, try again"} == bodies["a"]
        assert {"queued": 0, "results": [{"eventId": "b", "result": "unconfirmed"}]} == bodies["b"]
        assert {"queued": 1, "results": [{"eventId": "d", "result": "queued"}]} == bodies["d"]
        assert [bench.queue.fails["a"]] == bench.noted

    asyncio.run(use())


@pytest.mark.parametrize(
    ("what", "error", "status"),
    [
        ("look", RedisUnavailable("away"), 503),
        ("look", RedisFull("full"), None),
        ("look", ValueError("a bug"), None),
        ("add", RedisUnavailable("away"), 503),
        ("add", ValueError("a bug"), None),
    ],
)
def test_a_batch_that_fails(what: str, error: Exception, status: int | None) -> None:
    """All calls of a batch are answered. If Redis does not answer, so are those that wait, without waiting for it again."""

    async def use() -> None:
        bench = Bench()
        bench.queue.gate.clear()
        bench.post("a")
        await asyncio.sleep(0)
        bench.post("b")
        bench.queue.breaks = {what: error}
        bench.queue.gate.set()
        assert {"a": status, "b": status} == await bench.all_answered(2)
        assert (1 if status else 2) == bench.queue.calls.count("look")
        bench.queue.breaks = {}
        bench.post("c")
        assert 202 == (await bench.all_answered(3))["c"]

    asyncio.run(use())


@pytest.mark.parametrize(("error", "status"), [(RedisUnavailable("away"), 503), (ValueError("a bug"), None)])
def test_a_key_that_cannot_be_looked_up(error: Exception, status: int | None) -> None:
    """A call whose key is not known is answered 503 while Redis is away; a bug is for the application to report."""

    async def use() -> None:
        bench = Bench()
        bench.keys.away = error
        bench.post("a", "new")
        assert {"a": status} == await bench.all_answered(1)

    asyncio.run(use())


def test_a_status_change_that_cannot_be_read() -> None:
    """A bug in what reads a status change is for the application to report."""

    async def use() -> None:
        bench = Bench()
        bench.parts.now_ms = lambda: 1 // 0
        bench.post("a")
        assert {"a": None} == await bench.all_answered(1)

    asyncio.run(use())


def test_an_answer_that_raises() -> None:
    """If a reply raises, the others are given all the same."""

    async def use() -> None:
        bench = Bench()
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)

        def broken(_: Answer | None) -> None:
            raise ValueError("a bug")

        bench.enqueuer.take("key", change(event_id="x", at_ms=NOW_MS).to_json(), broken)
        bench.post("a")
        assert {"a": 202} == await bench.all_answered(1)

    asyncio.run(use())
