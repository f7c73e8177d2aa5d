"""What is opened for requests that no longer need it."""

import asyncio

from dispatcher.sending.handshakes import Handshakes
from dispatcher.sending.http_connection import Connection
from dispatcher.sending.opener import Opener
from dispatcher.sending.pool import Pool
from dispatcher.sending.target import Target

TARGET = Target("a.example", 443, True, ("a.example", 443, True, ""), b"")
PLAIN = Target("a.example", 80, False, ("a.example", 80, False, ""), b"")


class Hanging:
    """In place of the connector: to a server that says nothing."""

    def __init__(self) -> None:
        self.begun = self.open = 0

    async def connect(self, _target: Target) -> None:
        """Never ends."""
        self.begun += 1
        self.open += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.open -= 1


def test_one_connection_is_opened_on() -> None:
    """Of the connections that no request waits for any more, one to an origin goes on being opened."""

    async def scene() -> None:
        connector, pool = Hanging(), Pool()
        opener = Opener(connector, Handshakes(), pool)  # type: ignore[arg-type]
        deadline = asyncio.get_running_loop().time() + 3600
        requests = [asyncio.create_task(opener.connection(TARGET, "acme", deadline)) for _ in range(10)]
        while connector.begun < 10:
            await asyncio.sleep(0)
        for one in requests:
            one.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        await asyncio.sleep(0)
        assert 1 == connector.open
        opener.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert 0 == connector.open
        pool.close()

    asyncio.run(scene())


def test_connections_without_tls_do_not_take_turns() -> None:
    """Only handshakes hold others up; a burst to many plain http receivers opens all its connections at once."""

    async def scene() -> None:
        connector, pool = Hanging(), Pool()
        opener = Opener(connector, Handshakes(), pool)  # type: ignore[arg-type]
        deadline = asyncio.get_running_loop().time() + 3600
        requests = [asyncio.create_task(opener.connection(PLAIN, "acme", deadline)) for _ in range(50)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert 50 == connector.begun
        for one in requests:
            one.cancel()
        opener.close()
        await asyncio.gather(*requests, return_exceptions=True)
        pool.close()

    asyncio.run(scene())


class Wire:
    """In place of a connection's transport."""

    def __init__(self) -> None:
        self.closed = False

    def abort(self) -> None:
        """Closes."""
        self.closed = True


def opened() -> Connection:
    """A connection to nobody."""
    connection = Connection()
    connection.connection_made(Wire())  # type: ignore[arg-type]
    return connection


class Opens:
    """In place of the connector: each connection is made when the test says so."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[Connection]] = []

    async def connect(self, _target: Target) -> Connection:
        """Waits for the test."""
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]

    async def begun(self, count: int) -> None:
        """Waits until that many are asked for, APART_SECONDS after one another."""
        for _ in range(2000):
            if len(self.asked) < count:
                await asyncio.sleep(0.001)
        assert count == len(self.asked)


def test_a_connection_that_comes_as_its_request_is_cancelled_is_kept() -> None:
    """It is open, and the next request takes it."""

    async def scene() -> None:
        connector, pool, loop = Opens(), Pool(), asyncio.get_running_loop()
        opener = Opener(connector, Handshakes(), pool)  # type: ignore[arg-type]
        request = asyncio.create_task(opener.connection(TARGET, "acme", loop.time() + 3600))
        await connector.begun(1)
        connection = opened()
        connector.asked[0].set_result(connection)
        loop.call_soon(request.cancel)  # when the opening is done, and before the request is told
        await asyncio.wait([request])
        assert request.cancelled()
        assert connection is pool.take(TARGET.origin)
        pool.close()

    asyncio.run(scene())


def test_a_spare_that_has_ended_costs_no_attempt() -> None:
    """If the receiver closes a spare as a request gets it, the request waits for another one."""

    async def scene() -> None:
        connector, pool, loop = Opens(), Pool(), asyncio.get_running_loop()
        opener = Opener(connector, Handshakes(), pool)  # type: ignore[arg-type]
        request = asyncio.create_task(opener.connection(TARGET, "acme", loop.time() + 3600))
        await connector.begun(1)
        spare, own = opened(), opened()
        spare.reusable = True
        pool.keep(TARGET.origin, spare, "other")
        spare.eof_received()
        await connector.begun(2)
        connector.asked[1].set_result(own)
        assert own is await request
        opener.close()
        pool.close()

    asyncio.run(scene())


def test_a_connection_of_its_own_that_has_ended_is_an_attempt() -> None:
    """A receiver that closes each connection at once is not connected to again and again."""

    async def scene() -> None:
        connector, pool, loop = Opens(), Pool(), asyncio.get_running_loop()
        opener = Opener(connector, Handshakes(), pool)  # type: ignore[arg-type]
        request = asyncio.create_task(opener.connection(TARGET, "acme", loop.time() + 3600))
        await connector.begun(1)
        own = opened()
        own.eof_received()
        connector.asked[0].set_result(own)
        assert own is await request
        pool.close()

    asyncio.run(scene())
