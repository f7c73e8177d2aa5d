"""The code and the examples in docs/customers.md are right: each block runs, takes what is signed well, and refuses the rest."""

import asyncio
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from dispatcher.answer import MAX_ANSWER_BYTES, Answer
from dispatcher.backoff import Backoff
from dispatcher.dialects import dialects
from dispatcher.model import Status, StatusChange, encode_json
from dispatcher.replies import Claimed
from dispatcher.secrets import Secret
from dispatcher.sender import ANSWER_BYTES, Sender
from dispatcher.signing import TOLERANCE_SECONDS, key_of, new_secret, verify, webhook_headers
from dispatcher.workspaces import MAX_LIVE_SECRETS, Workspace

TEXT = (Path(__file__).parents[2] / "docs" / "customers.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.M | re.S)

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SECRET = new_secret(KEY)
BODY = '{"eventType":"MESSAGE_SENT","message":{"src":"Zürich","cost":0.10}}'.encode()
SIGNED_HEADERS = ["webhook-id", "webhook-timestamp", "webhook-signature"]
DEADLINE_SECONDS = 60
EXAMPLE_SECONDS = 1_781_010_298

Post = Callable[[dict[str, str], bytes], int]
"""POSTs headers and a body to an example, and returns the status of its answer."""


def code(language: str, *words: str, without: str = "\0") -> str:
    """The document's only block of a language with these words in it."""
    [found] = [
        block
        for name, block in BLOCKS
        if name == language and all(word in block for word in words) and without not in block
    ]
    return found


def signed(*keys: bytes, age: int = 0, event_id: str = "event-1", body: bytes = BODY) -> dict[str, str]:
    """Headers of a callback that was signed with these keys, or KEY, `age` seconds ago."""
    return webhook_headers(keys or [KEY], event_id, int(time.time()) - age, body)


# The examples of callbacks.


def example(event: str) -> tuple[str, dict[str, str], bytes]:
    """Request line, headers and body of the example with this event."""
    head, _, body = code("http", event).partition("\n\n")
    line, _, fields = head.partition("\n")
    return line, dict(message_from_string(fields).items()), body.removesuffix("\n").encode()


def example_secret() -> str:
    """The secret the examples are signed with."""
    found = re.search(r"`(whsec_[^`…]+=)`", TEXT)
    assert found
    return found.group(1)


class Kept:
    """In place of the transport: keeps what is to be sent."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Mapping[str, str], bytes]] = []

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answers 200."""
        self.requests.append((url, headers, body))
        return Answer(200)


@pytest.mark.parametrize(
    ("dialect", "event"), [("zeckta", "MESSAGE_DELIVERED"), ("sendexa", "sms.delivered")]
)
def test_the_example_is_what_is_sent(dialect: str, event: str) -> None:
    """Each example is, header by header and byte for byte, the request that is made for such a status change."""
    line, headers, body = example(event)
    event_id = headers["webhook-id"]
    change = StatusChange.from_dict(
        {
            "eventId": event_id,
            "workspace": "acme",
            "status": "DELIVERED",
            "timestamp": "2026-06-09T13:04:57.487133482Z",
            "message": {
                "uuid": "0b9d8a52-1f0e-4f5c-8f0a-7c2d5e6f7a81",
                "src": "ACME",
                "dest": "+233202007745",
                "segments": 1,
                "units": 1,
                "attempts": 1,
                "cost": "0.05",
                "currency": "GHS",
                "network": "MTN",
            },
        }
    )
    url = "https://customer.example/callbacks"
    rendered = encode_json(dialects()[dialect].body(change, event, 0))
    callback = Claimed(event_id, 1, 1, 2**53, event, "DELIVERED", "m", url, rendered)
    workspace = Workspace("acme", dialect, url, (Secret(example_secret(), 0),), 0, "r")
    kept = Kept()
    sender = Sender(kept, headers["User-Agent"])
    asyncio.run(sender.send(callback, workspace, EXAMPLE_SECONDS * 1000))

    [(sent_url, sent_headers, sent_body)] = kept.requests
    assert "POST /callbacks HTTP/1.1" == line
    framing = {"Host": "customer.example", "Content-Length": str(len(body))}  # the transport's
    assert headers == framing | dict(sent_headers)
    assert [url, body] == [sent_url, sent_body]


@pytest.mark.parametrize("event", ["MESSAGE_DELIVERED", "sms.delivered"])
def test_the_example_verifies(event: str) -> None:
    """Readers who try their code on an example, with the secret and the time beside it, see it verify."""
    _, headers, body = example(event)
    assert f"time {EXAMPLE_SECONDS}." in TEXT
    verified = verify(headers, body, example_secret(), now=EXAMPLE_SECONDS)
    assert json.loads(body, parse_float=Decimal) == verified


def test_every_event_is_named() -> None:
    """The document names every event of all platforms, and no other."""
    changes = [change(status, channel) for status in Status for channel in ("SMS", "RCS", "WHATSAPP")]
    events = {dialect.event_type(one) for dialect in dialects().values() for one in changes}
    named = r"`(MESSAGE_[A-Z]+|(?:sms|message)\.[a-z]+|STATUS_UPDATE|DELIVERY|READ)`"
    assert events - {None} == set(re.findall(named, TEXT))


def change(status: Status, channel: str) -> StatusChange:
    """A status change with nothing but the required fields, and its channel."""
    message = {"uuid": "m-1", "src": "ACME", "dest": "+233202007745", "channel": channel}
    fields = {"workspace": "acme", "status": status.value, "timestamp": "2026-06-09T13:04:57Z"}
    return StatusChange.from_dict({**fields, "message": message})


# The servers: each example is started, and POSTed to as we would.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples are written, built and run."""
    return tmp_path_factory.mktemp("customers")


@contextlib.contextmanager
def fastapi_example(word: str) -> Iterator[tuple[Post, Callable[[], int]]]:
    """A FastAPI example in a test client, and how many callbacks it has worked on."""
    pytest.importorskip("fastapi", reason="no FastAPI here")
    with warnings.catch_warnings():
        # The client prefers a successor of httpx, which nothing here needs, and says so when it is imported.
        warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
        from starlette.testclient import TestClient

    worked: list[Any] = []
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALLBACK_SECRET", SECRET)
        exec(code("python", "FastAPI", word), names)
    names["work"] = worked.append
    with TestClient(names["app"]) as client:

        def post(headers: dict[str, str], body: bytes) -> int:
            raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            return client.post("/callbacks", headers=raw, content=body).status_code

        yield post, lambda: len(worked)


@contextlib.contextmanager
def server(command: list[str], folder: Path) -> Iterator[tuple[Post, Callable[[], int]]]:
    """An example that is a program of its own, on a free port, and how many callbacks it has printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    printed = folder / f"printed-{port}"
    environment = os.environ | {
        "PORT": str(port),
        "CALLBACK_SECRET": SECRET,
        "NODE_PATH": str(node_modules(folder)),
    }
    with printed.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )

    def post(headers: dict[str, str], body: bytes) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
        with contextlib.closing(connection):
            connection.request("POST", "/callbacks", body, headers)
            return connection.getresponse().status

    def listens() -> bool:
        assert process.poll() is None, printed.read_text()
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens)
        yield post, lambda: printed.read_text().count("MESSAGE_SENT")
    finally:
        process.kill()
        process.wait()


def wait_until(holds: Callable[[], bool]) -> None:
    """Waits until a condition holds; fails where it never does."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def node_modules(folder: Path) -> Path:
    """Where npm puts what it installs."""
    return folder / "node_modules"


def tool(name: str) -> str:
    """The path of a program; skips the test where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here")
    return found


def node_example(folder: Path, file: str, block: str) -> list[str]:
    """The command that runs a Node.js example."""
    (folder / file).write_text(block)
    return [tool("node"), file]


def install_library(folder: Path) -> None:
    """Installs the npm package of Standard Webhooks; skips the test where that cannot be done."""
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--fetch-retries=0"]
    command = [tool("npm"), "install", "--prefix", str(folder), *options, "standardwebhooks"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=DEADLINE_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("npm cannot install standardwebhooks here")


def go_example(folder: Path) -> list[str]:
    """Builds the Go example, with nothing but the standard library; the command that runs it."""
    go = tool("go")
    (folder / "main.go").write_text(code("go", "package main"))
    environment = os.environ | {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    command = [go, "build", "-o", "receiver", "main.go"]
    built = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert (0, "") == (built.returncode, built.stderr)
    return [str(folder / "receiver")]


LIBRARY = 'require("standardwebhooks")'


@pytest.fixture(
    scope="module",
    params=["fastapi-dispatcher", "fastapi-standardwebhooks", "node-standardwebhooks", "node-alone", "go"],
)
def running(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Post, Callable[[], int]]]:
    """Each of the examples in turn, ready to be POSTed to."""
    match request.param:
        case "fastapi-dispatcher":
            context = fastapi_example("from dispatcher import")
        case "fastapi-standardwebhooks":
            context = fastapi_example("from standardwebhooks import")
        case "node-standardwebhooks":
            command = node_example(folder, "library.js", code("js", LIBRARY))
            install_library(folder)
            context = server(command, folder)
        case "node-alone":
            context = server(node_example(folder, "alone.js", code("js", "http", without=LIBRARY)), folder)
        case _:
            context = server(go_example(folder), folder)
    with context as example:
        yield example


@pytest.fixture
def post(running: tuple[Post, Callable[[], int]]) -> Post:
    """POSTs to the example."""
    return running[0]


def accepted(status: int) -> bool:
    return 200 <= status < 300


def test_a_good_callback_is_taken_and_worked_on_once(running: tuple[Post, Callable[[], int]]) -> None:
    """What is signed well is taken, and worked on once though it comes twice."""
    post, worked = running
    before = worked()
    assert [True, True] == [accepted(post(signed(event_id="twice"), BODY)) for _ in range(2)]
    assert accepted(post(signed(event_id="after"), BODY))
    wait_until(lambda: worked() >= before + 2)
    assert before + 2 == worked()


@pytest.mark.parametrize("keys", [(KEY, OTHER_KEY), (OTHER_KEY, KEY)])
def test_one_of_two_signatures_is_enough(post: Post, keys: tuple[bytes, bytes]) -> None:
    """While a secret is changed, a callback is taken whether the receiver has the old or the new one."""
    assert accepted(post(signed(*keys), BODY))


@pytest.mark.parametrize("age", [-240, 240])
def test_a_clock_may_be_minutes_off(post: Post, age: int) -> None:
    """A callback is taken though the clocks differ by four minutes."""
    assert accepted(post(signed(age=age), BODY))


@pytest.mark.parametrize(
    "body", [BODY + b" ", BODY.replace(b"SENT", b"DEAD"), json.dumps(json.loads(BODY)).encode(), b""]
)
def test_a_changed_body_is_refused(post: Post, body: bytes) -> None:
    """A body that is not the bytes that were signed is refused, also where it is the same JSON."""
    assert 401 == post(signed(), body)


def test_another_secret_is_refused(post: Post) -> None:
    """What is signed with another secret is refused."""
    assert 401 == post(signed(OTHER_KEY), BODY)


@pytest.mark.parametrize("age", [-360, 360, 10**9])
def test_another_time_is_refused(post: Post, age: int) -> None:
    """What was signed, and signed well, at another time is refused."""
    assert 401 == post(signed(age=age), BODY)


@pytest.mark.parametrize("name", SIGNED_HEADERS)
def test_a_missing_header_is_refused(post: Post, name: str) -> None:
    """A callback without one of the three headers is refused."""
    assert 401 == post({key: value for key, value in signed().items() if key != name}, BODY)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook-id", "event-2"),
        ("webhook-timestamp", "now"),
        ("webhook-timestamp", "9" * 30),
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1,A"),
        ("webhook-signature", "v1,AAAA v2,AAAA"),
        ("webhook-signature", "v1,Ã¼"),
    ],
)
def test_a_changed_header_is_refused(post: Post, name: str, value: str) -> None:
    """Whatever strangers write into a header, the answer is a refusal, and the server lives on."""
    assert 401 == post(signed() | {name: value}, BODY)
    assert accepted(post(signed(), BODY))


# Sendexa's X-Signature.


def x_signature(secret: str) -> dict[str, str]:
    """The header as a Sendexa callback has it."""
    return {"X-Signature": "sha256=" + hmac.new(secret.encode(), BODY, hashlib.sha256).hexdigest()}


@pytest.mark.parametrize(
    ("headers", "body", "secrets", "expected"),
    [
        (x_signature(SECRET), BODY, [SECRET], True),
        (x_signature(SECRET), BODY, [new_secret(OTHER_KEY), SECRET], True),
        (x_signature(SECRET), BODY, [new_secret(OTHER_KEY)], False),
        (x_signature(SECRET), BODY + b" ", [SECRET], False),
        ({"X-Signature": "sha256="}, BODY, [SECRET], False),
        ({"X-Signature": "ü"}, BODY, [SECRET], False),
        ({}, BODY, [SECRET], False),
    ],
)
def test_x_signature(headers: dict[str, str], body: bytes, secrets: list[str], expected: bool) -> None:
    """The function takes what one of its secrets signed, and nothing else."""
    names: dict[str, Any] = {}
    exec(code("python", "def verify_x_signature"), names)
    assert expected is names["verify_x_signature"](headers, body, secrets)


def test_x_signature_of_the_example() -> None:
    """The function takes the document's Sendexa example."""
    names: dict[str, Any] = {}
    exec(code("python", "def verify_x_signature"), names)
    _, headers, body = example("sms.delivered")
    assert names["verify_x_signature"](headers, body, [example_secret()])


def test_bodies_of_other_platforms() -> None:
    """The bodies without a request around them are those on file."""
    golden = Path(__file__).parents[1] / "unit" / "golden"
    files = ("namirial/STATUS_UPDATE.delivered", "qlara/DELIVERY.delivered", "qlara/READ.rcs")
    assert [(golden / f"{name}.json").read_text().strip() for name in files] == code("json", "{").splitlines()


def test_every_block_is_run() -> None:
    """No block is in the document that these tests do not know."""
    assert ["go", "http", "http", "js", "js", "json", "python", "python", "python"] == sorted(
        name for name, _ in BLOCKS
    )


def test_the_example_secret_has_the_form_of_a_real_one() -> None:
    """The secret beside the examples holds 32 bytes, as ours do."""
    assert 32 == len(key_of(example_secret()))


def test_the_numbers_are_the_defaults() -> None:
    """The waits, limits and times the document states are those of the settings' defaults."""
    settings = {name: field.default for name, field in Settings.model_fields.items()}
    assert [15, 4 * 60, 64 * 60, 17 * 3600 + 4 * 60] == [
        Backoff().delay_ms(number, 0.5) / 1000 for number in (1, 2, 3, 4)
    ]
    stated = {
        "max_attempts": 5,
        "backoff_base_seconds": 15,
        "backoff_factor": 16,
        "backoff_jitter": 0.1,
        "expiry_seconds": 48 * 3600,
        "request_timeout_seconds": 10,
        "retry_after_max_seconds": 3600,
        "max_concurrency": 20,
        "secret_grace_seconds": 24 * 3600,
    }
    assert stated == {name: settings[name] for name in stated}
    assert (16 * 1024, 256, 300, 3) == (
        MAX_ANSWER_BYTES,
        ANSWER_BYTES,
        TOLERANCE_SECONDS,
        MAX_LIVE_SECRETS,
    )
