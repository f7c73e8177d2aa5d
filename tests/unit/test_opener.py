"""What is opened for requests that no longer need it."""

import asyncio
from dataclasses import replace
from itertools import pairwise

from dispatcher.sending.failures import NoAnswer
from dispatcher.sending.handshakes import Handshakes
from dispatcher.sending.http_connection import Connection
from dispatcher.sending.opener import CLOSED, Opener
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


def test_many_receivers_without_tls_are_connected_to_at_once() -> None:
    """There is nobody whose connection a request could take, and only handshakes hold others up."""

    async def scene() -> None:
        connector, pool = Hanging(), Pool()
        opener = Opener(connector, Handshakes(), pool)  # type: ignore[arg-type]
        deadline = asyncio.get_running_loop().time() + 3600
        requests = []
        for number in range(50):
            target = replace(PLAIN, origin=(f"{number}.example", 80, False, ""))
            pool.begin(target.origin)
            requests.append(asyncio.create_task(opener.connection(target, "acme", deadline)))
        await asyncio.sleep(0)
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


class Burst:
    """Requests to one receiver without TLS, which begin together."""

    def __init__(self, count: int) -> None:
        self.connector, self.pool = Opens(), Pool()
        self.opener = Opener(self.connector, Handshakes(), self.pool)  # type: ignore[arg-type]
        self.requests = [asyncio.create_task(self._request()) for _ in range(count)]

    async def _request(self) -> object:
        self.pool.begin(PLAIN.origin)
        try:
            return await self.opener.connection(PLAIN, "acme", asyncio.get_running_loop().time() + 3600)
        finally:
            self.pool.end(PLAIN.origin)

    async def first(self) -> Connection:
        """A connection that the first request has got and is done with."""
        await self.connector.begun(1)
        connection = opened()
        self.connector.asked[0].set_result(connection)
        connection.reusable = True
        return connection

    async def close(self) -> None:
        """Gives all up."""
        self.opener.close()
        for one in self.requests:
            one.cancel()
        await asyncio.gather(*self.requests, return_exceptions=True)
        self.pool.close()


def test_a_burst_without_tls_opens_one_connection_in_a_turn_of_the_loop() -> None:
    """So the answers that came with this turn free connections for some of the others."""

    async def scene() -> None:
        burst = Burst(10)
        asked = []
        for _ in range(30):
            await asyncio.sleep(0)
            asked.append(len(burst.connector.asked))
        assert max(after - before for before, after in pairwise([0, *asked])) == 1
        assert 10 == asked[-1]
        await burst.close()

    asyncio.run(scene())


def test_a_request_without_tls_takes_what_another_is_done_with() -> None:
    """It opens no connection of its own then."""

    async def scene() -> None:
        burst = Burst(2)
        await asyncio.sleep(0)
        connection = await burst.first()
        burst.pool.keep(PLAIN.origin, connection, "acme")  # before the loop's next turn
        assert [connection] * 2 == await asyncio.gather(*burst.requests)
        assert 1 == len(burst.connector.asked)
        await burst.close()

    asyncio.run(scene())


def test_nobody_waits_for_a_connection_that_nobody_has() -> None:
    """If the only connection cannot be opened, all others try for themselves at once, not one in a turn of the loop."""

    async def scene() -> None:
        burst = Burst(20)
        refused = NoAnswer("connect", "refused")

        async def refuse(_target: Target) -> NoAnswer:
            return refused

        burst.connector.connect = refuse  # type: ignore[assignment,method-assign]
        for _ in range(6):
            await asyncio.sleep(0)
        assert [True] * 20 == [one.done() for one in burst.requests]
        assert {refused} == {*await asyncio.gather(*burst.requests)}
        await burst.close()

    asyncio.run(scene())


def test_a_free_connection_that_has_ended_is_not_taken() -> None:
    """If the receiver closes it as a request without TLS gets it, the request opens its own."""

    async def scene() -> None:
        burst = Burst(2)
        await asyncio.sleep(0)
        connection = await burst.first()
        burst.pool.keep(PLAIN.origin, connection, "acme")
        connection.eof_received()
        await burst.connector.begun(2)
        own = opened()
        burst.connector.asked[1].set_result(own)
        assert [connection, own] == await asyncio.gather(*burst.requests)
        await burst.close()

    asyncio.run(scene())


def test_a_free_connection_that_comes_as_its_request_is_cancelled_is_kept() -> None:
    """The next request takes it."""

    async def scene() -> None:
        burst = Burst(2)
        await asyncio.sleep(0)
        connection = await burst.first()
        burst.pool.keep(PLAIN.origin, connection, "acme")
        burst.requests[1].cancel()
        await asyncio.wait(burst.requests)
        assert burst.requests[1].cancelled()
        assert connection is burst.pool.take(PLAIN.origin)
        await burst.close()

    asyncio.run(scene())


def test_a_request_that_waits_ends_with_the_transport() -> None:
    """One that waits for another's connection when all is closed ends with our own fault, and does not hang."""

    async def scene() -> None:
        burst = Burst(3)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        burst.opener.close()
        burst.pool.close()
        found = await asyncio.wait_for(asyncio.gather(*burst.requests[1:]), 20)
        assert [CLOSED] * 2 == found
        await burst.close()

    asyncio.run(scene())
