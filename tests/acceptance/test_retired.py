"""What Redis has retired happens once nevertheless; real workers and commands."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dispatcher.model import iso
from tasks.receiver import answer_ok
from tests.acceptance.stack import CLI, Stack, wait_until
from tests.acceptance.test_archive import wait_retired, with_archive
from tests.conftest import postgres_server
from tests.freezing import freeze

NOW = iso(time.time() * 1000)


@pytest.fixture
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of this test's own."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def stack_with_retired(stack: Stack, postgres: Any) -> tuple[Stack, list[str]]:
    """A stack with a worker, and the eventIds that it has delivered, and Redis has retired."""
    with_archive(stack, postgres.get_uri())
    stack.add_workspace("acme", "zeckta", f"{stack.listen()}/hooks")
    stack.start_worker().wait_ready()
    ids = stack.enqueue(20, timestamp=NOW)
    wait_until(lambda: len(stack.received) == 20, what="POSTs")
    wait_retired(stack, *ids)
    return stack, ids


def queued(stack: Stack) -> int:
    """How many entries are on the queue."""
    found: int = stack.redis.xlen("dispatcher:events")
    return found


def test_once(stack_with_retired: tuple[Stack, list[str]]) -> None:
    """A repeated eventId is a duplicate, and not sent again; with another status it is a conflict, which is kept and shown."""
    stack, ids = stack_with_retired
    assert ids == stack.enqueue(20, timestamp=NOW)
    stack.enqueue(1, eventId=ids[3], status="DELIVERED", first=3)
    [other] = stack.enqueue(1, first=50)
    wait_until(lambda: queued(stack) == 0, what="an empty queue")
    wait_until(lambda: len(stack.received) == 21, what="the new one's POST")
    assert 21 == len({one.event_id for one in stack.received})
    [rejected] = stack.cli_json("rejected", "list")
    assert ("conflict", ids[3]) == (rejected["reason"], rejected["eventId"])
    counted = [stack.redis.hget(key, "duplicate") for key in stack.redis.keys("dispatcher:stats:minute:*")]
    assert 20 == sum(int(one or 0) for one in counted)
    wait_retired(stack, other)


def test_while_the_archive_is_away(stack_with_retired: tuple[Stack, list[str]], postgres: Any) -> None:
    """What only the archive can decide stays on the queue, and all else goes on; when it answers again, that is decided."""
    stack, ids = stack_with_retired
    with hanging(postgres):
        stack.enqueue(20, timestamp=NOW)
        new = stack.enqueue(10, first=100)
        wait_until(lambda: len(stack.received) == 30, what="POSTs of what is new")
        assert {*ids, *new} == {one.event_id for one in stack.received}
        assert 20 == queued(stack)
    wait_until(lambda: queued(stack) == 0, 90, "an empty queue")
    assert 30 == len(stack.received)


@contextmanager
def hanging(server: Any) -> Iterator[None]:
    """Stops all processes of a PostgreSQL server within `with`."""
    first = int(server.get_pid())
    pids = [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]
    for pid in pids:
        freeze(pid)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_without_the_setting(stack_with_retired: tuple[Stack, list[str]]) -> None:
    """A worker or command without the archive would not know what was retired: it says what to set, and ends."""
    stack, ids = stack_with_retired
    url = stack.environment.pop("DISPATCHER_ARCHIVE_URL")
    worker = stack.start_worker()
    wait_until(lambda: worker.process.poll() is not None, what="its end")
    assert 78 == worker.process.returncode
    assert "DISPATCHER_ARCHIVE_URL" in worker.log
    for command in (("event", "show", ids[0], "--workspace", "acme"), ("stats",), ("check",)):
        done = stack.cli(*command)
        said = done.stdout + done.stderr
        assert (True, True) == (done.returncode != 0, "DISPATCHER_ARCHIVE_URL" in said), (command, done)
        assert "Traceback" not in said
    stack.environment["DISPATCHER_ARCHIVE_URL"] = url
    assert (
        "delivered"
        == json.loads(stack.cli("event", "show", ids[0], "--workspace", "acme", "--json").stdout)["state"]
    )


def test_the_end_of_the_archive(stack_with_retired: tuple[Stack, list[str]]) -> None:
    """It ends when Redis has forgotten what only the archive knows, or at once; then workers do without the setting."""
    stack, _ = stack_with_retired
    refused = stack.cli("archive", "end")
    assert (2, True) == (refused.returncode, "--at-once" in refused.stderr), refused
    assert "callbacks and messages" in refused.stderr
    assert "the status API" in refused.stderr
    assert 0 == stack.workers[0].terminate()
    ended = stack.cli("archive", "end", "--at-once")
    assert (0, True) == (ended.returncode, "unset DISPATCHER_ARCHIVE_URL" in ended.stdout), ended
    del stack.environment["DISPATCHER_ARCHIVE_URL"]
    stack.start_worker().wait_ready()
    stack.enqueue(1, first=300)
    wait_until(lambda: len(stack.received) == 21, what="a POST")


def test_an_archiver(stack: Stack) -> None:
    """`dispatcher archiver` does it in place of workers; when it ends they go on."""
    with_archive(stack, f"sqlite:///{stack.folder}/archive.db")
    stack.add_workspace("acme", "zeckta", f"{stack.listen()}/hooks")
    archiver = stack.start_worker(*CLI, "archiver")
    wait_until(lambda: "taking what ends" in archiver.log, what="an archiver")
    wait_until(lambda: stack.redis.exists("dispatcher:archiver"), what="its sign of life")
    worker = stack.start_worker().wait_ready()
    freeze(archiver.process.pid)
    ids = stack.enqueue(5)
    wait_until(lambda: len(stack.received) == 5, what="POSTs")
    time.sleep(3)  # the worker would have taken them by now
    assert 5 == stack.redis.xlen("dispatcher:ended")
    archiver.process.send_signal(signal.SIGCONT)
    wait_retired(stack, *ids)
    assert 0 == archiver.terminate()
    assert not stack.redis.exists("dispatcher:archiver")
    ids = stack.enqueue(5, first=10)
    wait_until(lambda: len(stack.received) == 10, what="POSTs")
    wait_retired(stack, *ids)
    assert worker.process.poll() is None
    assert 10 == len(stack.cli("history").stdout.splitlines())


def test_an_older_backup_of_redis(stack: Stack) -> None:
    """What the backup has goes to the archive again, and is there once; what only the archive has is sent again if it comes again."""
    with_archive(stack, f"sqlite:///{stack.folder}/archive.db")
    stack.environment["DISPATCHER_ARCHIVE_AFTER_SECONDS"] = "300"
    stack.add_workspace("acme", "zeckta", f"{stack.listen()}/hooks")
    worker = stack.start_worker().wait_ready()
    before = stack.enqueue(5, timestamp=NOW)
    wait_until(lambda: stack.redis.xlen("dispatcher:ended") == 5, what="ends")
    assert 0 == worker.terminate()
    stack.server.kill()
    data = Path(stack.server.folder)
    backup = stack.folder / "backup"
    shutil.copytree(data, backup, ignore=shutil.ignore_patterns("*.sock"))
    stack.server.start()

    stack.environment["DISPATCHER_ARCHIVE_AFTER_SECONDS"] = "0"
    worker = stack.start_worker().wait_ready()
    after = stack.enqueue(5, first=10, timestamp=NOW)
    wait_until(lambda: len(stack.received) == 10, what="POSTs")
    wait_retired(stack, *before, *after)
    assert 0 == worker.terminate()
    stack.server.kill()
    shutil.copytree(backup, data, dirs_exist_ok=True)
    stack.server.start()
    assert 5 == stack.redis.xlen("dispatcher:ended")

    worker = stack.start_worker().wait_ready()
    wait_retired(stack, *before)
    stack.enqueue(5, timestamp=NOW)
    stack.enqueue(5, first=10, timestamp=NOW)
    wait_until(lambda: len(stack.received) == 15, what="those that only the archive has")
    wait_retired(stack, *after)
    assert {*before, *after} == {one.event_id for one in stack.received[:10]}
    assert set(after) == {one.event_id for one in stack.received[10:]}
    told = [json.loads(one)["eventId"] for one in stack.cli("history").stdout.splitlines()]
    assert sorted([*before, *after]) == sorted(told)


def test_replay_of_many(stack: Stack) -> None:
    """`event replay --state failed` counts and sends what only the archive has."""

    async def gone(_: web.Request, __: int) -> web.Response:
        return web.Response(status=410)

    with_archive(stack, f"sqlite:///{stack.folder}/archive.db")
    stack.answer = gone
    stack.add_workspace("acme", "zeckta", f"{stack.listen()}/hooks")
    stack.start_worker().wait_ready()
    ids = stack.enqueue(7, timestamp=NOW)
    wait_until(lambda: len(stack.received) == 7, what="POSTs")
    wait_retired(stack, *ids)
    bodies = {one.event_id: one.body for one in stack.received}
    stack.answer = answer_ok
    command = ("event", "replay", "--state", "failed", "--workspace", "acme", "--since", "1h")
    assert "7" in stack.cli(*command).stdout
    done = stack.cli(*command, "--yes")
    assert 0 == done.returncode, done
    wait_until(lambda: len(stack.received) == 14, what="replays")
    assert bodies == {one.event_id: one.body for one in stack.received[7:]}
    wait_retired(stack, *ids)
    assert [] == stack.cli_json("event", "list", "--state", "failed", "--workspace", "acme")
    assert 7 == len(stack.cli_json("event", "list", "--state", "delivered", "--workspace", "acme"))
