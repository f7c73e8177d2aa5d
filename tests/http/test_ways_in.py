"""A status change is read alike, whichever way it comes: XADD, Dispatcher, POST /v1/status-changes, `dispatcher enqueue`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import redis

from dispatcher import Dispatcher, InvalidInput, StatusChange
from dispatcher.fast_decode import Change
from dispatcher.model import encode_json
from dispatcher.store.queue import QueueEntry
from dispatcher.worker.batch import Rejection
from dispatcher.worker.prepare import _read
from tasks.redis_server import RedisServer
from tests.http.api import Api

CASES: dict[str, tuple[bytes, str]] = {
    "large exponent": (b"1E400", "1E+400"),
    "small exponent": (b"1e-400", "1E-400"),
    "largest exponent": (b"1E999999999", "1E+999999999"),
    "negative zero": (b"-0", "0"),
    "negative zero with decimals": (b"-0.0", "-0.0"),
    "zeros at the end": (b"0.10", "0.10"),
    "whole with decimals": (b"1.0", "1.0"),
    "64 bits": (b"18446744073709551615", "18446744073709551615"),
    "more than 64 bits": (b"-92233720368547758080", "-92233720368547758080"),
    "many digits": (b"7" * 4000, "7" * 4000),
    "many decimals": (b"0." + b"3" * 4000, "0." + "3" * 4000),
    "escapes": (rb'"\u00fc\ud83d\ude00\/"', '"ü😀/"'),
    "zero character": (rb'"\u0000"', r'"\u0000"'),
    "a name twice": (b'{"a":1,"a":2}', '{"a":2}'),
    "null": (b"null", "null"),
    "blanks": (b"[ 1 ,\t2 ]", "[1,2]"),
    "too many digits": (b"7" * 5000, "has a number that is too large"),
    "too large an exponent": (b"1e99999999999999999999", "has a number that is too large"),
    "NaN": (b"NaN", "not valid JSON"),
    "Infinity": (b"-Infinity", "not valid JSON"),
    "leading zero": (b"01", "not valid JSON"),
    "plus": (b"+1", "not valid JSON"),
    "no digit after the point": (b"1.", "not valid JSON"),
    "hexadecimal": (b"0x10", "not valid JSON"),
    "comma at the end": (b"[1,]", "not valid JSON"),
    "single quotes": (b"'a'", "not valid JSON"),
    "comment": (b"1/*one*/", "not valid JSON"),
    "lone surrogate": (rb'"\ud800"', "not valid JSON"),
    "not UTF-8": (b'"\xff"', "not valid UTF-8"),
    "deep": (b"[" * 40 + b"]" * 40, "message.provider: is nested too deeply"),
    "too deep to be read": (b"[" * 5000 + b"]" * 5000, "nested too deeply"),
}
"""What stands in `provider`, and how it is written then; or what is wrong with it."""


def line(value: bytes) -> bytes:
    """A status change with some value in it, as text."""
    return (
        b'{"workspace":"acme-zeckta","status":"SENT","timestamp":"2026-06-09T13:00:00Z",'
        b'"message":{"uuid":"m","src":"ACME","dest":"+233202007745","provider":{"x":' + value + b"}}}"
    )


def written(change: Change) -> str:
    """What came of the value, and of its trace."""
    assert change.message.provider
    value = encode_json(change.message.provider["x"]).decode()
    return f"{value} {change.traceparent} {change.tracestate}" if change.traceparent else value


@pytest.fixture(scope="module")
def api(redis_server: RedisServer) -> Iterator[Api]:
    """The HTTP API."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    api = Api(redis_server.url)
    yield api
    api.close()


def by_xadd(_: Api, raw: bytes) -> str:
    """As intake reads it."""
    found = _read(QueueEntry("1-1", [b"event", raw]))
    return found.detail if isinstance(found, Rejection) else written(found)


def by_dispatcher(api: Api, raw: bytes) -> str:
    """As a producer reads it, enqueues it, and intake reads that."""
    try:
        with Dispatcher.from_url(api.url) as dispatcher:
            dispatcher.enqueue(StatusChange.from_json(raw))
    except InvalidInput as error:
        return str(error)
    return from_queue(api)


def by_http(api: Api, raw: bytes) -> str:
    """As a call of its own."""
    headers = {"Authorization": f"Bearer {api.api_keys['producer']}"}
    answer = api.ask("POST", "/v1/status-changes", headers, raw).json()
    return answer.get("error") or answer["results"][0].get("problem") or from_queue(api)


def by_http_in_a_list(api: Api, raw: bytes) -> str:
    """As one of a list."""
    return by_http(api, b"[" + raw + b"]").replace("(byte ", "(byte 1+")


def from_queue(api: Api) -> str:
    """What came of the only entry on the queue, which is taken from there."""
    ((_, fields),) = api.run(api.client.xrange(api.keys.events))
    api.run(api.client.delete(api.keys.events))
    return by_xadd(api, fields[b"event"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", [by_xadd, by_dispatcher, by_http, by_http_in_a_list])
def test_every_way_reads_alike(api: Api, case: str, way: Callable[[Api, bytes], str]) -> None:
    """A value is taken as it came, or refused with the same words, by each way in."""
    value, expected = CASES[case]
    api.run(api.client.delete(api.keys.events))
    got = way(api, line(value))
    assert got.startswith(expected)
    if way is not by_http_in_a_list:
        assert by_xadd(api, line(value)) == got


PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACES: dict[str, tuple[str, str]] = {
    "a trace": (
        f'"traceparent":"{PARENT}","tracestate":"a=b"',
        f"1 {PARENT} a=b",
    ),
    "null": ('"traceparent":null,"tracestate":null', ""),
    "another version": (
        f'"traceparent":"01{PARENT[2:]}"',
        "traceparent: must be 00-trace id-parent id-flags",
    ),
    "zeros": (f'"traceparent":"00-{"0" * 32}{PARENT[35:]}"', "traceparent: must have a trace id"),
    "a state alone": ('"tracestate":"a=b"', "tracestate: needs a traceparent"),
    "two lines": (
        f'"traceparent":"{PARENT}","tracestate":"a=b\\r\\nX: y"',
        "tracestate: must be 1 to 512 printable",
    ),
}
"""What stands behind the message, and what comes of it."""


@pytest.mark.parametrize("case", TRACES)
@pytest.mark.parametrize("way", [by_xadd, by_dispatcher, by_http, by_http_in_a_list])
def test_every_way_reads_a_trace_alike(api: Api, case: str, way: Callable[[Api, bytes], str]) -> None:
    """It is taken, or refused with the same words, by each way in."""
    fields, expected = TRACES[case]
    api.run(api.client.delete(api.keys.events))
    raw = line(b"1")[:-1] + b"," + fields.encode() + b"}"
    assert way(api, raw).startswith(expected)
    assert way(api, raw) == by_xadd(api, raw)


def test_the_command_reads_alike(api: Api) -> None:
    """`dispatcher enqueue` takes the same lines, and refuses the others with the same words."""
    api.run(api.client.delete(api.keys.events))
    raw = b"\n".join(line(value) for value, _ in CASES.values())
    command = [sys.executable, "-m", "tasks", "enqueue", "--skip-invalid", "--json", "-"]
    environment = os.environ | {"DISPATCHER_REDIS_URL": api.url}
    done = subprocess.run(command, input=raw, env=environment, capture_output=True, check=True)
    skipped = {one["line"]: one["problem"] for one in json.loads(done.stdout)["skipped"]}
    entries = iter(api.run(api.client.xrange(api.keys.events)))
    api.run(api.client.delete(api.keys.events))
    for number, (value, _) in enumerate(CASES.values(), 1):
        got = skipped.get(number) or by_xadd(api, next(entries)[1][b"event"])
        assert by_xadd(api, line(value)) == got
