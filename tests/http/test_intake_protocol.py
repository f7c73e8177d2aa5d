"""Plain posts past the application: whatever is sent, the answer and the queue are those of the application."""

import asyncio
import gzip
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from dispatcher.api.plain_post import PlainHead, plain_head
from dispatcher.model import StatusChange
from dispatcher.store import producer_keys
from dispatcher.store.api_keys import PRODUCERS, ApiKeys
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys
from dispatcher.store.sealing import SecretBox
from dispatcher.store.wire import Wire
from dispatcher.store.workspaces import Workspaces
from tasks.api_protocol import BoundedProtocol
from tasks.redis_server import RedisServer
from tests.http.served_api import Answered, Served, answer_on, served
from tests.messages import change

MAX_QUEUED = 20
LINE = b"POST /v1/status-changes HTTP/1.1\r\n"
HOST = b"Host: api\r\n"
NOW_MS = round(time.time() * 1000)


class Made:
    """Keys and workspaces in a Redis."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys = Keys()
        self.client = redis.Redis.from_url(url)
        self.client.flushall()
        asyncio.run(self._fill())

    async def _fill(self) -> None:
        client = connect_async(self.url)
        await Workspaces(client, self.keys, SecretBox()).add("acme", "zeckta", "https://a.example/", now_ms=1)
        await client.aclose()
        self.producer = await self.add_key(PRODUCERS, PRODUCERS, 5000)
        self.slow = await self.add_key(PRODUCERS, PRODUCERS, 7)
        self.customer = await self.add_key("acme", "zeckta", 5000)

    async def add_key(self, workspace: str, platform: str, rate: int) -> bytes:
        """A new key's text."""
        client = connect_async(self.url)
        wire = Wire(client)
        keys = ApiKeys(wire.call, self.keys, self.url)
        _, text = await keys.add(workspace, platform, "test", now_ms=1, rate_per_second=rate)
        await wire.close()
        await client.aclose()
        return text.encode()

    def fields(self, **other: bytes) -> bytes:
        """Headers without Content-Length."""
        named = {"authorization": b"Bearer " + self.producer, "content_type": b"application/json"} | other
        lines = [name.title().replace("_", "-").encode() + b": " + value for name, value in named.items()]
        return HOST + b"".join(line + b"\r\n" for line in lines if not line.endswith(b": none"))

    def post(self, body: bytes | None = None, **other: bytes) -> bytes:
        """A plain post."""
        body = raw() if body is None else body
        return LINE + self.fields(**other) + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def take(self) -> tuple[list[bytes], int]:
        """What is on the queue, which is emptied, and how many calls were counted against a rate."""
        entries: Any = self.client.xrange(self.keys.events)
        counters: Any = self.client.keys(f"{self.keys.api_rate('*', 0)[:-1]}*")
        calls = sum(int(count or 0) for count in self.client.mget(counters)) if counters else 0  # type: ignore[union-attr]
        self.client.delete(self.keys.events, *counters)
        return [fields[b"event"] for _, fields in entries], calls


def raw(**named: Any) -> bytes:
    """A status change, as JSON."""
    return change(at_ms=NOW_MS, event_id=named.pop("event_id", "e-1"), **named).to_json()


def altered(**named: Any) -> bytes:
    """A status change with some fields replaced, as JSON; None leaves one out."""
    return json.dumps({n: v for n, v in (json.loads(raw()) | named).items() if v is not None}).encode()


@pytest.fixture(scope="module")
def made(redis_server: RedisServer) -> Made:
    """Keys and workspaces."""
    return Made(redis_server.url)


@pytest.fixture(scope="module")
def short(made: Made) -> Iterator[Served]:
    """The API, which takes plain posts past the application."""
    with served(made.url, seconds=2, api_max_queued=MAX_QUEUED) as api:
        assert 202 == api.ask(made.post()).status  # the key is known from now on
        yield api


@pytest.fixture(scope="module")
def full(made: Made) -> Iterator[Served]:
    """The API, where all requests go to the application."""
    with served(made.url, BoundedProtocol, seconds=2, api_max_queued=MAX_QUEUED) as api:
        yield api


LONG = raw(reference={"x": "y" * 60_000})
PLAIN: dict[str, Callable[[Made], bytes | tuple[bytes, ...]]] = {
    "as most": lambda made: made.post(),
    "without an eventId": lambda made: made.post(altered(eventId=None)),
    "without a type": lambda made: made.post(content_type=b"none"),
    "a type with charset": lambda made: made.post(content_type=b"Application/JSON; charset=UTF-8"),
    "keep-alive": lambda made: made.post(connection=b"Keep-Alive"),
    "no blank before a value": lambda made: made.post().replace(b": ", b":", 4),
    "blanks around a value": lambda made: made.post().replace(b"Host: api", b"hOSt: \t api \t"),
    "an empty header": lambda made: made.post(x_empty=b""),
    "many headers": lambda made: made.post(**{f"x_{n}": b"y" * 50 for n in range(80)}),
    "blanks in the JSON": lambda made: made.post(b"{ \n\t" + raw()[1:] + b"\r\n "),
    "escapes": lambda made: made.post(
        altered(message=json.loads(raw())["message"] | {"src": "\u00fc\u2028"})
    ),
    "every digit": lambda made: made.post(raw(cost="0.100000000001")),
    "a URL of its own": lambda made: made.post(altered(callbackUrl="https://b.example/x?y=z")),
    "60 kB": lambda made: made.post(LONG),
    "in pieces": lambda made: (made.post()[:-100], made.post()[-100:-1], made.post()[-1:]),
    "head, then body": lambda made: tuple(
        part + end for part, end in zip(made.post().split(b"\r\n\r\n"), (b"\r\n\r\n", b""), strict=True)
    ),
    "60 kB in pieces": lambda made: tuple(made.post(LONG)[n : n + 9000] for n in range(0, 61_000, 9000)),
}


@pytest.mark.parametrize("case", PLAIN)
def test_plain_posts(made: Made, short: Served, full: Served, case: str) -> None:
    """A plain post does not reach the application, and is answered and enqueued as if it did."""
    request = PLAIN[case](made)
    same(made, short, full, request if isinstance(request, tuple) else (request,), reaches=0)


@pytest.mark.parametrize("body", [raw(), altered(eventId=None), raw(cost="0.10"), b"{ \n" + raw()[1:]])
def test_what_is_enqueued(made: Made, short: Served, full: Served, body: bytes) -> None:
    """The queue gets what was sent and nothing else: a worker reads it as the API did."""
    for api in (short, full):
        made.take()
        assert 202 == api.ask(made.post(b" " + body + b"\r\n")).status
        assert [body] == made.take()[0]
        assert 202 == api.ask(made.post(b"[" + body + b" ,\n" + raw(event_id="e-2") + b"]")).status
        assert [body, raw(event_id="e-2")] == made.take()[0]


def test_heads_of_one_connection(
    made: Made, short: Served, full: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that came before on its connection is not read again, and one that differs in a byte is another."""
    monkeypatch.setattr(producer_keys, "KEPT_SECONDS", 3600)
    key, new_key = (b"Bearer " + asyncio.run(made.add_key(PRODUCERS, PRODUCERS, 4000)) for _ in range(2))
    assert 202 == short.ask(made.post(authorization=key)).status  # it is known from now on
    read = []

    def post(event_id: str, blanks: int = 0) -> bytes:
        return made.post(raw(event_id=event_id) + b" " * blanks, authorization=key)

    def noted(data: bytes) -> PlainHead | None:
        read.append(data)
        return plain_head(data)

    monkeypatch.setattr("tasks.intake_protocol.plain_head", noted)
    plain, longer = [post(f"e-{n}") for n in (1, 2)], [post(f"e-{n}") for n in (10, 11)]
    longest = [post(f"e-{n}", 1000) for n in (3, 4)]  # its length has a digit more
    new = [made.post(authorization=new_key)] * 2
    wrong = [made.post(authorization=b"Bearer key_0123456789ab." + b"a" * 43)] * 2
    end = b"\r\n\r\n"
    goes_on = [post("e-5").replace(end, b"\r\nContent-Encoding: identity" + end, 1)]
    requests = [*plain, *longer, *plain, *longest, *plain, *goes_on, *plain, *new, *wrong, *plain]
    outcomes, reached = [], []
    for api in (full, short):
        made.take()
        before = api.app.requests
        with api.connect() as connection:
            answers = []
            for one in requests:
                api.send(connection, *((one[:-9], one[-9:]) if one in plain else (one,)))
                answers.append(answer_on(connection))
        outcomes.append(([(one.status, one.body, without_time(one)) for one in answers], made.take()))
        reached.append(api.app.requests - before)
    assert outcomes[0] == outcomes[1]
    assert {202, 401} == {status for status, *_ in outcomes[1][0]}
    assert [len(requests), len(goes_on + wrong)] == reached
    assert 11 == len(read), (
        "at each change; twice with a key that is not known yet, and with one that is wrong"
    )


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


MESSAGE = json.loads(raw())["message"]
OTHER_BODIES: dict[str, bytes] = {
    "nothing": b"",
    "not JSON": b"{",
    "text behind it": raw() + b"x",
    "two": raw() + raw(),
    "an array": b"[" + raw() + b"]",
    "an array behind blanks": b" \n[" + raw() + b"," + raw(event_id="e-2") + b"]",
    "an empty array": b"[]",
    "a number": b"1",
    "text": b'"x"',
    "BOM": b"\xef\xbb\xbf" + raw(),
    "UTF-16": raw().decode().encode("utf-16"),
    "UTF-16 without BOM": raw().decode().encode("utf-16-le"),
    "UTF-32": raw().decode().encode("utf-32"),
    "gzip": gzip.compress(raw()),
    "not UTF-8": raw().replace(b"ACME", b"\xff"),
    "lone surrogate": raw().replace(b"ACME", rb"\ud800"),
    "too large a number": raw().replace(b'"message":{', b'"message":{"cost":1e99999999999999999999,'),
    "a large number": raw().replace(b'"message":{', b'"message":{"cost":1E400,'),
    "NaN": raw().replace(b'"message":{', b'"message":{"cost":NaN,'),
    "deep": raw().replace(b'"message":{', b'"message":{"provider":{"x":' + b"[" * 40 + b"]" * 40 + b"},"),
    "too deep": b"[" * 9000 + b"]" * 9000,
    "no message": altered(message=None),
    "an unknown field": altered(colour="red"),
    "an unknown status": altered(status="LOST"),
    "a number for text": altered(message=MESSAGE | {"src": 1}),
    "an unknown workspace": altered(workspace="nobody"),
    "ahead": altered(timestamp="2999-01-01T00:00:00Z"),
    "no time": altered(timestamp="yesterday"),
    "a URL that is not allowed": altered(callbackUrl="http://b.example/"),
    "an eventId that is not allowed": altered(eventId='"'),
    "too long for an entry": LONG.replace(b"yyy", b"yyyy"),
    "64 kB of blanks": raw() + b" " * 65_536,
}
OTHERS: dict[str, Callable[[Made], bytes]] = {
    "no key": lambda made: made.post(authorization=b"none"),
    "an empty key": lambda made: made.post(authorization=b"Bearer "),
    "a wrong secret": lambda made: made.post(authorization=b"Bearer " + made.producer[:-1] + b"!"),
    "an unknown key": lambda made: made.post(authorization=b"Bearer key_0123456789ab." + b"a" * 43),
    "a customer's key": lambda made: made.post(authorization=b"Bearer " + made.customer),
    "a key in lower case": lambda made: made.post(authorization=b"bearer " + made.producer),
    "two blanks": lambda made: made.post(authorization=b"Bearer  " + made.producer),
    "Basic": lambda made: made.post(authorization=b"Basic " + made.producer),
    "two keys": lambda made: made.post(authorization=b"Bearer x\r\nAuthorization: Bearer " + made.producer),
    "two keys, the other way": lambda made: made.post(x=b"y\r\nAuthorization: Bearer x"),
    "two types": lambda made: made.post(x=b"y\r\nContent-Type: text/plain; charset=latin-1"),
    "another charset": lambda made: made.post(content_type=b"application/json; charset=utf-16"),
    "another type": lambda made: made.post(content_type=b"text/plain"),
    "compressed": lambda made: made.post(gzip.compress(raw()), content_encoding=b"gzip"),
    "identity": lambda made: made.post(content_encoding=b"identity"),
    "close": lambda made: made.post(connection=b"close"),
    "upgrade": lambda made: made.post(connection=b"upgrade", upgrade=b"h2c"),
    "no host": lambda made: made.post().replace(HOST, b""),
    "two hosts": lambda made: made.post(x=b"y\r\nHost: other"),
    "HTTP/1.0": lambda made: made.post().replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "GET": lambda made: made.post().replace(b"POST", b"GET", 1),
    "another path": lambda made: made.post().replace(b"changes", b"change", 1),
    "a slash": lambda made: made.post().replace(b"changes ", b"changes/ ", 1),
    "a query": lambda made: made.post().replace(b"changes ", b"changes?x=y ", 1),
    "an escape": lambda made: made.post().replace(b"status-changes ", b"status%2Dchanges ", 1),
    "a whole URL": lambda made: made.post().replace(b"/v1", b"http://api/v1", 1),
    "another case": lambda made: made.post().replace(b"POST", b"post", 1),
    "a line that goes on": lambda made: made.post(x=b"y\r\n z"),
    "a blank before the colon": lambda made: made.post().replace(b"Host:", b"Host :"),
    "a name with a blank": lambda made: made.post(x=b"y\r\nA b: c"),
    "no name": lambda made: made.post(x=b"y\r\n: c"),
    "no colon": lambda made: made.post(x=b"y\r\nabc"),
    "a bare line end": lambda made: made.post(x=b"y\nz: a"),
    "only line feeds": lambda made: made.post().replace(b"\r\n", b"\n"),
    "a zero": lambda made: made.post(x=b"a\0b"),
    "a letter that is not ASCII": lambda made: made.post(x="ü".encode("latin-1")),
    "a long head": lambda made: made.post(x=b"y" * 10_000),
    "a head without end": lambda made: LINE + made.fields(x=b"y" * 100_000),
    "no length": lambda made: made.post().replace(b"Content-Length", b"X-Length"),
    "two lengths": lambda made: made.post(content_length=b"%d" % len(raw())),
    "two different lengths": lambda made: made.post(content_length=b"1"),
    "a list of lengths": lambda made: made.post(raw()).replace(b"Length: ", b"Length: %d, " % len(raw())),
    "a length with a sign": lambda made: made.post().replace(b"Length: ", b"Length: +"),
    "a length below zero": lambda made: made.post().replace(b"Length: ", b"Length: -"),
    "a length with zeros": lambda made: made.post().replace(b"Length: ", b"Length: 000"),
    "an announced 9 MB": lambda made: made.post().replace(b"Length: ", b"Length: 9000"),
    "a length that is too short": lambda made: made.post().replace(b"Length: %d" % len(raw()), b"Length: 9"),
    "a body that does not come": lambda made: made.post(authorization=b"Bearer " + made.customer)[:-5],
    "half a head": lambda made: made.post()[:60],
    "chunks": lambda made: LINE + made.fields(transfer_encoding=b"chunked") + b"\r\n" + chunked(raw()),
    "chunks and a length": lambda made: made.post(chunked(raw()), transfer_encoding=b"chunked"),
    "another transfer coding": lambda made: made.post(transfer_encoding=b"gzip"),
    "Expect": lambda made: made.post(b"", expect=b"100-continue"),
    "another expectation": lambda made: made.post(expect=b"more"),
    "TE": lambda made: made.post(te=b"trailers"),
    **{f"body: {name}": lambda made, body=body: made.post(body) for name, body in OTHER_BODIES.items()},  # type: ignore[misc]
}


@pytest.mark.parametrize("case", OTHERS)
def test_everything_else(made: Made, short: Served, full: Served, case: str) -> None:
    """What is not a plain post of one good status change is answered and enqueued as by the application alone."""
    same(made, short, full, (OTHERS[case](made),))


def same(
    made: Made, short: Served, full: Served, parts: tuple[bytes, ...], *, reaches: int | None = None
) -> Answered:
    """Sends a request both ways, and compares answers, queue and refusals; returns the answer."""
    outcomes = []
    for api in (full, short):
        made.take()
        requests = api.app.requests
        answer = api.ask(*parts)
        came = api.app.requests - requests
        outcomes.append((answer.status, without_time(answer), answer.body, made.take()))
    assert outcomes[0] == outcomes[1]
    assert reaches in (None, came)
    return answer


def without_time(answer: Answered) -> list[tuple[str, str]]:
    """The headers that are the same in any second."""
    names = ("date", "x-ratelimit-reset", "x-ratelimit-remaining")
    return [(name, value if name not in names else "") for name, value in answer.headers]


def test_a_length_beside_chunks(made: Made, short: Served, full: Served) -> None:
    """A proxy may believe the one and we the other, so what follows might be anybody's request (RFC 9112 §6.1)."""
    answer = same(made, short, full, (OTHERS["chunks and a length"](made),), reaches=0)
    assert (400, "close") == (answer.status, answer.header("connection"))


def test_a_rate(made: Made, short: Served, full: Served) -> None:
    """A key that is over its rate is refused as by the application, and each call counts once."""
    answers = []
    for api in (full, short):
        several = in_one_second(
            made, lambda api=api: api.ask(made.post(authorization=b"Bearer " + made.slow)), 9
        )  # type: ignore[misc]
        answers.append([(one.status, one.body, without_time(one)) for one in several])
        assert [str(max(0, 6 - n)) for n in range(9)] == [
            one.header("x-ratelimit-remaining") for one in several
        ]
        assert 7 == len(made.take()[0])
    assert answers[0] == answers[1]
    assert [202] * 7 + [429] * 2 == [status for status, *_ in answers[1]]


def in_one_second(made: Made, call: Callable[[], Answered], count: int) -> list[Answered]:
    """The answers of some calls of one second, once they do not lie in two."""
    while True:
        made.take()
        second = int(time.time())
        answers = [call() for _ in range(count)]
        if int(time.time()) == second:
            return answers


def test_a_key_that_is_revoked(made: Made, short: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revoked key enqueues for seconds more, past the application, and is then refused by it."""
    text = asyncio.run(made.add_key(PRODUCERS, PRODUCERS, 5000))
    post = made.post(authorization=b"Bearer " + text)
    monkeypatch.setattr(producer_keys, "KEPT_SECONDS", 1.0)
    assert 202 == short.ask(post).status
    made.client.delete(made.keys.api_key(text.decode().partition(".")[0]))
    requests, statuses = short.app.requests, []
    while 401 not in statuses:
        made.take()
        statuses.append(short.ask(post).status)
    assert (202, {202, 401}) == (statuses[0], set(statuses))
    assert requests + 1 == short.app.requests


def test_a_queue_that_is_long(made: Made, short: Served, full: Served) -> None:
    """While too much is on the queue a plain post is refused as by the application."""
    refused = []
    for api in (full, short):
        made.take()
        for n in range(MAX_QUEUED + 1):
            made.client.xadd(made.keys.events, {"event": str(n)})
        answer = api.ask(made.post())
        refused.append((answer.status, answer.body, without_time(answer)))
        entries, calls = made.take()
        assert (MAX_QUEUED + 1, 1) == (len(entries), calls)
    assert refused[0] == refused[1]
    assert (503, True) == (refused[1][0], b"20 status changes are on the queue" in refused[1][1])


def test_a_redis_that_is_full(made: Made, short: Served, full: Served) -> None:
    """While Redis is full, a good and a bad post are answered as by the application."""
    made.client.config_set("maxmemory", 1)
    try:
        for body, status in ((raw(), 503), (b"{}", 422)):
            answers = [api.ask(made.post(body)) for api in (full, short)]
            assert [status] * 2 == [one.status for one in answers]
            assert answers[0].body == answers[1].body
            assert without_time(answers[0]) == without_time(answers[1])
    finally:
        made.client.config_set("maxmemory", 0)


def test_a_redis_that_does_not_answer(server_program: None, tmp_path: Path) -> None:
    """If Redis hangs or is gone, every call that waits for it gets a 503, those behind it too; later ones are taken again."""
    with RedisServer(tmp_path) as server:
        made = Made(server.url)
        with served(made.url, seconds=30) as api, ExitStack() as open_:
            assert 202 == api.ask(made.post()).status
            assert server._process
            server._process.send_signal(signal.SIGSTOP)
            try:
                connections = [open_.enter_context(api.connect(made.post())) for _ in range(3)]
                api.wait_for(lambda: api.is_with_intake(3))
                connections += [open_.enter_context(api.connect(made.post())) for _ in range(100)]
                answers = [answer_on(one) for one in connections]
            finally:
                server._process.send_signal(signal.SIGCONT)
            assert {503} == {one.status for one in answers}
            assert {"5"} == {one.header("retry-after") for one in answers}
            assert {b'{"error":"not available now, try again"}'} == {one.body for one in answers}
            assert [202] * 103 == [one.status for one in again(made, connections)]
            server.kill()
            assert {503} == {one.status for one in again(made, connections)}
            assert 0 == api.app.requests


def again(made: Made, connections: list[socket.socket]) -> list[Answered]:
    """One more plain post on each connection."""
    for one in connections:
        one.sendall(made.post())
    return [answer_on(one) for one in connections]


def test_many_at_once(made: Made, short: Served) -> None:
    """What comes on many connections at the same time is answered once it is on the queue, all of it, each with its own id."""
    made.take()
    short.app.requests = 0
    connections = [short.connect() for _ in range(20)]
    for number, one in enumerate(connections):
        one.sendall(made.post(raw(event_id=f"many-{number}")))
    answers = [json.loads(answer_on(one).body)["results"] for one in connections]
    assert [[{"eventId": f"many-{n}", "result": "queued"}] for n in range(20)] == answers
    entries = [StatusChange.from_json(one).event_id for one in made.take()[0]]
    assert {f"many-{n}" for n in range(20)} == set(entries)
    assert (0, 20) == (short.app.requests, len(entries))
    for one in connections:
        one.close()
