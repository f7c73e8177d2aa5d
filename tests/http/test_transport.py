"""The transport against real sockets, on asyncio's loop and on uvloop, which is what a worker runs."""

import asyncio
import datetime
import ipaddress
import resource
import socket
import ssl
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dispatcher.rules.addresses import AddressPolicy, parse_callback_url
from dispatcher.sending.answer import MAX_ANSWER_BYTES, Answer
from dispatcher.sending.failures import Failure, InternalError, NoAnswer
from dispatcher.sending.http_connection import Connection as ClientConnection
from dispatcher.sending.resolver import Resolver
from dispatcher.sending.transport import CallbackTransport
from tests.http.raw_server import Behaviour, Connection, RawServer, answer, answers, closes, hangs, serving

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

LOCAL = AddressPolicy.of(["127.0.0.0/8", "::1/128"])
NOTHING_LOCAL = AddressPolicy()
SHORT = 0.5
"""Seconds, for attempts that are meant to reach their deadline; all others end long before theirs."""

BODY = '{"src":"Zürich","n":1}'.encode()
HEAD = b"HTTP/1.1 200 OK\r\n"
HINT = b"HTTP/1.1 103 Early Hints\r\n\r\n"
TLS = ssl.create_default_context()
"""The context a transport makes for itself, made once: to load the public authorities takes 30 ms."""

IPV6 = Path("/proc/net/if_inet6").exists()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run[Any]]:
    """Runs a coroutine to its end on a loop of its own."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


@asynccontextmanager
async def sending(
    policy: AddressPolicy = LOCAL,
    seconds: float = 20.0,
    *,
    resolver: Resolver | None = None,
    tls: ssl.SSLContext | None = TLS,
    max_age: float = 60.0,
) -> AsyncIterator[CallbackTransport]:
    """A transport until the block ends."""
    transport = CallbackTransport(policy, seconds, resolver=resolver, tls=tls, max_age_seconds=max_age)
    try:
        yield transport
    finally:
        await transport.aclose()


async def tried(transport: CallbackTransport, url: str, body: bytes = BODY) -> Answer | Failure:
    """What one POST brings."""
    return await transport.post(url, {"Content-Type": "application/json"}, body)


async def post(transport: CallbackTransport, url: str, body: bytes = BODY) -> Answer:
    """The answer to one POST."""
    found = await tried(transport, url, body)
    assert isinstance(found, Answer)
    return found


async def found_by(behaviour: Behaviour, seconds: float = 20.0) -> Answer | Failure:
    """What one POST to a server that behaves like this brings."""
    async with serving(behaviour) as server, sending(seconds=seconds) as transport:
        return await tried(transport, server.url)


async def answer_of(behaviour: Behaviour, seconds: float = 20.0) -> Answer:
    """The answer to one POST to a server that behaves like this."""
    found = await found_by(behaviour, seconds)
    assert isinstance(found, Answer)
    return found


def header(got: Answer, name: str) -> str:
    """The value of a header of an answer."""
    return httpx.Headers(got.headers)[name]


async def word_of(attempt: Awaitable[Answer | Failure]) -> str:
    """The word of an attempt that must fail, and not by our own fault."""
    found = await attempt
    assert isinstance(found, NoAnswer)
    return found.word


async def statuses(count: int, server: RawServer) -> list[int]:
    """The statuses of some POSTs, one after the other, through one transport."""
    async with sending() as transport:
        return [(await post(transport, server.url)).status for _ in range(count)]


# ---- the answer


def test_the_answer_comes_back_whole(run: Run[Answer]) -> None:
    """Status, headers and body are those the server sent."""
    got = run(answer_of(answers(answer(200, b"thanks", "X-Trace: abc"))))
    assert (got.status, got.body, header(got, "x-trace")) == (200, b"thanks", "abc")


def test_connections_are_kept_alive(run: Run[None]) -> None:
    """Requests one after the other to one origin share a connection."""

    async def scene() -> None:
        async with serving(answers(answer(), answer(500), answer())) as server:
            assert await statuses(3, server) == [200, 500, 200]
            assert server.accepted == 1

    run(scene())


def test_an_old_connection_is_not_used_again(run: Run[None]) -> None:
    """A connection past its age is closed after its answer, so that a name that has moved is looked up again."""

    async def scene() -> None:
        async with serving(answers(answer())) as server, sending(max_age=0.0) as transport:
            for _ in range(2):
                assert (await post(transport, server.url)).status == 200
            assert server.accepted == 2

    run(scene())


def test_a_connection_the_server_ends_is_not_used_again(run: Run[None]) -> None:
    """After `Connection: close` the next request opens a new connection."""

    async def scene() -> None:
        async with serving(answers(answer(200, b"ok", "Connection: close"))) as server:
            assert await statuses(2, server) == [200, 200]
            assert server.accepted == 2

    run(scene())


def test_requests_at_the_same_time_wait_for_no_free_connection(run: Run[None]) -> None:
    """Neither a total nor a per-host limit of connections holds a request back."""
    count = 120

    async def scene() -> None:
        everybody = asyncio.Barrier(count)

        async def waits_for_the_others(connection: Connection) -> None:
            await connection.request()
            await everybody.wait()
            await connection.send(answer())
            await connection.gone()

        async with serving(waits_for_the_others) as server, sending() as transport:
            got = await asyncio.gather(*(post(transport, server.url) for _ in range(count)))
            assert {one.status for one in got} == {200}
            assert server.accepted == count

    run(scene())


def test_a_redirect_is_an_answer(run: Run[None]) -> None:
    """A 302 comes back as it is, and nobody goes where it points."""

    async def scene() -> None:
        async with serving(answers(answer())) as canary:
            got = await answer_of(answers(answer(302, b"", f"Location: {canary.url}")))
            assert (got.status, header(got, "location")) == (302, canary.url)
            assert canary.accepted == 0

    run(scene())


def test_cookies_are_not_kept(run: Run[None]) -> None:
    """A cookie that an answer sets is in no later request."""

    async def scene() -> None:
        async with serving(answers(answer(200, b"", "Set-Cookie: id=1; Path=/"), answer())) as server:
            assert await statuses(2, server) == [200, 200]
            assert [request.values("cookie") for request in server.received] == [[], []]

    run(scene())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxies_of_the_environment_are_ignored(
    run: Run[None], monkeypatch: pytest.MonkeyPatch, certificates: "Certificates", scheme: str
) -> None:
    """With HTTP_PROXY and its kin set, requests still go straight to the receiver."""

    async def scene() -> None:
        tls = certificates.server("receiver.test") if scheme == "https" else None
        async with serving(answers(answer())) as proxy, serving(answers(answer(201)), tls=tls) as server:
            for name in ("http_proxy", "https_proxy", "all_proxy"):
                monkeypatch.setenv(name, proxy.url)
                monkeypatch.setenv(name.upper(), proxy.url)
            monkeypatch.delenv("no_proxy", raising=False)
            monkeypatch.delenv("NO_PROXY", raising=False)
            async with sending(resolver=names("127.0.0.1"), tls=certificates.client()) as transport:
                assert (await post(transport, server.url_at("receiver.test"))).status == 201
            assert (proxy.accepted, server.accepted) == (0, 1)

    run(scene())


def test_the_answer_is_not_decompressed(run: Run[Answer]) -> None:
    """A gzip body comes back as the bytes that were sent."""
    packed = zlib.compress(b"thanks", wbits=31)
    got = run(answer_of(answers(answer(200, packed, "Content-Encoding: gzip"))))
    assert got.body == packed


def test_a_gzip_bomb_stays_packed(run: Run[Answer]) -> None:
    """A bomb of 40 MB of zeros costs the 16 KiB that are read of it."""
    bomb = zlib.compress(bytes(40_000_000), level=1, wbits=31)
    assert len(bomb) > MAX_ANSWER_BYTES
    got = run(answer_of(answers(answer(200, bomb, "Content-Encoding: gzip"))))
    assert got.body == bomb[:MAX_ANSWER_BYTES]


def test_an_answer_at_the_limit_is_read_whole(run: Run[None]) -> None:
    """16 KiB come back whole and the connection is kept."""

    async def scene() -> None:
        body = bytes(range(256)) * (MAX_ANSWER_BYTES // 256)
        async with serving(answers(answer(200, body), answer())) as server, sending() as transport:
            assert (await post(transport, server.url)).body == body
            assert (await post(transport, server.url)).status == 200
            assert server.accepted == 1

    run(scene())


@pytest.mark.parametrize(
    ("field", "piece"),
    [
        ("Content-Length: 1000000000", b"x" * 10_000),
        ("X-Length: none", b"x" * 10_000),
        ("Transfer-Encoding: chunked", b"1\r\nx\r\n" * 2_000),
        ("Transfer-Encoding: chunked", b"2000\r\n" + b"x" * 0x2000 + b"\r\n"),
        ("Transfer-Encoding: chunked", b"0\r\n" + b"X: trailer\r\n" * 1_000),
    ],
    ids=["a length", "no length", "tiny chunks", "chunks", "trailers"],
)
@pytest.mark.parametrize("status", [200, 503])
def test_an_endless_answer_is_cut_and_its_connection_closed(
    run: Run[None], status: int, field: str, piece: bytes
) -> None:
    """At most 16 KiB of a body without end come back, with its status, and the server sees the connection close."""

    async def scene() -> None:
        noticed = asyncio.Event()

        async def endless(connection: Connection) -> None:
            await connection.request()
            await connection.send(b"HTTP/1.1 %d X\r\n%b\r\n\r\n" % (status, field.encode()))
            try:
                while True:
                    await connection.send(piece)
            except ConnectionError:
                noticed.set()

        async with serving(endless) as server, sending() as transport:
            got = await post(transport, server.url)
            assert got.status == status
            assert len(got.body) <= MAX_ANSWER_BYTES
            assert set(got.body) <= {ord("x")}
            await asyncio.wait_for(noticed.wait(), 20)

    run(scene())


# ---- a 2xx head that was read whole counts


async def dripping(connection: Connection) -> None:
    """A whole head, then a byte now and then."""
    await connection.request()
    await connection.send(HEAD + b"\r\n")
    while True:
        await connection.send(b".")
        await asyncio.sleep(SHORT / 20)


async def silent_body(connection: Connection) -> None:
    """A whole head that promises a body which never comes."""
    await connection.request()
    await connection.send(HEAD + b"Content-Length: 10\r\n\r\n")
    await connection.gone()


@pytest.mark.parametrize("behaviour", [dripping, silent_body])
def test_a_body_without_end_takes_nothing_from_a_2xx(run: Run[Answer], behaviour: Behaviour) -> None:
    """The deadline ends the reading of a body, and the status that was read stands."""
    got = run(answer_of(behaviour, seconds=SHORT))
    assert got.status == 200
    assert set(got.body) <= {ord(".")}


def test_the_rest_of_an_answer_is_not_waited_for_to_the_deadline(run: Run[Answer]) -> None:
    """Once a head was read its body has a second: the status stands, and a slot is held."""
    assert run(answer_of(silent_body, seconds=3600)).status == 200


UNTIDY = [
    b"X: folded\r\n line\r\nContent-Length: 2\r\n",
    b"X : blank before the colon\r\nContent-Length: 2\r\n",
    b"Content-Length: 2\r\nContent-Length: 2\r\n",
    b"Content-Length: 2, 2\r\n",
    b"Content-Length: 2\r\nContent-Length: 3\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n",
    b"a line without a colon\r\nContent-Length: 2\r\n",
]
"""Header lines that no server should send, and some do."""


@pytest.mark.parametrize("fields", UNTIDY, ids=repr)
@pytest.mark.parametrize("status", [200, 503])
def test_an_untidy_answer_counts_and_its_connection_is_not_used_again(
    run: Run[None], status: int, fields: bytes
) -> None:
    """A head that can be read has a status, however it frames its body; the next request has a new connection."""
    body = b"2\r\nok\r\n0\r\n\r\n" if b"chunked" in fields else b"ok"

    async def scene() -> None:
        content = b"HTTP/1.1 %d X\r\n%b\r\n%b" % (status, fields, body)
        async with serving(answers(content, content)) as server:
            assert await statuses(2, server) == [status, status]
            assert server.accepted == 2

    run(scene())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_request_that_the_receiver_does_not_read_is_the_connections_last(
    run: Run[None], certificates: "Certificates", scheme: str
) -> None:
    """An answer before the request has gone counts; another request behind it would wait in this process's memory."""

    async def answers_unread(connection: Connection) -> None:
        await connection.send(answer(200))
        await asyncio.sleep(20)

    async def scene() -> None:
        tls = certificates.server("127.0.0.1") if scheme == "https" else None
        async with serving(answers_unread, tls=tls) as server:
            async with sending(tls=certificates.client()) as transport:
                for _ in range(2):
                    got = await tried(transport, server.url, b"x" * 16_000_000)
                    assert isinstance(got, Answer)
                    assert got.status == 200
            assert server.accepted == 2

    run(scene())


@pytest.mark.parametrize(
    "content",
    [
        HEAD + b"Content-Length: 20\r\n\r\nshort",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\nshort",
    ],
)
def test_a_body_that_breaks_off_takes_nothing_from_a_2xx(run: Run[Answer], content: bytes) -> None:
    """A server that closes within the body has still said 200."""

    async def breaks_off(connection: Connection) -> None:
        await connection.request()
        await connection.send(content)

    assert run(answer_of(breaks_off)).status == 200


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (204, b"HTTP/1.1 204 No Content\r\n\r\nOK"),
        (204, b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nOK"),
        (200, HEAD + b"Content-Length: 2\r\n\r\nOK and more"),
        (200, HEAD + b"Transfer-Encoding: chunked\r\n\r\nnot a length\r\n"),
        (200, HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nOKthen nonsense\r\n"),
        (200, HINT + HEAD + b"Content-Length: 2\r\n\r\nOK and more"),
    ],
)
def test_nonsense_behind_the_head_takes_nothing_from_a_2xx(
    run: Run[Answer], status: int, content: bytes
) -> None:
    """A whole 2xx head counts though the bytes sent with it are no body of its kind."""
    assert run(answer_of(answers(content))).status == status


@pytest.mark.parametrize(
    "content",
    [
        b"HTTP/1.1 204 No Content\n\nOK",
        b"HTTP/1.1 204 No Content\r\n\nOK",
        b"HTTP/1.1 200 OK\nContent-Length: 100000\n\n" + b"x" * 100_000,
    ],
    ids=["nonsense behind", "mixed ends", "a long body"],
)
def test_bare_line_feeds_end_a_head_too(run: Run[Answer], content: bytes) -> None:
    """A head without carriage returns is a head, and counts like any other."""
    assert run(answer_of(answers(content))).status == int(content[9:12])


def test_a_head_counts_wherever_it_is_cut(run: Run[None]) -> None:
    """A head that comes in two reads counts, though the second holds nonsense too."""
    head = b"HTTP/1.1 204 No Content\r\nX: x\r\n\r\n"
    cuts = iter(range(1, len(head)))

    async def in_two_reads(connection: Connection) -> None:
        cut = next(cuts)
        await connection.request()
        await connection.send(head[:cut])
        await turns_of_the_loop()
        await connection.send(head[cut:] + b"OK")
        await connection.gone()

    async def scene() -> None:
        async with serving(in_two_reads) as server:
            assert await statuses(len(head) - 1, server) == [204] * (len(head) - 1)

    run(scene())


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
def test_an_answer_nobody_asked_for_is_never_counted(run: Run[None], line_end: bytes) -> None:
    """What a server sends on an idle connection is not taken for the answer to the next request."""

    async def scene() -> None:
        answered = asyncio.Event()
        waiting = [answer(200), answer(500)]

        async def says_more(connection: Connection) -> None:
            await connection.request()
            await connection.send(waiting.pop(0).replace(b"\r\n", line_end))
            await answered.wait()
            await connection.send(answer(200, b"unasked").replace(b"\r\n", line_end))
            await connection.request()
            await connection.send(waiting.pop(0))
            await connection.gone()

        async with serving(says_more) as server, sending() as transport:
            assert (await post(transport, server.url)).status == 200
            answered.set()
            await turns_of_the_loop()
            assert (await post(transport, server.url)).status == 500

    run(scene())


async def turns_of_the_loop() -> None:
    """Lets what was sent on loopback be read: one turn writes it, another reads it."""
    for _ in range(20):
        await asyncio.sleep(0)


# ---- no head, no delivery


async def half_a_head(connection: Connection) -> None:
    """A status line and a header, then the end."""
    await connection.request()
    await connection.send(HEAD + b"Content-Length: 0\r\n")


async def half_a_head_and_silence(connection: Connection) -> None:
    """A status line, then nothing."""
    await connection.request()
    await connection.send(HEAD)
    await connection.gone()


async def a_head_in_drops(connection: Connection) -> None:
    """One header after the other, for ever."""
    await connection.request()
    await connection.send(HEAD)
    while True:
        await connection.send(b"X-Drop: 1\r\n")
        await asyncio.sleep(SHORT / 20)


async def resets(connection: Connection) -> None:
    """Reads the request and resets the connection."""
    await connection.request()
    connection.reset()


async def resets_in_the_head(connection: Connection) -> None:
    """Sends half a head and resets the connection."""
    await connection.request()
    await connection.send(HEAD)
    connection.reset()


async def floods_with_1xx(connection: Connection) -> None:
    """Interim answers for ever."""
    await connection.request()
    while True:
        await connection.send(HINT * 20)


async def closes_at_once(connection: Connection) -> None:
    """Accepts and closes."""


@pytest.mark.parametrize(
    "behaviour", [hangs, half_a_head_and_silence, a_head_in_drops], ids=lambda b: b.__name__
)
def test_without_a_head_the_deadline_is_a_timeout(run: Run[str], behaviour: Behaviour) -> None:
    """A server from which no whole head of a final answer came in time is `timeout`."""
    assert run(word_of(found_by(behaviour, seconds=SHORT))) == "timeout"


@pytest.mark.parametrize(
    "behaviour",
    [closes, closes_at_once, half_a_head, resets, resets_in_the_head],
    ids=lambda b: b.__name__,
)
def test_a_connection_that_ends_before_the_head_may_have_delivered(
    run: Run[str], behaviour: Behaviour
) -> None:
    """A receiver that ends the connection before its answer is `maybe_received`."""
    assert run(word_of(found_by(behaviour))) == "maybe_received"


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\x01\x02 garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"<html>200 OK</html>\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK" + b"x" * 1_000_000,
        HEAD + b"X: " + b"x" * 1_000_000 + b"\r\n\r\n",
        HEAD + b"X: x\r\n" * 100_000 + b"\r\n",
    ],
    ids=lambda content: repr(content[:40]),
)
def test_what_is_no_head_is_a_protocol_error(run: Run[str], content: bytes) -> None:
    """An answer whose head cannot be read, or is larger than any sane one, is `protocol`."""
    assert run(word_of(found_by(answers(content)))) == "protocol"


def test_interim_answers_are_not_the_answer(run: Run[Answer]) -> None:
    """Some 1xx may come first: the status is that of the final answer."""
    assert run(answer_of(answers(HINT * 20 + answer(503)))).status == 503


def test_endless_interim_answers_are_no_answer(run: Run[str]) -> None:
    """A server that sends 1xx for ever has failed, by the deadline at the latest."""
    assert run(word_of(found_by(floods_with_1xx, seconds=SHORT))) in {"timeout", "protocol"}


def test_interim_answers_are_read_within_a_limit(run: Run[str]) -> None:
    """Megabytes of 1xx are `protocol`, like any head of that size, whatever comes behind them."""
    assert run(word_of(found_by(answers(HINT * 100_000 + answer())))) == "protocol"


async def asked_late(behaviour: Behaviour) -> str:
    """The word for asking over a connection whose server did something first."""
    async with serving(behaviour) as server:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(ClientConnection, "127.0.0.1", server.port)
        await turns_of_the_loop()
        return await word_of(connection.ask(b"POST / HTTP/1.1\r\n\r\n", loop.time() + 20))


async def speaks_first(connection: Connection) -> None:
    """Sends an answer before it is asked."""
    await connection.send(answer())
    await connection.gone()


@pytest.mark.parametrize(("behaviour", "word"), [(speaks_first, "protocol"), (closes_at_once, "connect")])
def test_what_ends_before_it_is_asked_was_sent_nothing(
    run: Run[str], behaviour: Behaviour, word: str
) -> None:
    """An answer from before the request is none, and where nothing was sent nothing may have been received."""
    assert run(asked_late(behaviour)) == word


def test_refused_connections_are_told_apart(run: Run[str]) -> None:
    """A port on which nobody listens is `connect`."""

    async def scene() -> str:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            async with sending() as transport:
                return await word_of(tried(transport, f"http://127.0.0.1:{unused.getsockname()[1]}/"))

    assert run(scene()) == "connect"


def test_a_cancelled_attempt_ends_its_connection(run: Run[None]) -> None:
    """Cancelling passes through as what it is, and the server sees the connection close."""

    async def scene() -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def watches(connection: Connection) -> None:
            await connection.request()
            began.set()
            await connection.gone()
            ended.set()

        async with serving(watches) as server, sending() as transport:
            attempt = asyncio.create_task(post(transport, server.url))
            await asyncio.wait_for(began.wait(), 20)
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt
            await asyncio.wait_for(ended.wait(), 20)

    run(scene())


def test_a_request_that_is_cancelled_as_its_answer_comes_ends_its_connection(run: Run[None]) -> None:
    """Nobody gets that answer, so nobody could give the connection back."""

    async def scene() -> None:
        async with serving(hangs) as server:
            loop = asyncio.get_running_loop()
            transport, connection = await loop.create_connection(ClientConnection, "127.0.0.1", server.port)
            asked = asyncio.create_task(connection.ask(b"POST / HTTP/1.1\r\n\r\n"))
            await asyncio.sleep(0)
            connection.data_received(answer())
            asked.cancel()
            await asyncio.wait([asked])
            assert (True, True) == (asked.cancelled(), transport.is_closing())

    run(scene())


# ---- our own faults


@contextmanager
def no_free_descriptors() -> Iterator[None]:
    """Lets the process open no further file or socket; open ones keep working."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_having_no_descriptors_is_our_own_fault(run: Run[None]) -> None:
    """Where no socket can be opened the receiver is not blamed, and nothing reaches it."""

    async def scene() -> None:
        async with serving(answers(answer())) as server, sending() as transport:
            with no_free_descriptors():
                found = await tried(transport, server.url)
            assert isinstance(found, InternalError)
            assert "Too many open files" in found.text
            assert server.accepted == 0
            assert (await post(transport, server.url)).status == 200

    run(scene())


def test_a_look_up_without_descriptors_is_our_own_fault(run: Run[None]) -> None:
    """Where no socket can be opened to a name server, the name is not blamed."""

    async def scene() -> None:
        async with sending() as transport:
            with no_free_descriptors():
                assert isinstance(await tried(transport, "http://receiver.test/"), InternalError)

    run(scene())


def test_a_closed_transport_is_our_own_fault(run: Run[None]) -> None:
    """A request after `aclose` blames nobody else."""

    async def scene() -> None:
        async with serving(answers(answer())) as server:
            async with sending() as transport:
                pass
            assert isinstance(await tried(transport, server.url), InternalError)
            assert server.accepted == 0

    run(scene())


# ---- addresses


class Names:
    """A resolver whose answer is a function."""

    def __init__(self, look_up: Callable[[str], Awaitable[list[str]]]) -> None:
        self._look_up = look_up
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return await self._look_up(host)

    async def close(self) -> None:
        """Holds nothing."""


def names(*addresses: str) -> Names:
    """Every name has these addresses."""

    async def look_up(_: str) -> list[str]:
        return list(addresses)

    return Names(look_up)


LITERALS = [
    ("127.0.0.1", "127.0.0.1"),
    ("127.0.0.1", "0.0.0.0"),
    ("127.0.0.1", "[::ffff:127.0.0.1]"),
    ("127.0.0.1", "[::ffff:7f00:1]"),
    ("::1", "[::1]"),
    ("::1", "[::]"),
    ("::1", "[0:0:0:0:0:0:0:1]"),
]
"""Where the canary listens, and an address that reaches it."""


def url_of(server: RawServer, host: str) -> str:
    return f"http://{host}:{server.port}/hook"


def skip_without_ipv6(*hosts: str) -> None:
    if not IPV6 and any(":" in host for host in hosts):
        pytest.skip("this machine has no IPv6")


@pytest.mark.parametrize(("listens", "host"), LITERALS)
def test_a_private_address_is_not_connected_to(run: Run[None], listens: str, host: str) -> None:
    """An address that is not public and not allowed is `blocked_address`, and its listener hears nothing."""
    skip_without_ipv6(listens, host)

    async def scene() -> None:
        async with serving(answers(answer()), host=listens) as canary, sending(NOTHING_LOCAL) as transport:
            assert await word_of(tried(transport, url_of(canary, host))) == "blocked_address"
            assert canary.accepted == 0

    run(scene())


@pytest.mark.parametrize(("listens", "host"), LITERALS)
def test_an_allowed_address_is_connected_to(run: Run[None], listens: str, host: str) -> None:
    """The same addresses are reached where the policy allows them, so the canary would have heard."""
    skip_without_ipv6(listens, host)

    async def scene() -> None:
        policy = AddressPolicy.of(["0.0.0.0/8", "127.0.0.0/8", "::/127"])
        async with serving(answers(answer()), host=listens) as canary, sending(policy) as transport:
            assert (await post(transport, url_of(canary, host))).status == 200
            assert canary.accepted == 1

    run(scene())


@pytest.mark.parametrize(
    "host", ["2130706433", "127.1", "127.0.1", "0", "0x7f000001", "0x7f.1", "127.0.0.1.", "localhost."]
)
def test_an_odd_spelling_of_loopback_reaches_nothing(run: Run[None], host: str) -> None:
    """Spellings that `inet_aton` would take for 127.0.0.1 fail, and its listener hears nothing."""

    async def scene() -> None:
        async with serving(answers(answer())) as canary, sending(NOTHING_LOCAL) as transport:
            await word_of(tried(transport, url_of(canary, host)))
            assert canary.accepted == 0

    run(scene())


@pytest.mark.parametrize("host", ["2130706433", "127.1", "127.0.1", "0", "127.0.0.1."])
def test_an_odd_spelling_of_an_address_is_a_blocked_address(run: Run[str], host: str) -> None:
    """A host that is numeric but no plain address is `blocked_address`: no further attempt can mend it."""

    async def scene() -> str:
        async with sending(NOTHING_LOCAL) as transport:
            return await word_of(tried(transport, f"http://{host}:9/"))

    assert run(scene()) == "blocked_address"


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["127.0.0.1", "::1"]], ids=",".join
)
def test_a_name_with_only_private_addresses_is_blocked(run: Run[None], addresses: list[str]) -> None:
    """A name is `blocked_address` if all its addresses are, of whichever family."""

    async def scene() -> None:
        async with (
            serving(answers(answer())) as canary,
            sending(NOTHING_LOCAL, resolver=names(*addresses)) as transport,
        ):
            assert await word_of(tried(transport, canary.url_at("rebound.test"))) == "blocked_address"
            assert canary.accepted == 0

    run(scene())


def test_localhost_is_blocked_through_the_real_resolver(run: Run[None]) -> None:
    """`localhost`, looked up as a worker looks names up, is `blocked_address`."""

    async def scene() -> None:
        async with serving(answers(answer())) as canary, sending(NOTHING_LOCAL) as transport:
            assert await word_of(tried(transport, canary.url_at("localhost"))) == "blocked_address"
            assert canary.accepted == 0

    run(scene())


def test_localhost_is_reached_through_the_real_resolver(run: Run[None]) -> None:
    """`localhost` is looked up and reached where loopback is allowed."""

    async def scene() -> None:
        async with serving(answers(answer())) as server, sending() as transport:
            assert (await post(transport, server.url_at("localhost"))).status == 200
            assert server.received[0].values("host") == [f"localhost:{server.port}"]

    run(scene())


def test_a_port_that_is_not_allowed_is_not_connected_to(run: Run[None]) -> None:
    """A port that is not on the list is `blocked_address`, and its listener hears nothing."""

    async def scene() -> None:
        async with serving(answers(answer())) as canary:
            policy = AddressPolicy.of(["127.0.0.0/8"], ports=[443])
            async with sending(policy) as transport:
                assert await word_of(tried(transport, canary.url)) == "blocked_address"
            assert canary.accepted == 0

    run(scene())


@pytest.mark.parametrize(
    "addresses",
    [
        ["10.0.0.1", "127.0.0.1"],
        ["127.0.0.1", "10.0.0.1"],
        ["fd00::1", "127.0.0.1"],
        ["10.0.0.1", "fe80::1", "127.0.0.1"],
    ],
    ids=",".join,
)
def test_a_name_goes_to_those_of_its_addresses_that_are_allowed(run: Run[None], addresses: list[str]) -> None:
    """Of a name with blocked and allowed addresses the allowed ones are used, in any order."""

    async def scene() -> None:
        async with (
            serving(answers(answer())) as server,
            sending(AddressPolicy.of(["127.0.0.0/8"]), resolver=names(*addresses)) as transport,
        ):
            assert (await post(transport, server.url_at("mixed.test"))).status == 200
            assert server.accepted == 1

    run(scene())


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["fd00::1", "127.0.0.1"]],
    ids=",".join,
)
def test_a_name_whose_allowed_address_is_down_is_not_blocked(run: Run[str], addresses: list[str]) -> None:
    """If the allowed address refuses the connection, that is the failure, not the blocked one beside it."""

    async def scene() -> str:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            policy = AddressPolicy.of(["127.0.0.0/8"])
            async with sending(policy, resolver=names(*addresses)) as transport:
                return await word_of(tried(transport, f"http://mixed.test:{unused.getsockname()[1]}/"))

    assert run(scene()) == "connect"


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "does not answer"])
def test_a_name_whose_first_address_is_down_is_reached(run: Run[None], silent: bool) -> None:
    """The next address is tried, at once or after a quarter of a second."""

    async def scene() -> None:
        async with (
            serving(answers(answer())) as server,
            sending(AddressPolicy.of(["127.0.0.0/8"]), resolver=names("127.0.0.9", "127.0.0.1")) as transport,
        ):
            url = server.url_at("two.test")
            with ExitStack() as stack:
                if silent:  # whose backlog is full: what more comes gets no answer
                    full = stack.enter_context(socket.socket())
                    full.bind(("127.0.0.9", urlsplit(url).port or 0))
                    full.listen(0)
                    for _ in range(2):
                        waits = stack.enter_context(socket.socket())
                        waits.setblocking(False)
                        waits.connect_ex(full.getsockname())
                assert (await post(transport, url)).status == 200
            assert server.accepted == 1

    run(scene())


# ---- names


def test_a_name_that_does_not_exist_is_told_apart(run: Run[str]) -> None:
    """A look-up that fails is `dns`."""

    async def look_up(_: str) -> list[str]:
        raise OSError(None, "Domain name not found")

    async def scene() -> str:
        async with sending(resolver=Names(look_up)) as transport:
            return await word_of(tried(transport, "http://nosuch.test/"))

    assert run(scene()) == "dns"


def test_a_look_up_counts_in_the_deadline(run: Run[str]) -> None:
    """A resolver that never answers is `timeout` at the attempt's own deadline."""

    async def look_up(_: str) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async def scene() -> str:
        async with sending(seconds=SHORT, resolver=Names(look_up)) as transport:
            return await word_of(tried(transport, "http://slow.test/"))

    assert run(scene()) == "timeout"


def test_a_hanging_name_holds_up_no_other(run: Run[None]) -> None:
    """While one name's look-up hangs, another's callbacks go out."""

    async def scene() -> None:
        asked = asyncio.Event()

        async def look_up(host: str) -> list[str]:
            if host == "slow.test":
                asked.set()
                await asyncio.Event().wait()
            return ["127.0.0.1"]

        async with serving(answers(answer())) as server, sending(resolver=Names(look_up)) as transport:
            slow = asyncio.create_task(post(transport, "http://slow.test/"))
            await asyncio.wait_for(asked.wait(), 20)
            assert (await post(transport, server.url_at("quick.test"))).status == 200
            assert not slow.done()
            slow.cancel()
            await asyncio.wait([slow])

    run(scene())


# ---- TLS


class Certificates:
    """A private authority and what it, or nobody, vouches for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Private CA")])
        self._authority = folder / "authority.pem"
        self._authority.write_bytes(self._sign(self._name, self._key, self._key, days=30, authority=True))

    def client(self) -> ssl.SSLContext:
        """Trusts the private authority, and checks names as ever."""
        return ssl.create_default_context(cafile=self._authority)

    def server(
        self, host: str, *, days: int = 30, self_signed: bool = False, asks: bool = False
    ) -> ssl.SSLContext:
        """A server's side with a certificate for a name or an address, valid for some days (from a year ago).

        One that `asks` wants a certificate of its client.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        chain = self._folder / f"{host}-{days}-{self_signed}.pem"
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        chain.write_bytes(secret + self._sign(name, key, key if self_signed else self._key, days=days))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        if asks:
            context.load_verify_locations(self._authority)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        signer: ec.EllipticCurvePrivateKey,
        *,
        days: int,
        authority: bool = False,
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        host = name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name if signer is key else self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=365))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([_general_name(str(host))]), critical=False)
            .sign(signer, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.replace(" ", "-"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One authority for all tests."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_https_verifies_the_name_while_the_resolver_picks_the_address(
    run: Run[None], certificates: Certificates
) -> None:
    """SNI, Host and the certificate's check all use the URL's name, wherever it resolves to."""
    asked: list[str | None] = []
    tls = certificates.server("receiver.test")
    tls.sni_callback = lambda _, name, __: asked.append(name)

    async def scene() -> None:
        resolver = names("127.0.0.1")
        async with (
            serving(answers(answer(), answer()), tls=tls) as server,
            sending(resolver=resolver, tls=certificates.client()) as transport,
        ):
            url = server.url_at("receiver.test")
            assert [(await post(transport, url)).status for _ in range(2)] == [200, 200]
            assert (asked, resolver.asked, server.accepted) == (["receiver.test"], ["receiver.test"], 1)
            assert server.received[0].values("host") == [f"receiver.test:{server.port}"]

    run(scene())


def test_https_to_an_address_verifies_the_address(run: Run[None], certificates: Certificates) -> None:
    """A certificate for an IP address serves a URL with that address."""

    async def scene() -> None:
        tls = certificates.server("127.0.0.1")
        async with (
            serving(answers(answer()), tls=tls) as server,
            sending(tls=certificates.client()) as transport,
        ):
            assert (await post(transport, server.url)).status == 200

    run(scene())


@pytest.mark.parametrize(
    ("word", "host", "options"),
    [
        ("tls_name", "other.test", {}),
        ("tls_name", "127.0.0.1", {}),
        ("tls_untrusted", "receiver.test", {"self_signed": True}),
        ("tls_expired", "receiver.test", {"days": -1}),
    ],
    ids=["another name", "an address", "self-signed", "expired"],
)
def test_a_bad_certificate_is_told_apart(
    run: Run[None], certificates: Certificates, word: str, host: str, options: dict[str, Any]
) -> None:
    """A certificate for somebody else, by nobody or of yesterday has a word each; nothing is sent."""

    async def scene() -> None:
        async with (
            serving(answers(answer()), tls=certificates.server(host, **options)) as server,
            sending(resolver=names("127.0.0.1"), tls=certificates.client()) as transport,
        ):
            assert await word_of(tried(transport, server.url_at("receiver.test"))) == word
            assert server.received == []

    run(scene())


def test_by_default_only_public_authorities_are_trusted(run: Run[None], certificates: Certificates) -> None:
    """Without a context of one's own a private authority's certificate is `tls_untrusted`."""

    async def scene() -> None:
        async with serving(answers(answer()), tls=certificates.server("127.0.0.1")) as server:
            async with sending(tls=None) as transport:
                assert await word_of(tried(transport, server.url)) == "tls_untrusted"
            assert server.received == []

    run(scene())


@pytest.mark.parametrize(
    "content",
    [answer(400), b"\x15\x03\x01\x00\x02\x02\x46", b"\x15\x03\x03\x00\x02\x02\x28"],
    ids=["plain text", "alert: protocol version", "alert: handshake failure"],
)
def test_a_failed_handshake_is_told_apart(run: Run[None], content: bytes) -> None:
    """A server that speaks no TLS, or none that we accept, is `tls_handshake`; the request is not sent."""

    async def declines(connection: Connection) -> None:
        await connection.send(content)
        await connection.gone()

    async def scene() -> None:
        async with serving(declines) as server, sending() as transport:
            url = server.url.replace("http:", "https:")
            assert await word_of(tried(transport, url)) == "tls_handshake"

    run(scene())


@contextmanager
def handshaking(tls: ssl.SSLContext, seen: list[str] | None = None) -> Iterator[int]:
    """The port of a server that does one handshake, with its alerts, and then waits until the client has closed.

    Why the handshake failed it adds to `seen`. Python's own blocking server: asyncio's closes without having sent its
    alert.
    """

    def serve() -> None:
        peer, _ = listener.accept()
        with peer.dup() as kept:  # a failed handshake closes its own
            try:
                tls.wrap_socket(peer, server_side=True)
            except OSError as error:
                if seen is not None:
                    seen.append(str(error))
            with suppress(ConnectionError):
                while kept.recv(65536):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        yield listener.getsockname()[1]
        server.join(20)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_a_server_that_wants_our_certificate_has_failed_the_handshake(
    run: Run[None], certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """Its alert is `tls_handshake` with TLS 1.3 too, where it comes after our side of the handshake (RFC 8446 §4.4.2.4)."""
    tls = certificates.server("receiver.test", asks=True)
    tls.minimum_version = tls.maximum_version = version

    async def scene(port: int) -> None:
        async with sending(resolver=names("127.0.0.1"), tls=certificates.client()) as transport:
            found = await tried(transport, f"https://receiver.test:{port}/hook")
            assert isinstance(found, NoAnswer)
            assert (found.word, "alert" in found.text) == ("tls_handshake", True)

    with handshaking(tls) as port:
        run(scene(port))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_a_server_whose_certificate_we_refuse_is_told(
    run: Run[None], certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """It gets the alert that says why, for its operator's log (RFC 8446 §6.2)."""
    tls = certificates.server("receiver.test", self_signed=True)
    tls.minimum_version = tls.maximum_version = version
    seen: list[str] = []

    async def scene(port: int) -> None:
        async with sending(resolver=names("127.0.0.1"), tls=certificates.client()) as transport:
            assert "tls_untrusted" == await word_of(tried(transport, f"https://receiver.test:{port}/hook"))

    with handshaking(tls, seen) as port:
        run(scene(port))
    assert "unknown ca" in seen[0]


ALERT = ssl.SSLError(1, "[SSL: TLSV1_ALERT_ACCESS_DENIED] tlsv1 alert access denied (_ssl.c:2580)")
NO_ALERT = ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC] bad record mac (_ssl.c:2580)")


@pytest.mark.parametrize(
    ("heard", "error", "word"),
    [
        (b"", ALERT, "tls_handshake"),
        (b"", NO_ALERT, "maybe_received"),
        (b"", ConnectionResetError(), "maybe_received"),
        (b"", None, "maybe_received"),
        (HEAD, ALERT, "maybe_received"),
    ],
)
def test_an_alert_is_of_the_handshake_only_before_all_else(
    run: Run[str], heard: bytes, error: Exception | None, word: str
) -> None:
    """An alert is the first that is heard of a server that refused us; any later end may have followed the request."""

    async def scene() -> str:
        async with serving(hangs) as server:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(ClientConnection, "127.0.0.1", server.port)
            asked = asyncio.create_task(connection.ask(b"POST / HTTP/1.1\r\n\r\n"))
            await asyncio.sleep(0)
            if heard:
                connection.data_received(heard)
            connection.connection_lost(error)
            return await word_of(asked)

    assert run(scene()) == word


def test_a_handshake_that_hangs_counts_in_the_deadline(run: Run[None]) -> None:
    """A server that accepts and then says nothing to a handshake is `timeout`."""

    async def scene() -> None:
        async with serving(hangs) as server, sending(seconds=SHORT) as transport:
            assert await word_of(tried(transport, server.url.replace("http:", "https:"))) == "timeout"

    run(scene())


# ---- the request on the wire


def test_the_request_is_what_it_was_made_of(run: Run[None]) -> None:
    """Headers arrive once each, nothing is added to them, and the body arrives byte for byte."""

    async def scene() -> None:
        async with serving(answers(answer())) as server, sending() as transport:
            body = bytes(range(256)) * 1000
            await post(transport, server.url, body)
            [received] = server.received
            assert received.line == "POST /hook HTTP/1.1"
            assert sorted((name.lower(), value) for name, value in received.headers) == [
                ("content-length", str(len(body))),
                ("content-type", "application/json"),
                ("host", f"127.0.0.1:{server.port}"),
            ]
            assert received.body == body

    run(scene())


@pytest.mark.parametrize(
    ("target", "arrives"),
    [
        ("", "/"),
        ("/", "/"),
        ("?a=1", "/?a=1"),
        ("/a%2Fb%20c", "/a%2Fb%20c"),
        ("/a%2fb%C3%A9%41", "/a%2fb%C3%A9%41"),
        ("/a//b/", "/a//b/"),
        ("/a;v=1,2!$&'()*+:@~-._=", "/a;v=1,2!$&'()*+:@~-._="),
        ("/h?q=%2F%20+%2B&r=%26&s='x'", "/h?q=%2F%20+%2B&r=%26&s='x'"),
        ("/h?next=https://x.test/?y=[z]", "/h?next=https://x.test/?y=[z]"),
        ("/h?token=%zz%", "/h?token=%zz%"),
        ("/h?a=1&a=2&b", "/h?a=1&a=2&b"),
    ],
)
def test_path_and_query_arrive_as_they_were_given(run: Run[None], target: str, arrives: str) -> None:
    """No escape is undone, added or changed in its case; an empty path is the root."""

    async def scene() -> None:
        async with serving(answers(answer())) as server, sending() as transport:
            await post(transport, server.url_at("127.0.0.1", target))
            assert server.received[0].target == arrives

    run(scene())


@pytest.mark.parametrize("host", ["bücher.test", "BÜCHER.test", "ｂüｃｈｅｒ。test", "xn--bcher-kva.test"])
def test_an_international_name_goes_out_in_ascii(run: Run[None], host: str) -> None:
    """A name that was accepted is looked up, and sent as Host, in its IDNA form, however it was written."""

    async def scene() -> None:
        resolver = names("127.0.0.1")
        async with serving(answers(answer())) as server, sending(resolver=resolver) as transport:
            await post(transport, parse_callback_url(server.url_at(host), allow_http=True).url)
            assert resolver.asked == ["xn--bcher-kva.test"]
            assert server.received[0].values("host") == [f"xn--bcher-kva.test:{server.port}"]

    run(scene())
