"""Whatever comes in is used or refused in words, and nothing else happens. `make fuzz` looks for ten minutes."""

import asyncio
import contextlib
import os
from typing import Any
from unittest.mock import Mock

import httpx
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dispatcher.errors import InvalidInput
from dispatcher.model import Status, StatusChange, encode_json
from dispatcher.rules.addresses import AddressPolicy, parse_callback_url
from dispatcher.rules.callback import Callback
from dispatcher.rules.render import RenderOptions, render
from dispatcher.rules.subscription import Secret
from dispatcher.rules.workspace import Workspace
from dispatcher.rules.workspace_headers import check_headers, parse_headers
from dispatcher.sending.answer import Answer
from dispatcher.sending.failures import NoAnswer
from dispatcher.sending.http_connection import Connection
from dispatcher.sending.sender import parse_retry_after
from dispatcher.sending.target import Target, read_target
from dispatcher.signing import webhook_headers
from tests.unit.test_fast_decode import alike

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

NOW_MS = 1_790_000_000_000
SECRET = Secret("whsec_" + "a" * 32, 0)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(list(Status)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
VALID: dict[str, Any] = {
    "eventId": "e1",
    "workspace": "acme",
    "status": "DELIVERED",
    "timestamp": "2026-06-09T13:04:57.487133482Z",
    "callbackUrl": "https://a.example/hooks",
    "ttlSeconds": 60,
    "error": {"code": "E004", "message": "Message expired"},
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "congo=t61rcWkgMzE",
}
MESSAGE: dict[str, Any] = {
    "uuid": "m1",
    "src": "ACME",
    "dest": "+233200000001",
    "segments": 1,
    "cost": 0.05,
    "part": 1,
    "reference": {"a": 1},
    "provider": {"b": [1]},
}
FIELDS = st.sampled_from([*VALID, "message", "unknown"])
MESSAGE_FIELDS = st.sampled_from([*MESSAGE, "currency", "acceptedAt", "unknown"])


def used_or_refused(raw: bytes) -> None:
    """Renders what can be used in every dialect; the only error is ours, and a worker's decoder agrees."""
    try:
        change = alike(raw, StatusChange.from_json)
    except InvalidInput as error:
        refused = str(error)
    else:
        used(change)
        return
    assert refused
    assert refused.isprintable()


def used(change: StatusChange) -> None:
    """It has one digest, and each dialect's callback can be signed."""
    assert change.digest() == StatusChange.from_json(change.to_json()).digest()
    for dialect in ("zeckta", "sendexa"):
        workspace = Workspace("acme", dialect, "https://a.example/hooks", (SECRET,), NOW_MS, "r")
        with contextlib.suppress(InvalidInput):
            callback = render(change, workspace, NOW_MS, RenderOptions())
            if isinstance(callback, Callback):
                head = webhook_headers([SECRET.key], callback.event_id, NOW_MS // 1000, callback.body)
                assert all(value.isascii() and value.isprintable() for value in head.values())


@fuzz
@given(st.binary(max_size=200) | st.text().map(lambda text: text.encode(errors="surrogatepass")))
@example(b"[" * 100_000)
@example(b'{"message":{"cost":1e999999999}}')
@example(b'{"eventId":"\\ud800"}')
def test_bytes(raw: bytes) -> None:
    """Any bytes on the queue."""
    used_or_refused(raw)


@fuzz
@given(JSON)
def test_json(value: Any) -> None:
    """Any JSON on the queue."""
    with contextlib.suppress(ValueError, TypeError):
        used_or_refused(encode_json(value))


@fuzz
@given(
    st.dictionaries(FIELDS, JSON, max_size=2),
    st.dictionaries(MESSAGE_FIELDS, JSON | st.decimals(), max_size=2),
    st.sets(FIELDS, max_size=1),
)
def test_nearly_valid(fields: dict[str, Any], message: dict[str, Any], without: set[str]) -> None:
    """A valid status change with a field or two that are not."""
    change = {**VALID, "message": MESSAGE | message, **fields}
    with contextlib.suppress(ValueError, TypeError):
        used_or_refused(encode_json({name: value for name, value in change.items() if name not in without}))


URLS = (
    st.text()
    | st.from_regex(r"https?://[^ ]{0,40}", fullmatch=True)
    | st.builds(
        "{}://{}:{}/{}?{}".format,
        st.sampled_from(["https", "http", "ftp", "HTTPS"]),
        st.text(max_size=30)
        | st.ip_addresses().map(str)
        | st.from_regex(r"[a-z0-9.-]{1,30}", fullmatch=True),
        st.integers(-1, 70_000) | st.text(max_size=4),
        st.text(max_size=30),
        st.text(max_size=30),
    )
)


@fuzz
@given(URLS)
@example("https://xn--a.example/")
@example("https://[::ffff:127.0.0.1]/")
@example("https://a.example:0/")
def test_urls(text: str) -> None:
    """A callback URL is refused, or the transport can ask what is behind it for its address."""
    try:
        url = parse_callback_url(text, allow_http=True)
    except InvalidInput:
        return

    found = read_target(url.url, AddressPolicy.of(["0.0.0.0/0", "::/0"]), None)
    assert isinstance(found, Target)
    line, host, end = found.start.split(b"\r\n")
    assert line.startswith(b" /")
    assert line.isascii()
    assert (f"Host: {url.authority}".encode(), b"") == (host, end)
    assert (url.host, url.port) == (found.host, found.port)
    assert found == read_target(str(httpx.URL(url.url)), AddressPolicy.of(["0.0.0.0/0", "::/0"]), None)


@fuzz
@given(
    st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=4), st.lists(st.text(), max_size=3)
)
def test_headers(headers: dict[str, str], lines: list[str]) -> None:
    """A workspace's header is refused, or is one line of visible ASCII."""
    for given_headers in (headers, _parsed(lines)):
        with contextlib.suppress(InvalidInput):
            for name, value in check_headers(given_headers, "sendexa").items():
                assert f"{name}: {value}".isascii()
                assert f"{name}: {value}".replace("\t", " ").isprintable()


def _parsed(lines: list[str]) -> dict[str, str]:
    try:
        return parse_headers(lines)
    except InvalidInput:
        return {}


@fuzz
@given(st.text())
def test_retry_after(text: str) -> None:
    """Nonsense is no time."""
    found = parse_retry_after(text, NOW_MS)
    assert found is None or found >= 0


ANSWERS = st.lists(
    st.binary(max_size=60)
    | st.sampled_from(
        [
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 503 Busy\r\n",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"\r\n",
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"hello",
        ]
    ),
    max_size=8,
)


@fuzz
@given(ANSWERS, st.booleans())
def test_answers(pieces: list[bytes], closed: bool) -> None:
    """Whatever a server sends is an answer with a status, or none with a word."""

    async def ask() -> None:
        connection = Connection()
        connection.connection_made(Mock(spec=asyncio.Transport))
        task = asyncio.create_task(connection.ask(b"POST / HTTP/1.1\r\n\r\n"))
        await asyncio.sleep(0)
        for piece in pieces:
            connection.data_received(piece)
        if closed or not task.done():
            connection.connection_lost(None)
        [found] = await asyncio.gather(task, return_exceptions=True)
        if isinstance(found, Answer):
            assert 100 <= found.status <= 999
        else:
            assert isinstance(found, NoAnswer)
            assert found.word in ("protocol", "maybe_received")

    asyncio.run(ask())
