"""Which connections are opened, which are taken from other requests, and what becomes of those that nobody needs."""

import asyncio
from dataclasses import replace
from itertools import count, pairwise

import pytest

from dispatcher.sending.answer import Answer
from dispatcher.sending.failures import NoAnswer
from dispatcher.sending.handshakes import Handshakes
from dispatcher.sending.http_connection import Connection
from dispatcher.sending.opener import BUSY_SECONDS, CLOSED, NOT_IN_TIME, Opener
from dispatcher.sending.pool import MAX_ORIGINS, Pool
from dispatcher.sending.target import Target
from dispatcher.share_of_core import ShareOfCore

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
        self.targets: list[Target] = []
        """Where to, of each that was asked for."""

    async def connect(self, target: Target) -> Connection:
        """Waits for the test."""
        self.targets.append(target)
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


def share_of_core(share: float) -> ShareOfCore:
    """A share that is always the same."""
    clock, used = count(), count(0.0, share)
    return ShareOfCore(1, lambda: next(clock), lambda: next(used))


class Burst:
    """Requests to one receiver, which begin together."""

    def __init__(
        self, count: int, target: Target = PLAIN, *, is_busy: bool = False, seconds: float = 3600
    ) -> None:
        self.connector, self.pool, self.target, self.seconds = Opens(), Pool(), target, seconds
        share = share_of_core(0.9 if is_busy else 0.1)
        self.opener = Opener(self.connector, Handshakes(), self.pool, share)  # type: ignore[arg-type]
        self.requests = [asyncio.create_task(self.request()) for _ in range(count)]

    async def request(self) -> object:
        """What one of them gets."""
        self.pool.begin(self.target.origin)
        try:
            deadline = asyncio.get_running_loop().time() + self.seconds
            return await self.opener.connection(self.target, "acme", deadline)
        finally:
            self.pool.end(self.target.origin)
            self.opener.ended(self.target.origin)

    async def first(self) -> Connection:
        """A connection that the first request has got and is done with."""
        await self.connector.begun(1)
        connection = opened()
        self.connector.asked[0].set_result(connection)
        connection.reusable = True
        return connection

    async def freed(self) -> Connection:
        """The same, given to the pool before the loop's next turn."""
        await asyncio.sleep(0)
        connection = await self.first()
        self.pool.keep(self.target.origin, connection, "acme")
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


def test_a_request_with_tls_waits_for_its_turn_too() -> None:
    """While another one has a connection it begins no handshake before that: it takes that connection if it is free sooner."""

    async def scene() -> None:
        burst = Burst(1, TARGET)
        await asyncio.sleep(0)
        connection = await burst.first()
        [taken] = await asyncio.gather(*burst.requests)
        assert taken is connection
        burst.pool.begin(TARGET.origin)  # by which it is in use
        request = asyncio.create_task(burst.request())
        await asyncio.sleep(0)
        connection.reusable = True
        burst.pool.end(TARGET.origin)
        burst.pool.keep(TARGET.origin, connection, "acme")
        assert connection is await request
        assert 1 == len(burst.connector.asked)
        await burst.close()

    asyncio.run(scene())


def test_a_busy_loop_opens_one_connection_with_tls_for_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other requests wait for the one that is being opened, and begin no handshake of their own."""
    monkeypatch.setattr("dispatcher.sending.opener.BUSY_SECONDS", 3600)

    async def scene() -> None:
        burst = Burst(5, TARGET, is_busy=True)
        await burst.connector.begun(1)
        assert 1 == len(burst.opener._openings)
        burst.pool.begin(TARGET.origin)  # by which the first request goes on having it
        connection = await burst.first()
        assert connection is await burst.requests[0]
        await turns()
        assert 0 == len(burst.opener._openings)
        connection.reusable = True
        burst.pool.end(TARGET.origin)
        burst.pool.keep(TARGET.origin, connection, "acme")
        assert connection is await burst.requests[1]
        await burst.close()

    asyncio.run(scene())


def test_a_busy_loop_waits_for_a_connection_with_tls_for_a_while() -> None:
    """A receiver that takes its time has more connections after BUSY_SECONDS."""

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        began, burst = loop.time(), Burst(2, TARGET, is_busy=True)
        burst.pool.begin(TARGET.origin)  # by which the first request goes on having its connection
        await burst.first()
        await burst.connector.begun(2)
        assert loop.time() - began >= BUSY_SECONDS
        own = opened()
        burst.connector.asked[1].set_result(own)
        assert own is await burst.requests[1]
        await burst.close()

    asyncio.run(scene())


async def turns() -> None:
    """Some turns of the loop, in which nothing is waited for."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_busy_loop_does_not_wait_for_a_receiver_that_closes_after_its_answer() -> None:
    """No request has that connection after the one for which it is opened."""

    async def scene() -> None:
        burst = Burst(1, TARGET, is_busy=True)
        connection = await burst.first()
        await asyncio.gather(*burst.requests)
        burst.pool.failed(TARGET.origin, connection, Answer(200))
        burst.requests += [asyncio.create_task(burst.request()) for _ in range(2)]
        await turns()
        assert 2 == len(burst.opener._openings)
        await burst.close()

    asyncio.run(scene())


@pytest.mark.parametrize("end", ["not opened", "not kept", "cancelled"])
def test_when_nobody_has_a_connection_any_more_the_first_that_waits_opens_one(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait for that one. So what ends with the last connection is not waited for until BUSY_SECONDS are over."""
    monkeypatch.setattr("dispatcher.sending.opener.BUSY_SECONDS", 3600)

    async def scene() -> None:
        burst = Burst(3, TARGET, is_busy=True)
        await burst.connector.begun(1)
        await turns()
        assert 2 == len(burst.opener._patient[TARGET.origin])
        if end == "not opened":
            burst.connector.asked[0].set_result(NoAnswer("connect", "refused"))  # type: ignore[arg-type]
        elif end == "not kept":
            burst.connector.asked[0].set_result(opened())
        else:
            burst.requests[0].cancel()
        await turns()
        assert burst.requests[0].done()
        assert 1 == len(burst.opener._patient[TARGET.origin])
        assert 1 == burst.opener._being_opened[TARGET.origin]
        await burst.close()
        assert {} == burst.opener._patient == burst.opener._being_opened

    asyncio.run(scene())


def test_a_busy_loop_leaves_a_request_time_to_open_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose time is short waits for half of it only; if it cannot connect, its time is over then, and not later."""
    monkeypatch.setattr("dispatcher.sending.opener.BUSY_SECONDS", 3600)

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        began, burst = loop.time(), Burst(2, TARGET, is_busy=True, seconds=1)
        await burst.connector.begun(2)
        assert loop.time() - began < 1
        assert [NOT_IN_TIME] * 2 == await asyncio.wait_for(asyncio.gather(*burst.requests), 60)
        await burst.close()

    asyncio.run(scene())


def test_a_request_without_tls_takes_what_another_is_done_with() -> None:
    """It opens no connection of its own then."""

    async def scene() -> None:
        burst = Burst(2)
        connection = await burst.freed()
        assert [connection] * 2 == await asyncio.gather(*burst.requests)
        assert 1 == len(burst.connector.asked)
        await burst.close()

    asyncio.run(scene())


def test_a_free_connection_that_has_ended_is_not_taken() -> None:
    """If the receiver closes it as a request without TLS gets it, the request opens its own."""

    async def scene() -> None:
        burst = Burst(2)
        connection = await burst.freed()
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
        connection = await burst.freed()
        burst.requests[1].cancel()
        await asyncio.wait(burst.requests)
        assert burst.requests[1].cancelled()
        assert connection is burst.pool.take(PLAIN.origin)
        await burst.close()

    asyncio.run(scene())


@pytest.mark.parametrize(("target", "is_busy"), [(PLAIN, False), (TARGET, True)])
def test_a_request_that_waits_ends_with_the_transport(target: Target, is_busy: bool) -> None:
    """One that waits for another's connection when all is closed ends with our own fault, and does not hang."""

    async def scene() -> None:
        burst = Burst(3, target, is_busy=is_busy)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        burst.opener.close()
        burst.pool.close()
        found = await asyncio.wait_for(asyncio.gather(*burst.requests[1:]), 20)
        assert [CLOSED] * 2 == found
        await burst.close()
        assert {} == burst.pool._shelves

    asyncio.run(scene())


def test_requests_that_wait_do_not_wait_behind_handshakes() -> None:
    """While handshakes of others have many steps to do, a request opens its connection when it is its turn."""

    async def scene() -> None:
        clock = count(0.0, 0.001)  # so a step is all that a turn of the loop has time for
        handshakes, burst = Handshakes(lambda: next(clock)), Burst(0)
        burst.opener = Opener(burst.connector, handshakes, burst.pool)  # type: ignore[arg-type]
        steps = [asyncio.create_task(handshakes.step(lambda: None, "")) for _ in range(1000)]
        burst.requests = [asyncio.create_task(burst.request()) for _ in range(5)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert 5 == len(burst.connector.asked)
        for step in steps:
            step.cancel()
        await burst.close()

    asyncio.run(scene())


def test_workspaces_take_turns() -> None:
    """The many requests of one workspace to a receiver do not hold up another workspace's request to another one."""

    async def scene() -> None:
        burst = Burst(100)
        await asyncio.sleep(0)
        other = replace(PLAIN, origin=("other.example", 80, False, ""))
        for _ in range(2):
            burst.pool.begin(other.origin)
        deadline = asyncio.get_running_loop().time() + 3600
        one = asyncio.create_task(burst.opener.connection(other, "umbrella", deadline))
        before = len(burst.connector.asked)
        for _ in range(6):
            await asyncio.sleep(0)
        assert other in burst.connector.targets[before:]
        one.cancel()
        await burst.close()

    asyncio.run(scene())


def test_nobody_waits_for_a_receiver_that_closes_after_its_answer() -> None:
    """Its connections are not free afterwards, so each request opens its own at once, until it keeps one again."""

    async def scene() -> None:
        burst = Burst(1)
        await asyncio.sleep(0)
        connection = await burst.first()
        await asyncio.gather(*burst.requests)
        burst.pool.failed(PLAIN.origin, connection, Answer(200))
        burst.requests = [asyncio.create_task(burst.request()) for _ in range(20)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert 21 == len(burst.connector.asked)
        burst.pool.begin(PLAIN.origin)
        burst.pool.begin(PLAIN.origin)
        assert not burst.pool.may_be_free(PLAIN.origin)
        connection.fresh = False
        burst.pool.keep(PLAIN.origin, connection, "acme")
        assert burst.pool.may_be_free(PLAIN.origin)
        await burst.close()

    asyncio.run(scene())


def test_a_connection_that_is_free_too_late_is_kept() -> None:
    """A request whose time is over when it could be sent is not sent."""

    async def scene() -> None:
        pool = Pool()
        opener = Opener(Opens(), Handshakes(), pool)  # type: ignore[arg-type]
        for _ in range(2):
            pool.begin(PLAIN.origin)
        request = asyncio.create_task(opener.connection(PLAIN, "acme", asyncio.get_running_loop().time() - 1))
        await asyncio.sleep(0)
        connection = opened()
        connection.reusable = True
        pool.keep(PLAIN.origin, connection, "acme")
        assert NOT_IN_TIME == await request
        assert connection is pool.take(PLAIN.origin)
        pool.close()

    asyncio.run(scene())


def test_a_request_whose_turn_it_is_takes_what_is_idle_by_then() -> None:
    """A connection that nobody waited for any more is not left idle beside a new one."""

    async def scene() -> None:
        pool = Pool()
        connector = Opens()
        opener = Opener(connector, Handshakes(), pool)  # type: ignore[arg-type]
        for _ in range(2):
            pool.begin(PLAIN.origin)
        loop = asyncio.get_running_loop()
        request = asyncio.create_task(opener.connection(PLAIN, "acme", loop.time() + 3600))
        connection = opened()
        connection.reusable = True
        await asyncio.sleep(0)
        loop.call_soon(pool.keep, PLAIN.origin, connection, "acme")  # just after its turn came
        assert connection is await request
        assert [] == connector.asked
        pool.close()

    asyncio.run(scene())


def test_what_is_in_use_is_not_forgotten() -> None:
    """Among very many origins, those with a request under way keep its count."""

    async def scene() -> None:
        pool = Pool(max_open=1)
        pool.begin(PLAIN.origin)
        pool.begin(PLAIN.origin)
        for number in range(MAX_ORIGINS + 1):
            other = f"{number}.example", 80, False, ""
            pool.begin(other)
            pool.end(other)
        assert pool.may_be_free(PLAIN.origin)
        pool.close()

    asyncio.run(scene())


def test_nobody_waits_for_a_request_that_has_ended() -> None:
    """One that is under way may be done with a connection soon; one that has ended has none."""

    async def scene() -> None:
        pool = Pool()
        pool.begin(PLAIN.origin)
        assert not pool.may_be_free(PLAIN.origin)  # there is the caller's alone
        pool.begin(PLAIN.origin)
        assert pool.may_be_free(PLAIN.origin)
        pool.end(PLAIN.origin)
        assert not pool.may_be_free(PLAIN.origin)
        pool.close()

    asyncio.run(scene())
