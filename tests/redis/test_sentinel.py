"""Sentinel: each client goes to the present primary, finds the next one after a fail-over, and says what is wrong."""

import asyncio
import gc
import signal
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import ConnectionError, ReadOnlyError
from structlog.testing import capture_logs

from config.settings import Settings
from dispatcher import AsyncDispatcher, Dispatcher
from dispatcher.errors import RedisUnavailable
from dispatcher.store import sentinel as sentinel_module
from dispatcher.store import wire as wire_module
from dispatcher.store.arrivals import Arrivals, ToldQueue
from dispatcher.store.connection import connect, connect_async, translated
from dispatcher.store.keys import keys_of
from dispatcher.store.ledger import Ledger
from dispatcher.store.queue import QueueEntry
from dispatcher.store.redis_url import with_authorities
from dispatcher.store.sentinel import BecameReplica, NoPrimary, Why
from dispatcher.store.servers import PlainServers
from dispatcher.store.wire import Wire
from tasks.actions.check_broker import look_at_broker
from tasks.redis_server import RedisServer
from tests.acceptance.stack import change
from tests.fake_sentinel import FakeSentinel
from tests.faults.proxy import Proxy
from tests.http.test_transport import Certificates
from tests.redis.test_tls import celerys
from tests.sentinels import SENTINEL_PASSWORD, Sentinels, free_port, wait_until

REFUSED = r"certificate of (rediss\+)?sentinel://127\.0\.0\.1.* is refused"
WRITES_IN_A_SCRIPT = "return redis.call('INCR', KEYS[1])"


@pytest.fixture(scope="module")
def sentinels(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    """Real ones, and what they watch."""
    with Sentinels(server_program, tmp_path_factory.mktemp("sentinels")) as sentinels:
        yield sentinels


@pytest.fixture
def pair(server_program: str, tmp_path: Path) -> Iterator[list[int]]:
    """The ports of two servers that nobody watches."""
    ports = [free_port(), free_port()]
    folders = [tmp_path / str(port) for port in ports]
    for folder in folders:
        folder.mkdir()
    first, second = (
        RedisServer(folder, "--port", str(port), executable=server_program)
        for folder, port in zip(folders, ports, strict=True)
    )
    with first, second:
        yield ports


def by_client(url: str, *command: str) -> Any:
    """A command by the blocking client of producers and commands. Raises RedisUnavailable."""
    with connect(url) as client, translated(url):
        return client.execute_command(*command)


def by_async_client(url: str, *command: str) -> Any:
    """A command by the client of the API. Raises RedisUnavailable."""

    async def scene() -> Any:
        client = connect_async(url)
        try:
            with translated(url):
                return await client.execute_command(*command)
        finally:
            await client.aclose()

    return asyncio.run(scene())


def by_wire(url: str, *command: str) -> Any:
    """A command by the wire of workers. Raises RedisUnavailable."""

    async def scene() -> Any:
        async with wired(url) as wire:
            with translated(url):
                return await wire.call(*command)

    return asyncio.run(scene())


@asynccontextmanager
async def wired(url: str) -> AsyncIterator[Wire]:
    """A wire until the block ends."""
    client = connect_async(url)
    wire = Wire(client)
    try:
        yield wire
    finally:
        await wire.close()
        await client.aclose()


CLIENTS = pytest.mark.parametrize("ask", [by_client, by_async_client, by_wire])
Ask = Callable[..., Any]


@CLIENTS
def test_goes_to_the_primary(sentinels: Sentinels, ask: Ask) -> None:
    """With the passwords of servers and sentinels in the URL, each client reaches the primary and its database."""
    sentinels.wait_whole()
    assert b"master" == ask(sentinels.url, "ROLE")[0]
    assert b"db=3" in ask(sentinels.url.replace("/0?", "/3?"), "CLIENT", "LIST")


@CLIENTS
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "other"}, "the sentinels know no primary of this name"),
        (
            {"sentinel_password": "wrong"},
            "the sentinels refuse us .*Check sentinel_username and sentinel_pass",
        ),
        ({"sentinel_password": ""}, "the sentinels refuse us"),
        ({"password": "wrong"}, "refuses us: .* Check user and password in the URL"),
    ],
)
def test_says_what_is_wrong(sentinels: Sentinels, ask: Ask, wrong: dict[str, str], says: str) -> None:
    """A wrong name, a wrong password of sentinels or server: one line that tells them apart, without a password."""
    with pytest.raises(RedisUnavailable, match=says) as caught:
        ask(sentinels.url_of(**wrong), "PING")
    text = str(caught.value)
    assert (1, False, True) == (len(text.splitlines()), "hush" in text, "redis+sentinel://127.0.0.1:" in text)


@CLIENTS
def test_one_sentinel_is_enough(sentinels: Sentinels, ask: Ask) -> None:
    """One that is away, or refuses us, is passed over while another one answers."""
    away = f"127.0.0.1:{free_port()}"
    assert b"PONG" == bytes_of(ask(sentinels.url.replace("@", f"@{away},"), "PING"))


def bytes_of(reply: Any) -> bytes:
    """PING's reply, which redis-py turns into True."""
    return b"PONG" if reply is True else bytes(reply)


@CLIENTS
def test_no_sentinel_is_reachable(ask: Ask) -> None:
    """The error names all of them."""
    away = f"127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    with pytest.raises(RedisUnavailable, match=f"sentinel://{away}/main: no sentinel is reachable .*running"):
        ask(f"redis+sentinel://:hush@{away}/main", "PING")


@CLIENTS
def test_a_server_is_no_sentinel(pair: list[int], ask: Ask) -> None:
    """A URL that names the servers in place of the sentinels is told so."""
    with pytest.raises(RedisUnavailable, match=r"what answers is no sentinel .*26379"):
        ask(f"redis+sentinel://127.0.0.1:{pair[0]}/main", "PING")


@CLIENTS
@pytest.mark.parametrize(
    "command", [("GET", "k"), ("XADD", "k", "*", "f", "secret"), ("EVALSHA", "0" * 40, "0")]
)
def test_a_sentinel_is_no_server(sentinels: Sentinels, ask: Ask, command: tuple[str, ...]) -> None:
    """A URL that names a sentinel in place of the server is told so, in words that have nothing of what was to be written."""
    url = f"redis://:{SENTINEL_PASSWORD}@127.0.0.1:{sentinels.sentinels[0]}/0"
    says = rf"does not know {command[0]}\. If it is a sentinel, the URL starts with redis\+sentinel://"
    with pytest.raises(RedisUnavailable, match=says) as caught:
        ask(url, *command)
    assert "secret" not in str(caught.value)


def test_a_sentinel_is_no_broker(sentinels: Sentinels) -> None:
    """`check` does not call a sentinel in place of the broker well because it can be reached."""
    broker = f"redis://:{SENTINEL_PASSWORD}@127.0.0.1:{sentinels.sentinels[0]}/0"
    [found, _] = look_at_broker(Settings(_env_file=None, redis_url=sentinels.url, broker_url=broker))
    assert ("bad", "the broker is a sentinel, not a server") == (found.verdict, found.detail)
    [found, _] = look_at_broker(Settings(_env_file=None, redis_url=sentinels.url))
    assert "ok" == found.verdict


@CLIENTS
@pytest.mark.parametrize("flags", ["master,s_down", "master,s_down,o_down", "slave"])
def test_no_primary_now(pair: list[int], ask: Ask, flags: str) -> None:
    """While the sentinels hold the primary for down, nothing is sent to it, and the error says so."""
    with FakeSentinel(pair[0]) as sentinel:
        sentinel.flags = flags
        with pytest.raises(RedisUnavailable, match="the sentinels hold the primary for down"):
            ask(sentinel.url, "SET", "key", "value")
    assert [] == by_client(f"redis://127.0.0.1:{pair[0]}", "KEYS", "*")


def demote(pair: list[int], sentinel: FakeSentinel) -> None:
    """The first server becomes a replica of the second; it closes no connection, as without a sentinel's CLIENT KILL."""
    with redis.Redis(port=pair[0]) as client:
        client.replicaof("127.0.0.1", pair[1])
    sentinel.names = pair[1]


WRITES = pytest.mark.parametrize(
    "command", [("INCR", "n"), ("EVAL", WRITES_IN_A_SCRIPT, "1", "n")], ids=["command", "script"]
)


@pytest.fixture
def rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentinels are asked only when a connection is made, and once more."""
    monkeypatch.setattr(sentinel_module, "CHECK_SECONDS", 1000)


@WRITES
def test_a_client_leaves_a_replica(pair: list[int], rarely: None, command: tuple[str, ...]) -> None:
    """A write that a replica refuses closes the client's connection, and the next one goes to the new primary."""
    with FakeSentinel(pair[0]) as sentinel, connect(sentinel.url) as client:
        assert [1, 2] == [client.execute_command(*command) for _ in range(2)]
        demote(pair, sentinel)
        with (
            pytest.raises(RedisUnavailable, match=r"has become a replica.*fail-over"),
            translated(sentinel.url),
        ):
            client.execute_command(*command)
        assert 1 == client.execute_command(*command)
    assert b"1" == by_client(f"redis://127.0.0.1:{pair[1]}", "GET", "n")


@WRITES
def test_an_async_client_leaves_a_replica(pair: list[int], rarely: None, command: tuple[str, ...]) -> None:
    """The same of asyncio's client."""

    async def scene(sentinel: FakeSentinel) -> None:
        client = connect_async(sentinel.url)
        try:
            assert [1, 2] == [await client.execute_command(*command) for _ in range(2)]
            demote(pair, sentinel)
            with pytest.raises(BecameReplica):
                await client.execute_command(*command)
            assert 1 == await client.execute_command(*command)
        finally:
            await client.aclose()

    with FakeSentinel(pair[0]) as sentinel:
        asyncio.run(scene(sentinel))


@WRITES
def test_a_wire_leaves_a_replica(pair: list[int], command: tuple[str, ...]) -> None:
    """The same of the wire: its callers under way get their errors, and the next call asks the sentinels anew."""

    async def scene(sentinel: FakeSentinel) -> None:
        async with wired(sentinel.url) as wire:
            assert 1 == await wire.call(*command)
            demote(pair, sentinel)
            refused, read = await asyncio.gather(
                wire.call(*command), wire.call("GET", "n"), return_exceptions=True
            )
            assert "READONLY" in str(refused) or isinstance(refused, ReadOnlyError)
            assert isinstance(read, bytes | None | ConnectionError)
            assert 1 == await wire.call(*command)

    with FakeSentinel(pair[0]) as sentinel:
        asyncio.run(scene(sentinel))


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentinels are asked more often than usual."""
    monkeypatch.setattr(sentinel_module, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(sentinel_module, "CHECK_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(wire_module, "WATCH_SECONDS", 0.05)


def test_a_client_leaves_who_is_no_longer_named(pair: list[int], often: None) -> None:
    """Though the old primary goes on taking writes, as for some 10 s after SENTINEL FAILOVER, they go to the new one."""
    with FakeSentinel(pair[0]) as sentinel, connect(sentinel.url) as client, redis.Redis(port=pair[1]) as new:
        client.incr("n")
        sentinel.names = pair[1]
        wait_until(lambda: client.incr("n") and new.get("n"), what="a write at the new primary")


def test_others_leave_who_is_no_longer_named(pair: list[int], often: None) -> None:
    """The same of asyncio's client and of the wire."""

    async def scene(sentinel: FakeSentinel) -> None:
        async with wired(sentinel.url) as wire:
            client = connect_async(sentinel.url)
            await client.incr("by-client")
            await wire.call("INCR", "by-wire")
            sentinel.names = pair[1]
            with redis.Redis(port=pair[1]) as new:
                async with asyncio.timeout(30):
                    while new.exists("by-client", "by-wire") < 2:
                        await client.incr("by-client")
                        with suppress(BecameReplica):
                            await wire.call("INCR", "by-wire")
                        await asyncio.sleep(0.01)
            await client.aclose()

    with FakeSentinel(pair[0]) as sentinel:
        asyncio.run(scene(sentinel))


def test_asking_the_sentinels_meets_a_bug(pair: list[int], often: None) -> None:
    """It is logged, and they are asked again: a wire still leaves who is no longer named."""

    async def scene(sentinel: FakeSentinel) -> list[str]:
        async with wired(sentinel.url) as wire:
            assert 1 == await wire.call("INCR", "n")
            connection: Any = wire._link and wire._link._connection
            is_left, met = connection.is_left, []

            async def breaks() -> bool:
                connection.is_left = is_left
                met.append("bug")
                raise KeyError("bug")

            connection.is_left = breaks
            with capture_logs() as logged:
                async with asyncio.timeout(30):
                    while not met:
                        await asyncio.sleep(0.01)
                    sentinel.names = pair[1]
                    with redis.Redis(port=pair[1]) as new:
                        while not new.exists("n"):
                            with suppress(BecameReplica):
                                await wire.call("INCR", "n")
                            await asyncio.sleep(0.01)
            return [line["event"] for line in logged]

    with FakeSentinel(pair[0]) as sentinel:
        assert ["redis.internal_error"] == asyncio.run(scene(sentinel))


def test_connections_go_on_without_sentinels(pair: list[int], often: None) -> None:
    """Once connected, no client needs the sentinels until its connection breaks."""

    async def scene(url: str, stop: Callable[[], None]) -> None:
        async with wired(url) as wire:
            client = connect_async(url)
            with connect(url) as blocking:
                stopped = False
                for _ in range(20):
                    assert [1, 1, b"PONG"] == [
                        blocking.execute_command("APPEND", "a", "") + 1,
                        await client.execute_command("APPEND", "b", "") + 1,
                        await wire.call("PING"),
                    ]
                    if not stopped:
                        stop()
                        stopped = True
                    await asyncio.sleep(0.05)
            await client.aclose()

    with FakeSentinel(pair[0]) as sentinel:

        def stop() -> None:
            sentinel.flags = "master,o_down"

        asyncio.run(scene(sentinel.url, stop))


def test_all_of_a_pools_connections_move(pair: list[int], rarely: None) -> None:
    """Idle connections to the old primary are closed when a new one finds the new primary: none is used again."""

    async def scene(sentinel: FakeSentinel) -> None:
        client = connect_async(sentinel.url)
        try:
            await asyncio.gather(*(client.incr("n") for _ in range(20)))
            demote(pair, sentinel)
            with suppress(ConnectionError):
                await client.incr("n")
            await asyncio.gather(*(client.incr("m") for _ in range(20)))
        finally:
            await client.aclose()

    with FakeSentinel(pair[0]) as sentinel:
        asyncio.run(scene(sentinel))
    assert b"20" == by_client(f"redis://127.0.0.1:{pair[1]}", "GET", "m")


def test_threads_ask_together(pair: list[int]) -> None:
    """Twenty threads that need a connection at the same time each get one, and no connection to a sentinel stays."""
    with FakeSentinel(pair[0]) as sentinel, connect(sentinel.url) as client:
        threads = [threading.Thread(target=client.incr, args=["n"]) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert b"20" == client.get("n")


def test_servers_commands_are_not_said_to_sentinels(pair: list[int]) -> None:
    """A sentinel gets neither the servers' password nor SELECT, which it does not know."""
    with redis.Redis(port=pair[0]) as client:
        client.config_set("requirepass", "hush")
    with FakeSentinel(pair[0]) as sentinel:
        url = f"redis+sentinel://:hush@127.0.0.1:{sentinel.port}/main/5?client_name=billing"
        by_client(url, "PING")
        by_async_client(url, "PING")
    said = b" ".join(word for command in sentinel.asked for word in command)
    assert [] == [word for word in (b"hush", b"AUTH", b"SELECT", b"billing") if word in said]


@pytest.mark.parametrize("how", ["command", "kill"])
def test_a_fail_over(sentinels: Sentinels, how: str) -> None:
    """After a fail-over, by SENTINEL FAILOVER or because the primary was killed, each client goes on by itself."""
    sentinels.wait_whole()
    old = sentinels.primary()

    async def scene() -> None:
        client = connect_async(sentinels.url)
        wire = Wire(client)
        producer = AsyncDispatcher.from_url(sentinels.url, key_prefix=f"async-{how}")
        with Dispatcher.from_url(sentinels.url, key_prefix=how) as blocking:

            async def all_work() -> bool:
                with suppress(ConnectionError, RedisUnavailable, redis.ResponseError):
                    blocking.enqueue(change(1))
                    await producer.enqueue(change(1))
                    await client.incr("n")
                    return (await wire.call("ROLE"))[0] == b"master" and bool(await wire.call("INCR", "n"))
                return False

            assert await all_work()
            await asyncio.to_thread(
                sentinels.fail_over if how == "command" else sentinels.kill, *[old][how == "command" :]
            )
            async with asyncio.timeout(30):
                while sentinels.primary() == old or not await all_work():
                    await asyncio.sleep(0.1)
        await producer.aclose()
        await wire.close()
        await client.aclose()

    asyncio.run(scene())
    if how == "kill":
        sentinels.start_server(old)
    with sentinels.server(sentinels.primary()) as client:
        assert client.xlen(f"{how}:events") > 0
        assert client.xlen(f"async-{how}:events") > 0


def by_celery(url: str, *_: str) -> Any:
    """Whether Celery connects, as config/celeryconfig.py has it. Raises RedisUnavailable."""
    celerys(url, None)
    return True


@pytest.fixture
def collected() -> Iterator[None]:
    """kombu leaves its sockets in reference cycles."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.parametrize("ask", [by_client, by_async_client, by_wire, by_celery])
def test_tls(server_program: str, tmp_path: Path, collected: None, ask: Ask) -> None:
    """With rediss+sentinel:// sentinels and servers are both asked with TLS, and both certificates are verified."""
    certificates = Certificates(tmp_path)
    good, bad = certificates.server("127.0.0.1"), certificates.server("other.test")
    authority = str(tmp_path / "authority.pem")
    with RedisServer(tmp_path, executable=server_program) as server:
        with Proxy(server.socket, good) as proxy, FakeSentinel(proxy.port, good) as sentinel:
            assert b"PONG" == bytes_of(ask(with_authorities(sentinel.url, authority), "PING"))
            with pytest.raises(RedisUnavailable, match=REFUSED):
                ask(sentinel.url, "PING")
        with Proxy(server.socket, bad) as proxy, FakeSentinel(proxy.port, good) as sentinel:
            with pytest.raises(RedisUnavailable, match=REFUSED):
                ask(with_authorities(sentinel.url, authority), "PING")
            assert b"" == proxy.received
        with Proxy(server.socket, good) as proxy, FakeSentinel(proxy.port, bad) as sentinel:
            with pytest.raises(RedisUnavailable, match=REFUSED):
                ask(with_authorities(sentinel.url, authority), "PING")
            assert [] == sentinel.asked


def test_the_reason_is_copied() -> None:
    """A wire that cannot connect raises a copy of its error for each call."""
    error = NoPrimary(Why.DOWN)
    assert (error.args, error.advice) == (copy(error).args, copy(error).advice)


def test_a_listener_leaves_a_primary_that_hangs(sentinels: Sentinels) -> None:
    """A queue that is waited on is told of what comes to the new primary, though the old one keeps the connection open."""
    sentinels.wait_whole()
    old = sentinels.primary()

    async def scene() -> None:
        servers = PlainServers([sentinels.url], keys_of("hangs", 2))
        arrivals, keys = Arrivals(servers), servers.keys[1]
        await Ledger(servers.wire(1).call, keys).lead("me", 600_000)
        queue = ToldQueue(servers.wire(1).call, keys, arrivals)
        assert [] == await queue.read(10, 50)
        with sentinels.server(old) as client:
            assert 1 == client.wait(1, 30_000)
        sentinels.signal(old, signal.SIGSTOP)
        try:
            found: list[QueueEntry] = []
            async with asyncio.timeout(30):
                while not found:
                    with suppress(RedisUnavailable):  # between the two primaries
                        found = await queue.read(10, 600_000)  # it leaves, and looks anew
                        if not found:
                            await servers.wire(1).call("XADD", keys.events, "*", "event", "{}")
            assert [b"event", b"{}"] == found[0].fields
        finally:
            sentinels.signal(old, signal.SIGCONT)
        assert old != sentinels.primary()
        await arrivals.aclose()
        await servers.aclose()

    asyncio.run(scene())
