"""Each receiver in examples/receivers runs, takes what the sender sends, and refuses the rest."""

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dispatcher.model import StatusChange, encode_json
from dispatcher.rules.addresses import AddressPolicy
from dispatcher.rules.callback import Claimed
from dispatcher.rules.dialects import dialects
from dispatcher.rules.outcomes import Attempt
from dispatcher.rules.subscription import Secret
from dispatcher.rules.workspace import Workspace
from dispatcher.sending.sender import Sender
from dispatcher.sending.transport import CallbackTransport
from dispatcher.signing import new_secret, webhook_headers
from tests.acceptance.stack import free_port, wait_until

RECEIVERS = Path(__file__).parents[2] / "examples" / "receivers"

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SECRET = new_secret(KEY)
BODY = '{"eventType":"MESSAGE_SENT","message":{"src":"Zürich","cost":0.10}}'.encode()
LIMIT = 1024 * 1024
SECONDS = 60
numbers = itertools.count()


class Receiver:
    """An example that runs."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, output: Path) -> None:
        self.process, self.port, self.output = process, port, output
        self.url = f"http://127.0.0.1:{port}/callbacks"

    def request(self, method: str, path: str, headers: dict[str, str], body: bytes) -> int:
        """Sends a request; the status of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        with contextlib.closing(connection):
            with contextlib.suppress(
                BrokenPipeError, ConnectionResetError
            ):  # it may answer before it has all
                connection.request(method, path, body, headers)
            return connection.getresponse().status

    def post(self, headers: dict[str, str], body: bytes = BODY) -> int:
        """POSTs a callback; the status of the answer."""
        return self.request("POST", "/callbacks", {"Content-Type": "application/json"} | headers, body)

    def post_chunked(self, headers: dict[str, str], body: bytes) -> int:
        """The same in chunks, without a length."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        with contextlib.closing(connection):
            with contextlib.suppress(
                BrokenPipeError, ConnectionResetError
            ):  # it may answer before it has all
                pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
                chunked = headers | {"Transfer-Encoding": "chunked"}
                connection.request("POST", "/callbacks", pieces, chunked, encode_chunked=True)
            return connection.getresponse().status

    def worked(self, event_id: str) -> int:
        """How many times it has worked on a callback."""
        return len(re.findall(rf"^callback {event_id} ", self.output.read_text(errors="replace"), re.M))

    def listens(self) -> bool:
        """Whether it can be connected to; fails where it has ended."""
        assert self.process.poll() is None, self.output.read_text()
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", self.port)) == 0


# How each is started, in a copy of its folder; skips where the machine lacks the language.


def tool(name: str) -> str:
    """The path of a program; skips the test where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here")
    return found


def fastapi(_folder: Path, _port: int) -> list[str]:
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package, reason=f"no {package} here")
    return [sys.executable, "receiver.py"]


def express(folder: Path, _port: int) -> list[str]:
    node = tool("node")
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", "--fetch-retries=0"]
    try:
        subprocess.run(
            [tool("npm"), "install", *options], cwd=folder, check=True, capture_output=True, timeout=SECONDS
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("npm cannot install Express here")
    return [node, "receiver.js"]


def go(folder: Path, _port: int) -> list[str]:
    environment = os.environ | {"GOPROXY": "off", "GOTOOLCHAIN": "local"}  # nothing is fetched
    for command in (["vet", "."], ["build", "-o", "receiver", "."]):
        done = subprocess.run(
            [tool("go"), *command], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert (0, "") == (done.returncode, done.stderr)
    return ["./receiver"]


def java(_folder: Path, _port: int) -> list[str]:
    return [tool("java"), "Receiver.java"]


def php(_folder: Path, port: int) -> list[str]:
    return [tool("php"), "-S", f"127.0.0.1:{port}", "receiver.php"]


def ruby(_folder: Path, _port: int) -> list[str]:
    if subprocess.run([tool("ruby"), "-e", 'require "webrick"'], capture_output=True).returncode:
        pytest.skip("no webrick here")
    return ["ruby", "-w", "receiver.rb"]


LANGUAGES: list[Callable[[Path, int], list[str]]] = [fastapi, express, go, java, php, ruby]


def test_every_receiver_is_tested() -> None:
    """Each folder of a receiver is one that these tests start."""
    assert sorted(one.__name__ for one in LANGUAGES) == sorted(
        one.name for one in RECEIVERS.iterdir() if one.is_dir()
    )


@pytest.fixture(scope="module", params=LANGUAGES, ids=lambda one: one.__name__)
def command(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], Path, int]:
    """What starts a receiver, in which folder, and the port it is to listen on."""
    folder = tmp_path_factory.mktemp(request.param.__name__) / "receiver"
    shutil.copytree(RECEIVERS / request.param.__name__, folder)
    port = free_port()
    return request.param(folder, port), folder, port


def environment(folder: Path, port: int, **more: str) -> dict[str, str]:
    """What a receiver finds in its environment."""
    own = {name: value for name, value in os.environ.items() if name != "WEBHOOK_SECRET"}
    return own | {"PORT": str(port), "CALLBACK_FOLDER": str(folder / "callbacks")} | more


@pytest.fixture(scope="module")
def receiver(command: tuple[list[str], Path, int]) -> Iterator[Receiver]:
    """Each of the receivers in turn, ready to be POSTed to."""
    with running(*command) as receiver:
        yield receiver


@contextlib.contextmanager
def running(start: list[str], folder: Path, port: int, **more: str) -> Iterator[Receiver]:
    """A receiver, once it listens."""
    output = folder / f"output-{port}.txt"  # two may run in one folder
    with output.open("wb") as file:
        process = subprocess.Popen(
            start,
            cwd=folder,
            env=environment(folder, port, **{"WEBHOOK_SECRET": SECRET} | more),
            stdout=file,
            stderr=file,
        )
    receiver = Receiver(process, port, output)
    try:
        wait_until(receiver.listens, SECONDS, "the receiver listens")
        yield receiver
    finally:
        process.kill()
        process.wait()


def signed(*keys: bytes, age: int = 0, event_id: str = "event-1", body: bytes = BODY) -> dict[str, str]:
    """Headers of a callback that was signed with these keys, or KEY, `age` seconds ago."""
    return webhook_headers(keys or [KEY], event_id, int(time.time()) - age, body)


def accepted(status: int | None) -> bool:
    return status is not None and 200 <= status < 300


# What is taken.


def test_every_platforms_callback_is_taken(receiver: Receiver) -> None:
    """What the sender sends in each dialect, also while a secret is changed, is taken and worked on once."""
    names = sorted(dialects())
    assert {"zeckta", "sendexa", "namirial", "qlara"} <= set(names)
    attempts = asyncio.run(send(receiver.url, names))
    assert [(True, None)] * len(names) == [(accepted(one.http_status), one.error) for one in attempts], (
        attempts
    )
    wait_until(lambda: all(receiver.worked(f"event-{name}") for name in names), what="all are worked on")
    assert {1} == {receiver.worked(f"event-{name}") for name in names}


async def send(url: str, names: list[str]) -> list[Attempt]:
    """Sends a callback of each dialect as a worker does, signed with two secrets, one after another."""
    transport = CallbackTransport(AddressPolicy.of(["127.0.0.0/8"]), SECONDS)
    secrets = (Secret(new_secret(OTHER_KEY), 0), Secret(SECRET, 0))
    try:
        sender = Sender(transport, "callback-dispatcher/test")
        return [
            await sender.send(
                callback(url, name), Workspace("acme", name, url, secrets, 0, "r"), int(time.time() * 1000)
            )
            for name in names
        ]
    finally:
        await transport.aclose()


def callback(url: str, dialect: str) -> Claimed:
    """A callback of a dialect, as a worker claims it."""
    change = StatusChange.from_dict(
        {
            "eventId": f"event-{dialect}",
            "workspace": "acme",
            "status": "DELIVERED",
            "timestamp": "2026-06-09T13:04:57.487133482Z",
            "message": {"uuid": "m-1", "src": "Zürich", "dest": "+233202007745", "cost": "0.10"},
        }
    )
    event_type = dialects()[dialect].event_type(change)
    assert event_type
    body = encode_json(dialects()[dialect].body(change, event_type, 0))
    return Claimed(change.event_id, 1, 1, 2**53, event_type, change.status, "m-1", url, body)


def test_a_repeat_is_answered_and_not_worked_on(receiver: Receiver) -> None:
    """A callback that comes twice is taken twice, and worked on once."""
    assert [True, True] == [accepted(receiver.post(signed(event_id="twice"))) for _ in range(2)]
    assert accepted(receiver.post(signed(event_id="after")))
    wait_until(lambda: receiver.worked("after"), what="the one after it is worked on")
    assert 1 == receiver.worked("twice")


def test_repeats_at_the_same_moment(receiver: Receiver) -> None:
    """A callback that comes many times at once is worked on once."""
    headers = signed(event_id="at-once")
    with ThreadPoolExecutor(8) as threads:
        assert [204] * 24 == list(threads.map(lambda _: receiver.post(headers), range(24)))
    assert accepted(receiver.post(signed(event_id="after-them")))
    wait_until(lambda: receiver.worked("after-them"), what="the one after them is worked on")
    assert 1 == receiver.worked("at-once")


@pytest.mark.parametrize("keys", [(KEY, OTHER_KEY), (OTHER_KEY, KEY)])
def test_one_of_two_signatures_is_enough(receiver: Receiver, keys: tuple[bytes, bytes]) -> None:
    """While a secret is changed, a callback is taken whether the receiver has the old or the new one."""
    assert accepted(receiver.post(signed(*keys)))


@pytest.mark.parametrize("age", [-240, 240])
def test_a_clock_may_be_minutes_off(receiver: Receiver, age: int) -> None:
    """A callback is taken though the clocks differ by four minutes."""
    assert accepted(receiver.post(signed(age=age)))


def test_a_long_body_is_taken(receiver: Receiver) -> None:
    """A body as long as a receiver allows is taken."""
    body = b'{"filler":"' + b"x" * (LIMIT - 13) + b'"}'
    assert LIMIT == len(body)
    assert accepted(receiver.post(signed(event_id="long", body=body), body))


WAITS = {
    "fastapi": ("    print(line", '    while os.path.exists("hold"):\n        time.sleep(0.01)\n'),
    "express": ('  console.log("callback"', '  while (process.getBuiltinModule("fs").existsSync("hold"));\n'),
    "go": (
        '\t_, err := fmt.Println("callback"',
        '\tfor held := error(nil); held == nil; _, held = os.Stat("hold") {\n\t}\n',
    ),
    "java": (
        '        System.out.println("callback',
        '        while (new java.io.File("hold").exists()) {}\n',
    ),
    "php": (
        "    file_put_contents('php://stderr'",
        "    while (file_exists('hold')) { clearstatcache(); }\n",
    ),
    "ruby": ('  puts "callback', '  sleep 0.01 while File.exist?("hold")\n'),
}
"""The line of each receiver's work, and what makes it wait before it while a file is there."""


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda one: one.__name__)
def test_the_answer_does_not_wait_for_the_work(
    language: Callable[[Path, int], list[str]], tmp_path: Path
) -> None:
    """A callback is answered while the work on it has not ended."""
    folder = tmp_path / "receiver"
    shutil.copytree(RECEIVERS / language.__name__, folder)
    line, wait = WAITS[language.__name__]
    [file] = [one for one in folder.iterdir() if line in one.read_text()]
    text = file.read_text().replace(line, wait + line)
    file.write_text(text)
    hold = folder / "hold"
    hold.touch()
    port = free_port()
    with running(language(folder, port), folder, port) as receiver:
        assert accepted(receiver.post(signed()))
        assert 0 == receiver.worked("event-1")
        hold.unlink()
        wait_until(lambda: receiver.worked("event-1"), what="the work ends")


# What is refused, and never worked on.


@pytest.mark.parametrize(
    "body", [BODY + b" ", BODY.replace(b"SENT", b"DEAD"), json.dumps(json.loads(BODY)).encode(), b""]
)
def test_a_changed_body_is_refused(receiver: Receiver, body: bytes) -> None:
    """A body that is not the bytes that were signed is refused, also where it is the same JSON."""
    assert 401 == receiver.post(signed(event_id="refused"), body)
    assert 0 == receiver.worked("refused")


def test_another_secret_is_refused(receiver: Receiver) -> None:
    """What is signed with another secret is refused."""
    assert 401 == receiver.post(signed(OTHER_KEY, event_id="refused"))
    assert 0 == receiver.worked("refused")


@pytest.mark.parametrize("age", [-360, 360, 10**9])
def test_another_time_is_refused(receiver: Receiver, age: int) -> None:
    """What was signed, and signed well, at another time is refused."""
    assert 401 == receiver.post(signed(age=age, event_id="refused"))
    assert 0 == receiver.worked("refused")


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_refused(receiver: Receiver, name: str) -> None:
    """A callback without one of the three headers is refused."""
    assert 401 == receiver.post({key: value for key, value in signed().items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook-id", "event-2"),
        ("webhook-timestamp", "now"),
        ("webhook-timestamp", "9" * 30),
        ("webhook-timestamp", "9" * 5000),
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1,A"),
        ("webhook-signature", "v1,AAAA v2,AAAA"),
        ("webhook-signature", "v1,Ã¼"),
    ],
)
def test_a_changed_header_is_refused(receiver: Receiver, name: str, value: str) -> None:
    """Whatever strangers write into a header, the answer is a refusal, and the server lives on."""
    assert 401 == receiver.post(signed() | {name: value})
    assert accepted(receiver.post(signed()))


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(receiver: Receiver, chunked: bool) -> None:
    """A body that is too long is refused though it is signed well, and the server lives on."""
    body = b'{"filler":"' + b"x" * LIMIT + b'"}'
    headers = signed(event_id="too-long", body=body)
    assert 413 == (receiver.post_chunked(headers, body) if chunked else receiver.post(headers, body))
    assert accepted(receiver.post(signed()))
    assert 0 == receiver.worked("too-long")


def test_a_chunked_body_is_taken(receiver: Receiver) -> None:
    """A body whose length nobody told is taken."""
    assert accepted(receiver.post_chunked(signed(event_id="chunked"), BODY))


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"1E400",
        b'{"a":"\xff"}',
        b'"\\ud800"',
        b"[" * 9000 + b"]" * 9000,
    ],
    ids=lambda body: repr(body[:9]),
)
def test_a_strange_body_that_is_signed_well(receiver: Receiver, body: bytes) -> None:
    """What is signed well and no callback, or no JSON at all, is no fault of the server's, and it works on."""
    number = next(numbers)
    assert receiver.post(signed(event_id=f"strange-{number}", body=body), body) in (204, 400)
    assert accepted(receiver.post(signed(event_id=f"behind-{number}")))
    wait_until(lambda: receiver.worked(f"behind-{number}"), what="the one behind it is worked on")


def test_a_body_that_is_no_json(receiver: Receiver) -> None:
    """What is signed well and is no JSON is the client's error; what is JSON is taken, however it is written."""
    for body in (
        *(b"<html>", b"", b"{", b'{"a":1,}', b"[1 2]", b'{"a" 1}', b'"open', b"01", b"{} {}", b"tru"),
        *(b"NaN", b"[-Infinity]", b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b'{"a":"\xff"}'),
    ):
        assert 400 == receiver.post(signed(event_id="no-json", body=body), body), body
    whole = b' {"a" : [1, -2.5e+3, {}, [] ], "b\\"": "\\u00fc \\\\", "c": [true,false,null]}\n'
    assert accepted(receiver.post(signed(event_id="json", body=whole), whole))


def test_it_says_where_it_listens(receiver: Receiver) -> None:
    """A receiver's output names its port once it listens."""
    wait_until(lambda: str(receiver.port) in receiver.output.read_text(errors="replace"), what="a line")


def test_a_callback_url_may_have_a_query(receiver: Receiver) -> None:
    """A callback to a URL with a query is taken as any other."""
    assert accepted(receiver.request("POST", "/callbacks?tenant=7", signed(), BODY))


HALF_SENT = {
    "head": b"POST /callbacks HTTP/1.1\r\nHost: h\r\nContent-Le",
    "body": b"POST /callbacks HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{",
}


@pytest.mark.parametrize("half", HALF_SENT.values(), ids=HALF_SENT)
def test_half_sent_requests_hold_up_no_callback(receiver: Receiver, half: bytes) -> None:
    """Strangers who begin requests and do not end them keep no callback from being taken."""
    with contextlib.ExitStack() as open_ones:
        for _ in range(40):
            one = open_ones.enter_context(socket.create_connection(("127.0.0.1", receiver.port)))
            one.sendall(half)
        assert accepted(receiver.post(signed()))


@pytest.mark.parametrize("status", [400, 401, 413])
def test_a_refusal_is_plain_text(receiver: Receiver, status: int) -> None:
    """A refusal is a line of text or JSON that a program and an operator can read, and no page of HTML."""
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=SECONDS)
    body = {400: b"<html>", 413: b"x" * (LIMIT + 1)}.get(status, BODY)
    headers = signed(OTHER_KEY if status == 401 else KEY, body=body)
    with contextlib.closing(connection):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", "/callbacks", body, headers)
        assert b"<" not in connection.getresponse().read()


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/callbacks"), ("POST", "/elsewhere"), ("POST", "/callbacks/more")]
)
def test_other_requests_are_refused(receiver: Receiver, method: str, path: str) -> None:
    """What is no POST to the path of callbacks is an error of the client's."""
    assert receiver.request(method, path, signed(), BODY) in (404, 405)


def test_what_cannot_be_stored_is_not_taken(tmp_path: Path) -> None:
    """PHP's receiver answers 5xx and says why, where a callback cannot be stored, so that it comes again."""
    folder = tmp_path / "receiver"
    shutil.copytree(RECEIVERS / "php", folder)
    (folder / "callbacks").write_text("no folder")
    port = free_port()
    with running(php(folder, port), folder, port) as receiver:
        assert 500 == receiver.post(signed())
        assert "cannot be stored" in receiver.output.read_text()
        assert 0 == receiver.worked("event-1")
        (folder / "callbacks").unlink()
        assert accepted(receiver.post(signed()))
        wait_until(lambda: receiver.worked("event-1"), what="it is worked on")
        assert [BODY] == [one.read_bytes() for one in (folder / "callbacks").iterdir()]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_a_full_disk_takes_nothing(tmp_path: Path) -> None:
    """PHP's receiver answers 5xx where a callback's bytes cannot be written."""
    folder = tmp_path / "receiver"
    shutil.copytree(RECEIVERS / "php", folder)
    file = folder / "receiver.php"
    line = "    $written = $path . '.' . bin2hex(random_bytes(8));\n"
    assert line in file.read_text()
    file.write_text(file.read_text().replace(line, line + "    @symlink('/dev/full', $written);\n"))
    port = free_port()
    with running(php(folder, port), folder, port) as receiver:
        assert 500 == receiver.post(signed())
        assert [] == list((folder / "callbacks").iterdir())


def test_php_needs_a_folder(tmp_path: Path) -> None:
    """PHP's receiver takes nothing until it is told a folder to store callbacks in, and says so."""
    folder = tmp_path / "receiver"
    shutil.copytree(RECEIVERS / "php", folder)
    port = free_port()
    with running(php(folder, port), folder, port, CALLBACK_FOLDER="") as receiver:
        assert 500 == receiver.post(signed())
        assert "CALLBACK_FOLDER must be" in receiver.output.read_text()


@pytest.mark.parametrize("half", HALF_SENT.values(), ids=HALF_SENT)
def test_a_request_that_does_not_end_is_closed(tmp_path: Path, half: bytes) -> None:
    """Java's receiver closes the connection of a request that does not come to its end in time."""
    folder = tmp_path / "receiver"
    shutil.copytree(RECEIVERS / "java", folder)
    file = folder / "Receiver.java"
    assert "READ_SECONDS = 10;" in file.read_text()
    file.write_text(file.read_text().replace("READ_SECONDS = 10;", "READ_SECONDS = 1;"))
    port = free_port()
    with (
        running(java(folder, port), folder, port),
        socket.create_connection(("127.0.0.1", port), SECONDS) as stranger,
    ):
        stranger.sendall(half)
        with contextlib.suppress(ConnectionResetError):
            assert b"" == stranger.recv(1)


def test_a_taken_port_is_one_line(command: tuple[list[str], Path, int], receiver: Receiver) -> None:
    """A receiver whose port is taken ends, and says so without a stack trace."""
    start, folder, _ = command
    done = subprocess.run(
        start,
        cwd=folder,
        env=environment(folder, receiver.port, WEBHOOK_SECRET=SECRET),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode != 0
    lines = (done.stdout + done.stderr).splitlines()
    said = [line for line in lines if "in use" in line]
    assert said, lines
    assert not [line for line in lines if re.match(r"\s+at |\tfrom |.*receiver\.(rb|js):", line)]


@pytest.mark.parametrize("blank", ["\n", " ", "\r\n"])
def test_a_secret_may_end_with_a_blank(command: tuple[list[str], Path, int], blank: str) -> None:
    """A secret that was pasted with a blank or a line end around it is the secret."""
    start, folder, first_port = command
    port = free_port()
    start = [word.replace(str(first_port), str(port)) for word in start]  # PHP's port is an argument
    with running(start, folder, port, WEBHOOK_SECRET=blank + SECRET + blank) as another:
        assert accepted(another.post(signed()))


@pytest.mark.parametrize(
    "secret",
    [
        None,
        "whsec_",
        "whsec_no base64",
        SECRET.removeprefix("whsec_"),
        SECRET.replace("_", "_!!!!"),
    ],
)
def test_without_a_secret(command: tuple[list[str], Path, int], secret: str | None) -> None:
    """A receiver that has no secret does not start, and names what is missing; PHP's server says so when it is asked."""
    start, folder, _ = command
    if start[1:2] == ["-S"]:
        start = [start[0], "-d", "display_errors=1", start[-1]]
    more = {} if secret is None else {"WEBHOOK_SECRET": secret}
    done = subprocess.run(
        start,
        cwd=folder,
        env=environment(folder, free_port(), **more),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert "WEBHOOK_SECRET" in done.stdout + done.stderr
    assert done.returncode != 0 or "php" in start[0]
