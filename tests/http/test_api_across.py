"""The HTTP API of an installation with eight partitions on two servers."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dispatcher.rules.partitions import Partitioning
from dispatcher.store.arguments import ToAccept
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.recorder import Recorder
from tasks import wiring
from tasks.actions import workspaces
from tasks.actions.workspaces import Wanted
from tasks.redis_server import RedisServer
from tests.divided import End, Installed, installed, kill, stop, two_servers
from tests.http.served_api import Answered, Served, served
from tests.messages import change
from tests.world import TOKEN

P = 8
NAMES = [f"customer-{n}" for n in range(12)]
HOMES = {name: Partitioning(P).home(name) for name in NAMES}


@pytest.fixture
def servers(server_program: str, tmp_path: Path) -> Iterator[list[RedisServer]]:
    """Two servers."""
    with two_servers(server_program, tmp_path) as started:
        yield started


class Asked:
    """The API, a producer's key, and what is behind it."""

    def __init__(self, of: Installed, api: Served, key: str) -> None:
        self.of = of
        self.api = api
        self.key = key

    def ask(self, method: str, path: str, body: bytes = b"", key: str = "") -> Answered:
        """The answer to one call."""
        head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: {key or f'Bearer {self.key}'}\r\n"
        more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return self.api.ask((head + more).encode() + body)

    def enqueue(self, *names: str) -> Answered:
        """Enqueues a status change for each workspace."""
        given = [change(workspace=name, event_id=f"of-{name}", at_ms=self.of.now).to_json() for name in names]
        body = given[0] if len(given) == 1 else b"[" + b",".join(given) + b"]"
        return self.ask("POST", "/v1/status-changes", body)

    def queues(self) -> dict[int, int]:
        """How many status changes are on each partition's queue that has some."""
        lengths = {n: world.call("xlen", world.keys.events) for n, world in enumerate(self.of.worlds)}
        return {n: length for n, length in lengths.items() if length}


@contextmanager
def asked(servers: list[RedisServer], **settings: Any) -> Iterator[Asked]:
    """An API on both servers, with twelve workspaces."""
    urls = [one.url for one in servers]

    async def key(store: wiring.Store) -> str:
        _, text = await store.api_keys.add("*", "*", "backend", now_ms=1, rate_per_second=1000)
        return text

    with (
        installed(urls, P) as of,
        served(" ".join(urls), partitions=P, broker_url=urls[0], **settings) as api,
    ):
        for name in NAMES:
            of.do(workspaces.add, name, "sendexa", Wanted(f"https://{name}.example/hooks"), None)
        yield Asked(of, api, of.do(key))


def expected(*names: str) -> dict[int, int]:
    """How many of the workspaces each partition has."""
    homes = [HOMES[name] for name in names]
    return {n: homes.count(n) for n in homes}


def test_single_ones_go_home(servers: list[RedisServer]) -> None:
    """A call with one status change puts it on the queue of its workspace's partition; an unknown workspace is refused."""
    with asked(servers) as of:
        assert [202] * 12 == [of.enqueue(name).status for name in NAMES]
        assert expected(*NAMES) == of.queues()
        refused = of.enqueue("customer-99")
        assert 422 == refused.status
        assert b"customer-99" in refused.body


def test_many_go_home(servers: list[RedisServer]) -> None:
    """A call with many puts each on its own partition's queue, and says which workspace there is not."""
    with asked(servers) as of:
        answer = of.enqueue(*NAMES, "customer-99")
        assert 12 == json.loads(answer.body)["queued"]
        assert expected(*NAMES) == of.queues()
        assert b"customer-99" in answer.body


@pytest.mark.parametrize("end", [kill, stop])
def test_a_server_that_is_away(servers: list[RedisServer], end: End) -> None:
    """Its workspaces' status changes are answered 503, one by one or together; those of the other server are queued.

    The process stays ready.
    """
    with asked(servers) as of:
        of.api.app.inner.state.health.answered()
        gone = 1 - Partitioning(P).home("*") % 2  # producers' keys lie on the other one
        there = [name for name in NAMES if HOMES[name] % 2 != gone]
        away = [name for name in NAMES if name not in there]
        assert 202 == of.enqueue(there[0]).status  # the key is known from now on
        end(servers[gone])
        assert {503} == {of.enqueue(name).status for name in away}
        assert {202} == {of.enqueue(name).status for name in there}
        answer = of.enqueue(*NAMES)
        found = {one["eventId"] for one in json.loads(answer.body)["results"] if one["result"] == "queued"}
        assert {f"of-{name}" for name in there} == found
        assert 503 == answer.status
        assert 200 == of.ask("GET", "/readyz").status, "the other servers' workspaces are served"


def test_a_queue_that_is_full(servers: list[RedisServer]) -> None:
    """A partition whose queue is too long refuses its own workspaces; others' are queued."""
    first = NAMES[0]
    with asked(servers, api_max_queued=2) as of:
        others = [name for name in NAMES if HOMES[name] != HOMES[first]]
        assert [202, 202, 202, 503] == [of.enqueue(first).status for _ in range(4)]
        assert 202 == of.enqueue(others[0]).status
        answer = of.enqueue(first, others[1])
        assert (503, 1) == (answer.status, json.loads(answer.body)["queued"])


def test_reads(servers: list[RedisServer]) -> None:
    """A customer's key opens its own messages, wherever they lie; 503 if that partition does not answer, and others go on."""

    async def keys(store: wiring.Store) -> dict[str, str]:
        return {
            name: (await store.api_keys.add(name, "sendexa", "k", now_ms=1, rate_per_second=50))[1]
            for name in NAMES
        }

    with asked(servers) as of:
        texts = of.of.do(keys)
        for name in NAMES:
            world, batch, recorder = of.of.of(name), ToAccept(), Recorder(604_800_000, Metrics())
            recorder.add(batch, change(uuid=f"m-{name}", workspace=name, at_ms=of.of.now), "sendexa", 0)
            world.run(world.ledger.accept(TOKEN, {}, [], batch))

        def status(name: str, message: str) -> int:
            login = base64.b64encode(texts[name].replace(".", ":", 1).encode()).decode()
            return of.ask("GET", f"/v1/sms/status/{message}", key=f"Basic {login}").status

        assert {200} == {status(name, f"m-{name}") for name in NAMES}
        assert 404 == status(NAMES[0], f"m-{NAMES[1]}")
        servers[1].kill()
        assert [503 if HOMES[name] % 2 else 200 for name in NAMES] == [
            status(name, f"m-{name}") for name in NAMES
        ]


def test_a_webhook_while_a_partition_is_away(servers: list[RedisServer]) -> None:
    """It is set, and in the trail, where partitions answer; another of the workspace's is named in the log."""
    name, its = "delta", Partitioning(P)

    async def key(store: wiring.Store) -> str:
        await store.workspaces.add(name, "qlara", now_ms=1, width=P)
        return (await store.api_keys.add(name, "qlara", "k", now_ms=1, rate_per_second=50))[1]

    async def trail(store: wiring.Store) -> list[str]:
        return [one.what for one in await store.audit.latest(10, name)]

    with asked(servers) as of:
        text = of.of.do(key)
        home = its.home(name)
        servers[1 - home % 2].kill()
        for method, url, status in (("POST", "one", 201), ("PUT", "two", 200)):
            body = json.dumps({"callbackUrl": f"https://{url}.example/q"}).encode()
            path = "/partner-gateway/v1/webhooks/delivery-status"
            answer = of.ask(method, path, body, key=f"-\r\nX-Api-Key: {text}")
            assert status == answer.status, answer
        for n in range(home % 2, P, 2):
            world = of.of.worlds[n]
            record = world.keys.workspace(name)
            assert b"https://two.example/q" == world.call("hget", record, "callback_url")
        assert ["webhook.replace", "webhook.create"] == of.of.do(trail)
