"""Long work by itself: a count that is too old, two confirmations at once, Redis that goes away meanwhile."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from dispatcher.errors import InvalidInput
from tasks.console.access import Person, Role
from tasks.console.asking import Ask
from tasks.console.jobs import (
    CONFIRM_SECONDS,
    LOOK,
    MOST_CHOSEN,
    MOST_KEPT,
    MOST_KEPT_OF_ONE,
    MOST_OF_CUSTOMERS,
    MOST_OF_WORKSPACE,
    NO_ROOM,
    TOO_MUCH,
    Chosen,
    Job,
    Jobs,
    Progress,
    new_id,
)
from tasks.console.notes import Notes
from tasks.console.pages.work import begin
from tests.acceptance.stack import wait_until
from tests.console.acting import Scene, acting_scene
from tests.console.world import run_apart

OPERATOR = Person("key:key_1", "alice", Role.OPERATOR)


def operator(number: int) -> Person:
    """One of several."""
    return replace(OPERATOR, who=f"key:{number}")


def customer(workspace: str) -> Person:
    """A customer."""
    return Person(f"portal:{workspace}", workspace, Role.CUSTOMER, workspace)


def run(of: Callable[[Jobs], Coroutine[Any, Any, None]], confirm_seconds: float = CONFIRM_SECONDS) -> None:
    """Runs a test with the work of one process."""

    async def whole() -> None:
        jobs = Jobs(confirm_seconds)
        await of(jobs)
        await jobs.close()

    run_apart(whole())


def job_of(person: Person = OPERATOR) -> Job:
    """A piece of work about callbacks."""
    return Job(new_id(), "Replay", "Replay", ("callback", "callbacks"), person, "/")


async def counted(
    jobs: Jobs, count: int, act: Callable[[Progress], Coroutine[Any, Any, str]], person: Person = OPERATOR
) -> Job:
    """Work that is counted and can be confirmed."""

    async def choose(_: Progress) -> Chosen:
        return Chosen(count, act)

    job = jobs.count(job_of(person), choose)
    assert job.task
    await job.task
    return job


def confirming(jobs: Jobs, job: Job, count: str) -> Ask:
    """The request of a press of the button."""
    scope = {"type": "http", "method": "POST", "path_params": {"id": job.id}, "query_string": b""}
    parts: Any = SimpleNamespace(jobs=jobs, notes=Notes())
    return Ask(Request(scope | {"headers": []}), OPERATOR, parts, "", {"count": count})


def test_a_count_that_is_too_old_is_refused() -> None:
    async def of(jobs: Jobs) -> None:
        acted = list[int]()

        async def act(_: Progress) -> str:
            acted.append(1)
            return "done"

        job = await counted(jobs, 3, act)
        while job.state == "ready":
            await asyncio.sleep(0.01)
        with pytest.raises(InvalidInput, match="not confirmed within a quarter of an hour"):
            await begin(confirming(jobs, job, "3"))
        jobs.begin(job)
        assert ("stopped", None, []) == (job.state, job.chosen, acted)

    run(of, confirm_seconds=0.05)


def test_counts_that_nobody_confirmed_stand_in_nobodys_way() -> None:
    """They are dropped with what they keep in memory, also those of people who never come back."""

    async def of(jobs: Jobs) -> None:
        async def act(_: Progress) -> str:
            return "done"

        left = [await counted(jobs, 3, act, customer(f"c{n}")) for n in range(MOST_OF_CUSTOMERS)]
        assert "ready" == (await counted(jobs, 3, act, customer("another"))).state
        assert (("stopped", NO_ROOM), "ready") == ((left[0].state, left[0].said), left[1].state)
        while any(one.state == "ready" for one in left):
            await asyncio.sleep(0.01)
        assert not any(one.chosen for one in left)
        assert "ready" == (await counted(jobs, 3, act, customer("another"))).state

    run(of, confirm_seconds=0.5)


def test_one_workspace_leaves_room_for_the_others() -> None:
    """Its limits hold for its people together: their oldest count is dropped for a new one, and nobody else's."""

    async def of(jobs: Jobs) -> None:
        async def act(_: Progress) -> str:
            await asyncio.sleep(3600)
            return "done"

        others = [await counted(jobs, 3, act, customer(f"c{n}")) for n in range(MOST_OF_CUSTOMERS - 4)]
        operators = await counted(jobs, 3, act)
        people = [replace(customer("acme"), who=f"portal:acme:{n}") for n in range(MOST_OF_CUSTOMERS)]
        own = [await counted(jobs, 3, act, one) for one in people]
        assert MOST_OF_WORKSPACE == sum(one.state == "ready" for one in own)
        assert {"ready"} == {one.state for one in (*others, operators)}
        for one in own:
            jobs.begin(one)
        with pytest.raises(InvalidInput, match="too much work is under way"):
            await counted(jobs, 3, act, people[0])
        assert "ready" == (await counted(jobs, 3, act, customer("another"))).state

    run(of)


def test_what_is_counted_is_bounded_in_all() -> None:
    """The oldest count makes room that is not confirmed: one's own, then a customer's; an operator's only for an operator."""

    async def act(_: Progress) -> str:
        return "done"

    async def many(jobs: Jobs, count: int, person: Person) -> Job:
        async def choose(progress: Progress) -> Chosen:
            for number in range(0, count + 1, LOOK):
                progress.counted(number)
            return Chosen(count, act)

        job = jobs.count(job_of(person), choose)
        assert job.task
        await job.task
        return job

    async def of(jobs: Jobs) -> None:
        half = MOST_CHOSEN // 2
        own = [await many(jobs, half, customer("acme")) for _ in range(3)]
        assert ["stopped", "ready", "ready"] == [one.state for one in own]
        first = [await many(jobs, MOST_CHOSEN, operator(n)) for n in range(2)]
        assert ["stopped", "stopped", "ready"] == [one.state for one in own]
        refused = await many(jobs, MOST_CHOSEN, customer("globex"))
        assert ("failed", TOO_MUCH) == (refused.state, refused.said)
        assert ["stopped", "ready", "ready"] == [one.state for one in (own[2], *first)]
        third = await many(jobs, MOST_CHOSEN, operator(2))
        assert ["stopped", "ready", "ready"] == [one.state for one in (*first, third)]

    run(of)


def test_work_that_is_over_is_forgotten_by_whose_it_is() -> None:
    """What customers count makes no work of an operator unknown."""

    async def of(jobs: Jobs) -> None:
        async def act(_: Progress) -> str:
            return "done"

        first = await counted(jobs, 1, act)
        jobs.begin(first)
        assert first.task
        await first.task
        for number in range(MOST_KEPT + 10):
            await counted(jobs, 0, act, customer(f"c{number // 100}"))
        assert first is jobs.get(OPERATOR, first.id)
        for _ in range(MOST_KEPT_OF_ONE + 1):
            await counted(jobs, 0, act)
        assert jobs.get(OPERATOR, first.id) is None
        assert MOST_KEPT_OF_ONE + 1 >= len(jobs.of(customer("c1")))

    run(of)


def test_two_confirmations_at_once_begin_it_once() -> None:
    async def of(jobs: Jobs) -> None:
        acted = list[int]()

        async def act(_: Progress) -> str:
            acted.append(1)
            return "done"

        job = await counted(jobs, 3, act)
        both = [begin(confirming(jobs, job, "3")) for _ in range(2)]
        first, second = await asyncio.gather(*both, return_exceptions=True)
        assert HTTPStatus.SEE_OTHER == first.status_code  # type: ignore[union-attr]
        assert isinstance(second, InvalidInput)
        assert job.task
        await job.task
        assert ("done", [1]) == (job.state, acted)

    run(of)


def test_a_stop_ends_between_two_steps() -> None:
    """A step that has begun is finished and counted: none is done that the page says was not."""

    async def of(jobs: Jobs) -> None:
        done = list[int]()
        in_step = asyncio.Event()

        async def act(progress: Progress) -> str:
            for step in progress.steps(range(10)):
                in_step.set()
                await asyncio.sleep(0)
                done.append(step)
            return "done"

        job = await counted(jobs, 10, act)
        jobs.begin(job)
        await in_step.wait()
        jobs.stop(job)
        assert job.task
        await job.task
        assert [0] == done
        assert "Stopped after 1 of 10 callbacks; what was done stays done." == job.said

    run(of)


def test_redis_stops_while_work_is_done(server_program: str, tmp_path: Path) -> None:
    """The page says after how many, and what does not answer; when Redis is back, the rest can be counted again."""
    with acting_scene(tmp_path, DISPATCHER_MAX_ATTEMPTS="1") as scene:
        failed = scene.failing("acme", 2000)
        cookie = scene.cookie("operator")
        work = scene.count("/callbacks/replay", cookie, state="failed", workspace="acme", rate="0.02")
        assert 303 == scene.confirm(work, cookie, 2000)[0]
        wait_until(lambda: scene.stack.state(failed[-1]) != "failed", 20, "the first ones are replayed")
        scene.stack.server.kill()
        log = scene.console.log
        wait_until(lambda: "audit.unwritten" in log.read_text(), 60, "the work has ended")
        scene.stack.server.start()
        said = scene.finished(work, cookie)
        assert re.search(r"After [0-9,]+ of 2,000 callbacks: ", said), said
        assert "redis.sock" in said
        again = [one for one in failed if scene.stack.state(one) == "failed"]
        assert again, "the rest was left alone"
        entries = wait_until(lambda: _replays(scene), 60, "the log of actions has what was done")
        told = entries[0]["to"]
        assert 0 < told["replayed"] <= len(failed) - len(again)
        assert "doneAt" in told


def _replays(scene: Scene) -> list[dict[str, Any]]:
    return [one for one in scene.stack.cli_json("audit", "list") if one["what"] == "event.replay"]
