"""The wire to Redis: many commands under way, each reply to whoever asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis
import uvloop
from redis.exceptions import ConnectionError, NoScriptError, RedisError, ResponseError, TimeoutError

from dispatcher.store import wire as wire_module
from dispatcher.store.connection import connect_async
from dispatcher.store.wire import Wire, transport_of


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


def test_each_reply_to_whoever_asked(redis_url: str) -> None:
    """A thousand commands at once are answered in their order, over one connection."""

    async def scene() -> None:
        async with wired(redis_url) as wire:
            replies = await asyncio.gather(*(wire.call("ECHO", str(number)) for number in range(1000)))
            assert [str(number).encode() for number in range(1000)] == replies
            assert 1 == len((await wire.call("CLIENT", "LIST", "TYPE", "normal")).splitlines())

    uvloop.run(scene())


@pytest.mark.parametrize("silent", [False, True])
def test_closes_the_connection_that_is_being_made(silent: bool) -> None:
    """However far the connection has come when the wire is closed, nothing stays open, and its callers are told."""

    async def scene() -> None:
        opened: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            opened.append(writer)
            while line := await reader.readline():
                if not silent and line.startswith(b"*"):
                    writer.write(b"+OK\r\n")
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            for turns in range(25):
                client = connect_async(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
                wire = Wire(client)
                call = asyncio.create_task(wire.call("ECHO", "1"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                await wire.close()
                found = (await asyncio.gather(call, return_exceptions=True))[0]
                assert isinstance(found, ConnectionError) or found == b"OK"
                with pytest.raises(ConnectionError, match="closed by this process"):
                    await wire.call("PING")
                await client.aclose()
            async with asyncio.timeout(10):
                while not all(one.is_closing() for one in opened):
                    await asyncio.sleep(0.01)
        assert opened

    asyncio.run(scene())


def test_redis_pys_connection_writes_to_what_we_take(redis_url: str) -> None:
    """An open connection of redis-py has its transport where this version of it keeps it."""

    async def scene() -> None:
        client = connect_async(redis_url)
        connection = client.connection_pool.make_connection()
        await connection.connect()
        transport = transport_of(connection)
        assert isinstance(transport, asyncio.Transport)
        assert not transport.is_closing()
        transport.abort()
        await connection.disconnect(nowait=True)
        await client.aclose()

    asyncio.run(scene())


def test_an_error_is_its_callers_alone(redis_url: str) -> None:
    """What Redis refuses raises; the commands around it are answered."""

    async def scene() -> None:
        async with wired(redis_url) as wire:
            before, wrong, missing, after = await asyncio.gather(
                wire.call("PING"),
                wire.call("NOSUCH"),
                wire.call("EVALSHA", "0" * 40, 0),
                wire.call("PING"),
                return_exceptions=True,
            )
            assert (b"PONG", b"PONG") == (before, after)
            assert isinstance(wrong, ResponseError)
            assert isinstance(missing, NoScriptError)

    uvloop.run(scene())


def test_who_has_gone_takes_no_other_reply(redis_url: str) -> None:
    """A caller that was cancelled leaves its reply to nobody."""

    async def scene() -> None:
        async with wired(redis_url) as wire:
            await wire.call("PING")
            gone = asyncio.create_task(wire.call("ECHO", "gone"))
            stays = asyncio.create_task(wire.call("ECHO", "stays"))
            await asyncio.sleep(0)
            gone.cancel()
            assert b"stays" == await stays

    uvloop.run(scene())


def test_a_broken_connection(redis_url: str) -> None:
    """All that is under way fails when the connection is killed; the next command finds a new one."""

    async def scene() -> None:
        async with wired(redis_url) as wire:
            await wire.call("PING")
            waits = asyncio.create_task(wire.call("BLPOP", "nothing", 4))
            await asyncio.sleep(0.05)
            with redis.Redis.from_url(redis_url) as other:
                other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            with pytest.raises(ConnectionError):
                await waits
            assert b"PONG" == await wire.call("PING")

    uvloop.run(scene())


def test_a_connection_that_closes_before_its_first_command(redis_url: str) -> None:
    """Whoever made it is told as of any that breaks; uvloop's own error would be nobody's."""

    async def scene() -> None:
        async with wired(redis_url) as wire:
            link = await wire._connect()
            transport_of(link._connection).abort()
            await asyncio.sleep(0.01)
            for send in (lambda: link.call(("PING",)), lambda: link.call_all([("PING",)])):
                with pytest.raises(ConnectionError):
                    await send()
            assert b"PONG" == await wire.call("PING")

    uvloop.run(scene())


def test_no_answer_in_time(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that does not answer is a TimeoutError; the next command gets a new connection."""
    monkeypatch.setattr(wire_module, "SOCKET_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(wire_module, "WATCH_SECONDS", 0.05)

    async def scene() -> None:
        async with wired(redis_url) as wire:
            with pytest.raises(TimeoutError):
                await wire.call("BLPOP", "nothing", 2)
            assert b"PONG" == await wire.call("PING")

    uvloop.run(scene())


def test_silent_server(redis_url: str) -> None:
    """Callers that wait for one connect fail with it: none of them tries again, and waits for as long once more."""

    async def scene() -> None:
        connects = 0

        def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connects
            connects += 1
            open_.append(writer)

        open_: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(count, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with wired(f"redis://127.0.0.1:{port}?socket_timeout=0.2") as wire:
            failed = await asyncio.gather(*(wire.call("PING") for _ in range(10)), return_exceptions=True)
            assert [True] * 10 == [isinstance(one, RedisError) for one in failed]
            assert 1 == connects
            with pytest.raises(RedisError):
                await wire.call("PING")
            assert 2 == connects
        for writer in open_:
            writer.close()
        server.close()

    asyncio.run(scene())
