"""Calls of a producer that a signal handler interrupts: Celery's soft time limit, RQ's time-out, an alarm."""

import asyncio
import queue
import signal
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import CodeType, FrameType
from typing import Any

import pytest
import redis
import redis.asyncio.client
import redis.client

from dispatcher import AsyncDispatcher, Dispatcher, EnqueueInterrupted, RedisFull, RedisUnavailable
from dispatcher.store.connection import connect
from tests.redis.partitioned import BOTH, Enqueue
from tests.redis.test_producer import _command, change, queued

PARSE = redis.client.Pipeline.parse_response.__code__


class OutOfTime(Exception):
    """What the signal handler raises."""


@contextmanager
def interrupted_at(code: CodeType, must_be: bool = True) -> Iterator[None]:
    """A signal handler raises OutOfTime where a function is next entered; that ends the `with` block."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is code:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        sys.setprofile(look)
        with suppress(OutOfTime):
            yield
            assert not must_be, "it was not entered"
    finally:
        sys.setprofile(None)
        signal.signal(signal.SIGUSR2, before)


def test_a_reply_under_way_is_for_no_other_call(redis_url: str) -> None:
    """A call that is interrupted between its send and its read leaves no reply that the next one takes for its own."""
    with Dispatcher.from_url(redis_url) as dispatcher, redis.Redis.from_url(redis_url) as client:
        dispatcher.enqueue(change(0))
        client.client_pause(300)  # ms: the first reply comes after the second call's send
        with interrupted_at(PARSE):
            dispatcher.unknown_workspaces(["acme", "b"])
        assert ["c"] == dispatcher.unknown_workspaces(["c"])
        client.client_pause(300)
        with interrupted_at(PARSE):
            dispatcher.enqueue(change(1))
        client.config_set("maxmemory", "1")
        try:
            with pytest.raises(RedisFull):
                dispatcher.enqueue(change(2))
        finally:
            client.config_set("maxmemory", "0")
    assert "m2" not in [one.message.uuid for one in queued(redis_url)]


def test_with_asyncio(redis_url: str) -> None:
    """The same with asyncio."""

    async def run() -> None:
        async with AsyncDispatcher.from_url(redis_url) as dispatcher:
            await dispatcher.enqueue(change(0))
            with redis.Redis.from_url(redis_url) as client:
                client.client_pause(300)
            with interrupted_at(redis.asyncio.client.Pipeline.parse_response.__code__):
                await dispatcher.unknown_workspaces(["acme", "b"])
            assert ["c"] == await dispatcher.unknown_workspaces(["c"])

    asyncio.run(run())


def test_a_login_that_was_interrupted(redis_url: str) -> None:
    """A connection whose login was interrupted between its send and its read is used for nothing."""
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "SETUSER", "backend", "on", ">secret", "~*", "+@all")
        client.client_pause(300)
    url = redis_url.replace("://", "://backend:secret@", 1)
    with Dispatcher.from_url(url) as dispatcher:
        with interrupted_at(redis.connection.AbstractConnection.read_response.__code__):
            dispatcher.queued()
        assert 0 == dispatcher.queued()
        assert ["a", "b"] == dispatcher.unknown_workspaces(["a", "b"])


def test_no_lock_stays_taken(redis_url: str) -> None:
    """Interrupted wherever its code in Python begins, a call leaves a dispatcher that works."""
    codes: list[CodeType] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code not in codes:
            codes.append(frame.f_code)

    with Dispatcher.from_url(redis_url) as dispatcher:
        dispatcher.enqueue(change(0))
        sys.setprofile(note)
        try:
            dispatcher.enqueue(change(0))
        finally:
            sys.setprofile(None)
        for code in codes:
            if code.co_name != "__del__":  # what is raised there is only printed
                with interrupted_at(code, must_be=False):  # some are entered once in a process
                    dispatcher.enqueue(change(1))
                (event_id,) = dispatcher.enqueue(change(2))
                assert event_id == queued(redis_url)[-1].event_id
    entered = {code.co_filename for code in codes}
    assert not entered & {threading.__file__, queue.__file__}  # their locks have code in Python around them


def test_while_all_connections_are_in_use(redis_url: str) -> None:
    """A caller waits for a connection that gets free, and gets RedisUnavailable if none does in time."""
    client = connect(f"{redis_url}?max_connections=1")
    pool: Any = client.connection_pool
    pool.timeout = 0.2
    with Dispatcher(client, redis_url) as dispatcher:
        connection = pool.get_connection()
        with pytest.raises(RedisUnavailable, match="No connection available"):
            dispatcher.enqueue(change(1))
        pool.timeout = 60
        thread = threading.Thread(target=dispatcher.enqueue, args=(change(2),))
        thread.start()
        pool.release(connection)
        thread.join()
        assert connection is pool.get_connection()  # the one that was used last
    assert ["m2"] == [one.message.uuid for one in queued(redis_url)]


@contextmanager
def answering(reply: bytes) -> Iterator[str]:
    """The URL of a server that answers every XADD with the same."""

    class Answers(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.peek(1):
                words = _command(self.rfile)
                self.wfile.write(reply if words[0] == b"XADD" else b"+OK\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        server.shutdown()
        thread.join()


@BOTH
@pytest.mark.parametrize("reply", [b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"$2\r\n12\r\n"])
def test_a_reply_that_is_no_entry_id(enqueue: Enqueue, reply: bytes) -> None:
    """What comes in answer to XADD and is no entry's id confirms nothing."""
    with answering(reply) as url, pytest.raises(EnqueueInterrupted, match="than an entry's id") as caught:
        enqueue(url, [change(0)], {})
    assert [] == caught.value.confirmed
