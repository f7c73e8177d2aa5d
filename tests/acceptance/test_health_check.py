"""The health check of a container, `check --live --here`, while one of two servers is away."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.redis_server import RedisServer
from tests.acceptance.divided import shares
from tests.acceptance.stack import Stack, wait_until
from tests.divided import stop

COUNT = 4


@pytest.fixture
def second(stack: Stack, tmp_path: Path) -> Iterator[RedisServer]:
    """The second of two servers, which have the partitions of the stack between them."""
    folder = tmp_path / "second"
    folder.mkdir()
    server = RedisServer(folder)
    try:
        server.start()
        stack.environment |= {
            "DISPATCHER_REDIS_URL": f"{stack.server.url} {server.url}",
            "DISPATCHER_BROKER_URL": stack.server.url,
            "DISPATCHER_PARTITIONS": str(COUNT),
        }
        yield server
    finally:
        server.kill()


def found_live(stack: Stack, code: int, *options: str) -> tuple[dict[str, dict[str, Any]], str]:
    """What `check --live` finds, by subject, and its last line on standard error."""
    done = stack.cli("check", "--live", "--json", *options)
    assert code == done.returncode, done.stdout + done.stderr
    return {one["subject"]: one for one in json.loads(done.stdout)}, (done.stderr.splitlines() or [""])[-1]


def test_a_server_is_away(stack: Stack, second: RedisServer) -> None:
    """With `--here` a healthy worker stays healthy, and what is away is a warning; without, it is bad, and both of its partitions count."""
    worker = stack.start_worker().wait_ready()
    wait_until(lambda: shares(stack) == [COUNT], what="one owner of all")
    found, line = found_live(stack, 0, "--here")
    assert ("", {"ok"}) == (line, {one["verdict"] for one in found.values()})
    stop(second)
    wait_until(lambda: worker.lines("redis.away"), what="the worker notices")
    found, line = found_live(stack, 0, "--here")
    assert ("", ["ok", "ok"]) == (line, [found[one]["verdict"] for one in ("workers", "hints")])
    assert "warning" == found["partitions"]["verdict"]
    assert found["partitions"]["detail"].startswith("2 of 4 partitions did not answer (1, 3: ")
    wait_until(lambda: "2 of 4" in found_live(stack, 1)[0]["intake"]["detail"], what="nobody leads them")
    found, line = found_live(stack, 1)
    assert "bad" == found["intake"]["verdict"]
    assert line.startswith("2 of 4 partitions did not answer (1, 3: ")
    worker.kill()
    found, _ = found_live(stack, 1, "--here")
    assert ["bad", "bad", "warning"] == [found[one]["verdict"] for one in ("workers", "hints", "intake")]
