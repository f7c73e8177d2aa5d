"""Idle connections are used for as long as their receivers keep them, against real sockets.

The time is the test's: receivers and pool read one clock, which the test puts forward.
"""

import asyncio
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop

from dispatcher.rules.addresses import AddressPolicy
from dispatcher.sending.answer import Answer
from dispatcher.sending.failures import Failure, InternalError, NoAnswer
from dispatcher.sending.keep_alive import LONGEST_SECONDS, UNKNOWN_SECONDS
from dispatcher.sending.pool import MAX_AGE_SECONDS, Pool
from dispatcher.sending.transport import CallbackTransport
from tests.http.raw_server import Connection, RawServer, answer, answers, hangs, serving
from tests.http.test_transport import Certificates, Names, Run, names, turns_of_the_loop

LOCAL = AddressPolicy.of(["127.0.0.0/8"])
NAME = "receiver.test"
ON_THE_WAY_SECONDS = 0.2
"""How long the end of a connection takes to arrive: a request that goes out meanwhile meets a closed one."""


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run[Any]]:
    """Runs a coroutine to its end on a loop of its own."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One authority for all tests."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Keeping:
    """A receiver that answers, and ends a connection that was idle for `seconds` when it looks at the clock."""

    def __init__(self, clock: Clock, seconds: float, *headers: str) -> None:
        self.clock, self.seconds, self.headers = clock, seconds, headers
        self.idle: dict[Connection, float] = {}

    async def __call__(self, connection: Connection) -> None:
        """Serves one connection."""
        try:
            while True:
                await connection.request()
                self.idle[connection] = self.clock.now
                await connection.send(answer(200, b"ok", *self.headers))
        finally:
            self.idle.pop(connection, None)

    async def passes(self, seconds: float) -> None:
        """Lets time pass. What ends in the last moment of it is still on its way when this returns."""
        until = self.clock.now + seconds
        while self.idle and (due := min(self.idle.values()) + self.seconds) <= until - ON_THE_WAY_SECONDS:
            self.clock.now = max(self.clock.now, due)
            self._end()
            await turns_of_the_loop()
        self.clock.now = until
        self._end()

    def _end(self) -> None:
        for connection, since in list(self.idle.items()):
            if self.clock.now - since >= self.seconds:
                del self.idle[connection]
                connection.end()


@asynccontextmanager
async def sending(clock: Clock, **options: Any) -> AsyncIterator[CallbackTransport]:
    """A transport until the block ends."""
    options = {"resolver": names("127.0.0.1")} | options
    transport = CallbackTransport(LOCAL, 20.0, clock=clock, **options)
    try:
        yield transport
    finally:
        await transport.aclose()


async def post(transport: CallbackTransport, server: RawServer, workspace: str = "acme") -> Answer | Failure:
    """What one POST brings."""
    return await transport.post(server.url_at(NAME), {}, b"{}", workspace)


def word_of(found: Answer | Failure) -> str:
    """The word of a failure; "ok" for an answer."""
    return found.word if isinstance(found, NoAnswer) else "ok"


async def accepted_after(
    transport: CallbackTransport, server: RawServer, keeping: Keeping, *pauses: float
) -> list[int]:
    """How many connections the server has seen after a POST, and after each that follows a pause."""
    seen = []
    for pause in (0.0, *pauses):
        await keeping.passes(pause)
        assert isinstance(await post(transport, server), Answer)
        seen.append(server.accepted)
    return seen


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("keeps", "most_met"), [(1, 1), (2, 1), (5, 0), (60, 0), (75, 0)])
def test_a_post_seldom_meets_a_connection_that_is_just_closed(
    run: Run[None], certificates: Certificates, scheme: str, keeps: float, most_met: int
) -> None:
    """Of 300 POSTs, 100 of them at the moment at which the receiver closes, at most the first one is `maybe_received`."""

    async def scene() -> None:
        clock, rng = Clock(), random.Random(keeps)
        keeping, tls = Keeping(clock, keeps), certificates.client()
        at_server = certificates.server(NAME) if scheme == "https" else None
        async with serving(keeping, tls=at_server) as server, sending(clock, tls=tls) as transport:
            words: Counter[str] = Counter()
            for number in range(300):
                words[word_of(await post(transport, server))] += 1
                sometime = rng.uniform(0, 1.5 * keeps), rng.uniform(0, 10)
                await keeping.passes((keeps + rng.uniform(0, ON_THE_WAY_SECONDS), *sometime)[number % 3])
            assert set(words) <= {"ok", "maybe_received"}
            assert words["maybe_received"] <= most_met
            assert server.accepted < 300

    run(scene())


def test_one_post_in_seven_seconds_needs_two_connections(run: Run[None]) -> None:
    """A receiver that keeps connections for a minute: the first one shows it, the second one is used to its age."""

    async def scene() -> None:
        clock = Clock()
        keeping = Keeping(clock, 60)
        async with serving(keeping) as server, sending(clock) as transport:
            posts = int(0.8 * MAX_AGE_SECONDS / 7)
            seen = await accepted_after(transport, server, keeping, *[7.0] * posts)
            assert seen == [1] + [2] * posts

    run(scene())


def test_a_connection_that_is_kept_to_learn_is_not_used(run: Run[None]) -> None:
    """What is idle for longer than is known to be safe stays open, and the next request has a connection of its own."""

    async def scene() -> None:
        clock = Clock()
        keeping = Keeping(clock, 60)
        async with serving(keeping) as server, sending(clock) as transport:
            await accepted_after(transport, server, keeping, UNKNOWN_SECONDS)
            assert [len(one.received) for one in server.connections] == [1, 1]
            assert len(keeping.idle) == 2

    run(scene())


@pytest.mark.parametrize("status", [200, 204, 503])
def test_a_promise_is_used_with_a_margin(run: Run[None], status: int) -> None:
    """`Keep-Alive: timeout=30`: used when idle for 26 s, not for 28."""

    async def scene() -> None:
        clock = Clock()
        content = answer(status, b"", "Keep-Alive: timeout=30, max=99", "Connection: keep-alive")
        async with serving(answers(content, content)) as server, sending(clock) as transport:
            for pause, accepted in ((0, 1), (26, 1), (28, 2)):
                clock.now += pause
                assert isinstance(await post(transport, server), Answer)
                assert server.accepted == accepted

    run(scene())


def test_a_receiver_that_keeps_connections_for_shorter_than_before_is_believed_at_once(
    run: Run[None],
) -> None:
    """A connection that ends under a request after 30 s: the next one that is idle for as long is not used."""

    async def scene() -> None:
        clock = Clock()
        keeping = Keeping(clock, 60)
        async with serving(keeping) as server, sending(clock) as transport:
            assert await accepted_after(transport, server, keeping, 40, 30) == [1, 2, 2]
            keeping.seconds = 30
            await keeping.passes(30.1)
            assert word_of(await post(transport, server)) == "maybe_received"
            keeping.seconds = 60
            assert await accepted_after(transport, server, keeping, 26, 30) == [3, 3, 4]

    run(scene())


def test_a_receiver_that_was_restarted_is_learned_again(run: Run[None]) -> None:
    """Connections that end early are believed for half a minute; then one is kept to learn again."""

    async def scene() -> None:
        clock = Clock()
        keeping = Keeping(clock, 60)
        async with serving(keeping) as server, sending(clock) as transport:
            await accepted_after(transport, server, keeping, 40, 30)
            keeping.seconds = 2
            await keeping.passes(2.5)
            keeping.seconds = 60
            before = server.accepted
            seen = await accepted_after(transport, server, keeping, *[7.0] * 12)
            assert seen[-6:] == [seen[-1]] * 6
            assert seen[-1] - before <= 7

    run(scene())


def test_a_reused_connection_without_an_answer_is_suspected(run: Run[None]) -> None:
    """Where a request on a connection that was idle for long runs into its deadline, none that old is used again."""

    async def scene() -> None:
        clock = Clock()
        content = answer(200, b"", "Keep-Alive: timeout=60")
        async with serving(answers(content, content)) as server:
            resolver = names("127.0.0.1")
            transport = CallbackTransport(LOCAL, 0.3, resolver=resolver, clock=clock)
            for pause, word, accepted in (
                (0, "ok", 1),
                (50, "ok", 1),
                (50, "timeout", 1),
                (0, "ok", 2),
                (5, "ok", 3),
            ):
                clock.now += pause
                assert (word_of(await post(transport, server)), server.accepted) == (word, accepted)
            await transport.aclose()

    run(scene())


def test_no_connection_is_idle_for_longer_than_nats_remember(run: Run[None]) -> None:
    """A receiver that never closes: a connection is used after three minutes, and not after four."""

    async def scene() -> None:
        clock = Clock()
        keeping = Keeping(clock, 3600)
        async with serving(keeping) as server, sending(clock, max_age_seconds=3600) as transport:
            seen = await accepted_after(transport, server, keeping, LONGEST_SECONDS - 1, 180, LONGEST_SECONDS)
            assert seen == [1, 2, 2, 3]

    run(scene())


# ---- which connections make room


def urls_of(server: RawServer, workspace: str, count: int) -> list[str]:
    """URLs of as many origins."""
    return [server.url_at(f"{number}.{workspace}.test") for number in range(count)]


def test_who_holds_most_makes_room(run: Run[None]) -> None:
    """A workspace with many endpoints loses its own idle connections, the least recently used first; others keep theirs."""

    async def scene() -> None:
        clock = Clock()
        content = answer(200, b"", "Keep-Alive: timeout=60")
        async with serving(answers(*[content] * 9)) as server, sending(clock, max_open=10) as transport:
            small, large = urls_of(server, "small", 3), urls_of(server, "large", 30)
            for workspace, urls in (("small", small), ("large", large)):
                for url in urls:
                    clock.now += 0.1
                    assert isinstance(await transport.post(url, {}, b"{}", workspace), Answer)
            assert server.accepted == 33
            for workspace, urls in (("small", small), ("large", large[-6:])):
                for url in urls:
                    assert isinstance(await transport.post(url, {}, b"{}", workspace), Answer)
            assert server.accepted == 33
            assert isinstance(await transport.post(large[0], {}, b"{}", "large"), Answer)
            assert server.accepted == 34

    run(scene())


# ---- requests that wait for a connection


def test_a_request_takes_a_connection_that_is_free_before_its_own(
    run: Run[None], certificates: Certificates
) -> None:
    """With TLS: while its own connection waits for a look-up that hangs, a request goes out on one that another is done with."""

    async def scene() -> None:
        received, answered, asked_again = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def look_up(_: str) -> list[str]:
            if received.is_set():
                asked_again.set()
                await asyncio.Event().wait()
            return ["127.0.0.1"]

        async def answers_late(connection: Connection) -> None:
            await connection.request()
            received.set()
            await answered.wait()
            await connection.send(answer())
            await connection.request()
            await connection.send(answer(201))
            await connection.gone()

        clock = Clock()
        async with (
            serving(answers_late, tls=certificates.server(NAME)) as server,
            sending(clock, resolver=Names(look_up), tls=certificates.client()) as transport,
        ):
            first = asyncio.create_task(post(transport, server))
            await asyncio.wait_for(received.wait(), 20)
            clock.now += 60  # the addresses are forgotten
            second = asyncio.create_task(post(transport, server))
            await asyncio.wait_for(asked_again.wait(), 20)
            answered.set()
            found = await asyncio.gather(first, second)
            assert [one.status for one in found if isinstance(one, Answer)] == [200, 201]
            assert server.accepted == 1

    run(scene())


def test_requests_that_needed_no_connection_keep_no_later_one_waiting(run: Run[None]) -> None:
    """However many wait to open a connection to an origin, the next one is opened after the same time."""

    async def scene() -> None:
        pool, origin = Pool(), (NAME, 443, True)
        assert pool.pause(origin, 10) == 0
        assert {0 < pool.pause(origin, 10) <= 10 for _ in range(200)} == {True}
        assert pool.pause(("other.test", 443, True), 10) == 0

    run(scene())


def test_a_closed_transport_ends_requests_that_wait(run: Run[None]) -> None:
    """A request that waits for a connection when the transport is closed ends with our own fault, at once."""

    async def scene() -> None:
        async with serving(hangs) as server:
            transport = CallbackTransport(LOCAL, 3600.0, resolver=names("127.0.0.1"))
            url = server.url_at(NAME).replace("http:", "https:")
            waiting = [asyncio.create_task(transport.post(url, {}, b"{}")) for _ in range(3)]
            await asyncio.sleep(0)
            await transport.aclose()
            found = await asyncio.gather(*waiting)
            assert [type(one) for one in found] == [InternalError] * 3

    run(scene())


def test_servers_that_hang_in_the_handshake_hold_up_no_other(
    run: Run[None], certificates: Certificates
) -> None:
    """While 100 handshakes hang, another server's callbacks go out over a new connection."""

    async def scene() -> None:
        async with (
            serving(hangs) as slow,
            serving(answers(answer()), tls=certificates.server(NAME)) as server,
            sending(Clock(), tls=certificates.client()) as transport,
        ):
            url = slow.url_at("slow.test").replace("http:", "https:")
            hanging = [asyncio.create_task(transport.post(url, {}, b"{}")) for _ in range(100)]
            while slow.accepted < 100:
                await asyncio.sleep(0)
            assert isinstance(await post(transport, server), Answer)
            assert not any(one.done() for one in hanging)
            for one in hanging:
                one.cancel()
            await asyncio.wait(hanging)

    run(scene())


# ---- receivers that change


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_receiver_that_closes_while_we_write(
    run: Run[None], certificates: Certificates, scheme: str
) -> None:
    """It may have received the request; the next one has a new connection."""

    async def closes_in_the_body(connection: Connection) -> None:
        if server.accepted > 1:
            await answers(answer())(connection)

    async def scene() -> None:
        nonlocal server
        tls = certificates.server(NAME) if scheme == "https" else None
        async with (
            serving(closes_in_the_body, tls=tls) as server,
            sending(Clock(), tls=certificates.client()) as transport,
        ):
            url = server.url_at(NAME)
            assert word_of(await transport.post(url, {}, bytes(8_000_000))) == "maybe_received"
            assert isinstance(await transport.post(url, {}, b"{}"), Answer)

    server: RawServer
    run(scene())


@pytest.mark.parametrize(
    ("host", "self_signed", "word"),
    [(NAME, True, "tls_untrusted"), ("other.test", False, "tls_name")],
    ids=["another authority", "another name"],
)
def test_a_replaced_certificate_is_seen_when_the_connection_is_old(
    run: Run[None], certificates: Certificates, host: str, self_signed: bool, word: str
) -> None:
    """An open connection is used until its age; the next one is verified anew, whatever was trusted before."""

    async def scene() -> None:
        clock = Clock()
        content = answer(200, b"", "Keep-Alive: timeout=60")
        tls, replaced = certificates.server(NAME), certificates.server(host, self_signed=self_signed)
        async with (
            serving(answers(*[content] * 9), tls=tls) as server,
            sending(clock, tls=certificates.client()) as transport,
        ):
            assert isinstance(await post(transport, server), Answer)
            tls.sni_callback = lambda shaking, _, __: setattr(shaking, "context", replaced)
            for _ in range(7):
                clock.now += 50
                found = await post(transport, server)
                if clock.now < 1000 + 0.8 * MAX_AGE_SECONDS:
                    assert isinstance(found, Answer)
            assert word_of(found) == word
            assert server.accepted == 1  # a server counts a connection once its handshake is done

    run(scene())


def test_a_name_that_comes_to_be_blocked_is_followed_when_the_connection_is_old(run: Run[None]) -> None:
    """A kept connection leads to the address that was checked when it was made; a new one is checked, and refused."""

    async def scene() -> None:
        clock, addresses = Clock(), ["127.0.0.1"]

        async def look_up(_: str) -> list[str]:
            return addresses

        content = answer(200, b"", "Keep-Alive: timeout=200")
        policy = AddressPolicy.of(["127.0.0.1/32"])
        async with serving(answers(*[content] * 9)) as server, serving(answers(), host="127.0.0.2") as canary:
            transport = CallbackTransport(policy, 20.0, resolver=Names(look_up), clock=clock)
            assert isinstance(await post(transport, server), Answer)
            addresses[:] = ["127.0.0.2"]
            found: Answer | Failure | None = None
            while clock.now < 1000 + MAX_AGE_SECONDS:
                clock.now += 50
                found = await post(transport, server)
                if clock.now < 1000 + 0.8 * MAX_AGE_SECONDS:
                    assert isinstance(found, Answer)
            assert found is not None
            assert (word_of(found), server.accepted, canary.accepted) == ("blocked_address", 1, 0)
            await transport.aclose()

    run(scene())


def test_a_receiver_that_closes_at_once(run: Run[Any]) -> None:
    """A connection that ends before our first bytes is the receiver's failure, also if the loop sees it late."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:

        def closes() -> None:
            with suppress(OSError):
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=closes)
        thread.start()

        async def scene() -> list[Answer | Failure]:
            transport = CallbackTransport(LOCAL, 20.0)
            url = f"https://127.0.0.1:{listener.getsockname()[1]}/h"
            posts = [asyncio.create_task(transport.post(url, {}, b"{}", "acme")) for _ in range(50)]
            while not all(post.done() for post in posts):
                time.sleep(0.002)
                await asyncio.sleep(0)
            await transport.aclose()
            return [post.result() for post in posts]

        try:
            answers = run(scene())
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert {"connect", "tls_handshake"} >= {one.word for one in answers if isinstance(one, NoAnswer)}
    assert all(isinstance(one, NoAnswer) for one in answers)
