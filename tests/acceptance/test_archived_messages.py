"""The status API answers the same about a message in Redis and in the archive: real workers, a real API process, a real PostgreSQL."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from dispatcher.model import iso
from tests.acceptance.redis_users import denied, make_users, url_as
from tests.acceptance.stack import CLI, Stack, Worker, free_port, wait_until
from tests.acceptance.test_archive import with_archive
from tests.acceptance.test_retired import hanging
from tests.conftest import postgres_server

NUMBER = "+233200000001"


@pytest.fixture
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of this test's own."""
    with postgres_server() as server:
        yield server


class Asked:
    """An API, and a workspace's key for it."""

    def __init__(self, stack: Stack) -> None:
        port = free_port()
        stack.add_workspace("acme", "namirial", f"{stack.listen()}/hooks")
        key = stack.cli_json("workspace", "api-key", "add", "acme", "--rate-per-second", "10000")["apiKey"]
        make_users(stack.redis)
        environment = stack.environment | {"DISPATCHER_REDIS_URL": url_as(stack, "api")}
        self.process = Worker(
            stack, [*CLI, "api", "--port", str(port)], environment, stack.folder / "api.log"
        )
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"X-Api-Key": key}, timeout=40
        )
        wait_until(self._is_up, what="API up")

    def _is_up(self) -> bool:
        try:
            return self.client.get("/openapi.json").is_success
        except httpx.TransportError:
            return False

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        answer = self.client.get(f"/api/messagestatus{path}")
        return answer.status_code, answer.json()


def told(uuid: str, status: str, at_ms: int) -> dict[str, Any]:
    """Fields of a status change."""
    about = {"service": "SHOP", "action": "PAID", "key": f"order {uuid}"}
    message = {"uuid": uuid, "src": "ACME", "dest": NUMBER, "channel": "SMS", "reference": about}
    return {"message": message, "status": status, "timestamp": iso(at_ms)}


def test_before_and_after(stack: Stack, postgres: Any) -> None:
    """By id, number and reference; while the archive hangs, what Redis knows is answered by id, and all else is refused."""
    with_archive(stack, postgres.get_uri())
    stack.environment["DISPATCHER_ARCHIVE_AFTER_SECONDS"] = "10"
    api = Asked(stack)
    worker = stack.start_worker().wait_ready()
    now = round(time.time() * 1000) - 60_000
    for number in range(6):
        stack.enqueue(1, **told(f"m{number}", "SENT", now + number * 1000), eventId=f"s{number}")
    for number in range(0, 6, 2):
        stack.enqueue(1, **told(f"m{number}", "DELIVERED", now + 30_000), eventId=f"d{number}")
    paths = [f"/m{number}" for number in range(6)] + [f"/phonenumber/{NUMBER}", "/reference/order m0"]

    def answers() -> list[tuple[int, Any]]:
        return [api.get(path) for path in paths]

    wait_until(lambda: len(stack.received) == 9, what="POSTs")
    wait_until(lambda: {200} == {status for status, _ in answers()}, what="an archive with tables")
    before = answers()
    assert 6 == len(before[-2][1]["messages"])
    wait_until(
        lambda: not stack.redis.exists("dispatcher:status:acme:m0"), what="a Redis that has retired it"
    )
    wait_until(lambda: len(stack.redis.keys("dispatcher:status:acme:*")) == 3, what="the others gone")
    assert before == answers()
    stack.enqueue(1, **told("m0", "SENT", now + 40_000), eventId="late")
    wait_until(lambda: len(stack.received) == 10, what="the late one's POST")
    assert before == answers()
    assert [] == stack.redis.keys("dispatcher:status:acme:m0")
    with hanging(postgres):
        assert before[1] == api.get("/m1")
        assert [503, 503] == [api.get(path)[0] for path in ("/m0", f"/phonenumber/{NUMBER}")]
    wait_until(lambda: api.get("/m0")[0] == 200, 60, "an archive that answers")
    assert before == answers()
    assert "api.archive_away" in api.process.log
    assert "Traceback" not in api.process.log + worker.log
    assert set() == denied(stack.redis)
    api.client.close()
    assert api.process.terminate() in (0, -15)
