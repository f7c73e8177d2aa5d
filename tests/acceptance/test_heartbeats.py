"""Who is alive, and who leads, once a worker has gone."""

import json
from typing import Any

import pytest

from tests.acceptance.stack import Stack, Worker, wait_until


@pytest.fixture
def workers(stack: Stack) -> tuple[Worker, Worker]:
    """The one that leads intake, and the other."""
    started = [stack.start_worker().wait_ready() for _ in range(2)]
    (leader,) = wait_until(lambda: [w for w in started if w.lines("intake.leading")])
    wait_until(lambda: stack.redis.zcard("dispatcher:workers") == 2)
    return leader, *(w for w in started if w is not leader)  # type: ignore[return-value]


def found_live(stack: Stack) -> dict[str, dict[str, Any]]:
    """What `check --live` finds, by subject."""
    return {one["subject"]: one for one in json.loads(stack.cli("check", "--live", "--json").stdout)}


def is_in(worker: Worker, finding: dict[str, Any]) -> bool:
    """Whether a finding names this worker."""
    return f"/{worker.process.pid}" in finding["detail"]


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_leader_that_has_gone(stack: Stack, workers: tuple[Worker, Worker], how: str) -> None:
    """Right after the leader's end `check --live` names the other one alone, as alive and as leader."""
    leader, other = workers
    getattr(leader, how)()
    found = found_live(stack)
    assert (True, False) == (is_in(other, found["workers"]), is_in(leader, found["workers"]))
    assert ("ok", True) == (found["intake"]["verdict"], is_in(other, found["intake"]))


def test_last_one_that_stopped(stack: Stack) -> None:
    """A worker that stopped cleanly has left no heartbeat: neither `check` nor the exporter's figures count it."""
    stack.start_worker().wait_ready()
    wait_until(lambda: stack.redis.zcard("dispatcher:workers") == 1)
    stack.workers[0].terminate()
    assert ([], 0) == (stack.redis.keys("dispatcher:worker:*"), stack.redis.zcard("dispatcher:workers"))
    assert "1 alive" not in stack.cli("check").stdout
    assert "bad" == found_live(stack)["workers"]["verdict"]
