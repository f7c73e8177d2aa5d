"""What a worker's channel to a Redis broker does with kombu's private names, on a real server."""

import gc
import json
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.transport.redis import SentinelTransport, Transport

from config import broker
from tasks.hint_channel import take_only_hints
from tasks.hint_message import make_message, read_hint
from tasks.redis_server import RedisServer
from tests.fake_sentinel import FakeSentinel
from tests.faults.proxy import Proxy

HINTS = Queue("dispatcher", Exchange("dispatcher"), "dispatcher")
ENDPOINT = "A" * 12
HINT = json.dumps(make_message([ENDPOINT], "")).encode()
DEEP = b"[" * 200_000
OTHER_TASK = HINT.replace(b"dispatcher.deliver", b"dispatcher.destroy")


@pytest.fixture(params=["one server", "sentinel"])
def broker_url(request: pytest.FixtureRequest, redis_server: RedisServer, redis_url: str) -> Iterator[str]:
    """The broker, as its setting names it."""
    if request.param == "one server":
        yield redis_url
    else:
        with Proxy(redis_server.socket) as proxy, FakeSentinel(proxy.port) as sentinel:
            yield sentinel.url
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # kombu leaves its sockets in reference cycles


@pytest.fixture
def connection(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A worker's connection to its broker."""
    for transport in (Transport, SentinelTransport):
        monkeypatch.setattr(transport, "Channel", transport.Channel)  # put back after the test
    take_only_hints()
    url, tls, options = broker.of(broker_url, None)
    with Connection(url, ssl=tls, transport_options=options) as connection:
        yield connection


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    """The broker, as anybody who may write there sees it."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


def first_taken(connection: Connection, queue: Queue) -> Any:
    """What Celery gets first of a queue; the channel is closed after it, as by a worker that ends."""
    taken: list[Any] = []
    with connection.channel() as channel, Consumer(channel, queue, on_message=taken.append):
        while not taken:
            connection.drain_events(timeout=20)
    return taken[0]


@pytest.mark.parametrize(
    "strange", [b"{", b"\xff\xfe", DEEP, OTHER_TASK], ids=["text", "bytes", "deep", "task"]
)
def test_what_is_no_hint_is_dropped(connection: Connection, server: redis.Redis, strange: bytes) -> None:
    """Celery gets the hint behind it, as a message that was made here."""
    server.lpush("dispatcher", strange)
    server.lpush("dispatcher", HINT)
    message = first_taken(connection, HINTS)
    assert json.loads(HINT)["headers"]["id"] != message.headers["id"]
    assert [[ENDPOINT]] == json.loads(message.body)[0]


def test_remote_control_is_not_looked_at(connection: Connection) -> None:
    """A broadcast of Celery's remote control is no hint, and comes through as it is."""
    control = Queue("control", Exchange("control", type="fanout"), exclusive=True)
    taken: list[Any] = []
    with (
        connection.channel() as channel,
        Consumer(channel, control, on_message=taken.append),
        connection.channel() as sending,
    ):
        while not taken:
            Producer(sending, control.exchange).publish({"method": "ping"})
            connection.drain_events(timeout=20)
    assert {"method": "ping"} == taken[0].decode()


def test_what_a_worker_gives_back(connection: Connection, server: redis.Redis) -> None:
    """A hint that a worker has taken and not begun is on the queue again once it has ended."""
    server.lpush("dispatcher", HINT)
    first_taken(connection, HINTS)
    (back,) = server.lrange("dispatcher", 0, -1)
    assert ([ENDPOINT], "") == read_hint(json.loads(back))
    assert 0 == server.zcard("unacked_index")


@pytest.mark.parametrize("taken", [HINT, b"{"], ids=["hint", "forged"])
def test_what_a_dead_worker_had_taken_is_forgotten(
    connection: Connection, server: redis.Redis, taken: bytes
) -> None:
    """It is removed, unread, and comes to no other worker."""
    server.hset("unacked", "tag", taken)
    server.zadd("unacked_index", {"tag": time.time() - 86_400})
    with connection.channel() as channel:
        channel.qos.restore_visible(interval=1)
    assert (0, 0, 0) == (server.hlen("unacked"), server.zcard("unacked_index"), server.llen("dispatcher"))
