"""What a client may cost `dispatcher api`: a real process, and sockets that behave badly."""

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.acceptance.stack import CLI, Stack, Worker, free_port, running_stack, wait_until

PATIENT_SECONDS = 8
ASK = b"GET /openapi.json HTTP/1.1\r\nHost: api\r\n\r\n"
POST = b"POST /v1/status-changes HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer %s\r\n"
ENDS_WITHIN = 20
"""Seconds; without bounds it never ends."""


@pytest.fixture(scope="module")
def stack(server_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Redis, and a producer's key."""
    with running_stack(tmp_path_factory.mktemp("bounds")) as stack:
        yield stack


@pytest.fixture(scope="module")
def key(stack: Stack) -> bytes:
    """A producer's key."""
    made = stack.cli_json("producer-key", "add", "billing", "--rate-per-second", "10000")
    return str(made["apiKey"]).encode()


class Api:
    """The API's process."""

    def __init__(self, stack: Stack, *options: str, **settings: str) -> None:
        self.port = free_port()
        named = {f"DISPATCHER_API_{name}": value for name, value in settings.items()}
        command = [*CLI, "api", "--port", str(self.port), *options]
        log = stack.folder / f"api-{self.port}.log"
        self.process = Worker(stack, command, stack.environment | named, log)
        self.url = f"http://127.0.0.1:{self.port}"
        wait_until(lambda: self.is_up() or self.process.process.poll() is not None, what="API up")

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return httpx.get(f"{self.url}/openapi.json").is_success
        except httpx.TransportError:
            return False

    def connect(self, first: bytes = b"", receive_buffer: int = 0) -> socket.socket:
        """A connection on which something was sent."""
        made = socket.socket()
        if receive_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.settimeout(ENDS_WITHIN)
        made.connect(("127.0.0.1", self.port))
        made.sendall(first)
        return made


@contextmanager
def running(stack: Stack, *options: str, **settings: str) -> Iterator[Api]:
    """An API that is killed afterwards, if it is there still."""
    api = Api(stack, *options, **settings)
    try:
        yield api
    finally:
        api.process.terminate()


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[Api]:
    """One that gives each call a second."""
    with running(stack, REQUEST_SECONDS="1") as api:
        yield api


@pytest.fixture
def patient(stack: Stack) -> Iterator[Api]:
    """One that gives each call so long that only what is never whole takes longer, on a busy machine too."""
    with running(stack, REQUEST_SECONDS=str(PATIENT_SECONDS)) as api:
        yield api


def all_of(connection: socket.socket) -> bytes:
    """What comes until the server closes; fails the test where it does not."""
    found = b""
    try:
        while some := connection.recv(65_536):
            found += some
    except ConnectionResetError:
        pass
    connection.close()
    return found


def is_cut(connection: socket.socket) -> bool:
    """Whether the server has closed a connection from which nothing is read."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


def drip(connection: socket.socket) -> bytes:
    """A byte now and then until the server closes; what it said."""

    def next_byte() -> bool:
        try:
            connection.sendall(b"a")
        except (ConnectionResetError, BrokenPipeError):
            return True
        return is_cut(connection)

    wait_until(next_byte, ENDS_WITHIN, "cut")
    return all_of(connection)


def head_of(answer: bytes) -> tuple[str, dict[str, str]]:
    """Status line and headers."""
    line, *rest = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return line, {name.lower(): value for name, value in (one.split(": ", 1) for one in rest)}


def assert_refused(answer: bytes, status: int) -> None:
    """It is this status, may not be kept, and ends the connection."""
    line, headers = head_of(answer)
    assert f"HTTP/1.1 {status} " == line[:13]
    assert ("no-store", "close") == (headers["cache-control"], headers["connection"])


@pytest.mark.parametrize(
    "first",
    [
        b"G",
        b"GET / HTTP/1.1\r\nHost: api\r\nX-",
        POST + b"Content-Length: 100000\r\n\r\n[",
        POST + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n",
    ],
)
def test_a_request_that_drips(api: Api, key: bytes, first: bytes) -> None:
    """A head or a body that comes byte by byte is over at its deadline, and told so."""
    assert_refused(drip(api.connect(first % key if b"%s" in first else first)), 408)


def test_a_client_that_says_nothing(api: Api) -> None:
    """A connection without a request is closed without a word."""
    assert b"" == all_of(api.connect())


@pytest.mark.parametrize("first", [ASK, ASK + ASK[:20], POST % b"wrong" + b"Content-Length: 2\r\n\r\n"])
def test_an_answered_client_that_goes_on_slowly(api: Api, first: bytes) -> None:
    """After an answer the next request has a deadline again, and so has a body that nobody wanted."""
    connection = api.connect(first)
    wait_until(lambda: connection.recv(65_536), what="answer")
    drip(connection)


def test_an_answer_that_is_not_taken(api: Api) -> None:
    """A client that asks and never reads is cut, whatever it asks meanwhile."""
    connection = api.connect(receive_buffer=4096)
    connection.setblocking(False)

    def cut() -> bool:
        try:
            connection.send(ASK * 50)
        except BlockingIOError:
            pass
        except (ConnectionResetError, BrokenPipeError):
            return True
        return is_cut(connection)

    wait_until(cut, ENDS_WITHIN, "cut")
    connection.close()


def test_a_connection_that_is_used_for_longer_than_a_call(patient: Api) -> None:
    """The deadline is of each call: a connection on which calls follow each other stays."""
    api, ends = patient, time.monotonic() + PATIENT_SECONDS + 2
    with httpx.Client(timeout=30) as client:
        answers = []
        while time.monotonic() < ends:
            answers.append(client.get(f"{api.url}/openapi.json"))
        streams = {id(answer.extensions["network_stream"]) for answer in answers}
    assert {200} == {answer.status_code for answer in answers}
    assert 1 == len(streams)


def test_calls_that_come_together(patient: Api) -> None:
    """Pipelined calls are answered one after the other."""
    connection = patient.connect(ASK * 3)
    found = b""
    while found.count(b"HTTP/1.1 200") < 3:
        some = connection.recv(65_536)
        assert some, found
        found += some
    connection.close()
    assert 3 == found.count(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("request_", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_request(api: Api, request_: bytes) -> None:
    """What the server itself refuses may not be kept either."""
    assert_refused(all_of(api.connect(request_)), 400)


def test_what_strangers_write_into_the_log(stack: Stack, api: Api) -> None:
    """Nothing: whoever has no key cannot fill a disk with it."""
    log = stack.folder / f"api-{api.port}.log"
    before = log.read_bytes()
    upgrade = b"GET / HTTP/1.1\r\nHost: api\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    for request in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", upgrade):
        assert all_of(api.connect(request)).startswith(b"HTTP/1.1 4")
    assert before == log.read_bytes()


def test_a_body_of_tiny_chunks(api: Api, key: bytes) -> None:
    """A body whose framing is most of it is refused while it comes."""
    head = POST % key + b"Transfer-Encoding: chunked\r\n\r\n"
    assert_refused(all_of(api.connect(head + b"1\r\n[\r\n" * 1100)), 400)


def test_a_body_in_chunks(patient: Api, key: bytes) -> None:
    """One in chunks of some length, or in a few of any, is taken."""
    body = json.dumps([{"workspace": "acme"}] * 900).encode()

    def chunks(size: int, length: int) -> Iterator[bytes]:
        return (body[first : first + size] for first in range(0, length, size))

    headers = {"Authorization": f"Bearer {key.decode()}"}
    for some in (chunks(70, len(body)), iter([b"[", *[b" "] * 900, b"{}]"])):
        url = f"{patient.url}/v1/status-changes"
        assert 422 == httpx.post(url, headers=headers, content=some, timeout=30).status_code


def test_a_length_that_is_too_long(api: Api, key: bytes) -> None:
    """It is refused by what the head says, before any of it has come."""
    answer = all_of(api.connect(POST % key + b"Content-Length: 8388609\r\n\r\n"))
    assert_refused(answer, 413)


@pytest.mark.parametrize("who", [b"wrong", b"%s"])
def test_a_body_without_end(api: Api, key: bytes, who: bytes) -> None:
    """Neither with a key nor without one does anybody send more than a call may have."""
    who = who % key if b"%s" in who else who
    connection = api.connect(POST % who + b"Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        connection.sendall(chunk * 1500)
    connection.close()


def test_connections_are_bounded(stack: Stack) -> None:
    """One connection too many is told so, in its platform's form; many too many are cut; then all is well again."""
    with running(stack, MAX_CONNECTIONS="3") as api, ExitStack() as open_:
        for _ in range(3):
            open_.enter_context(api.connect(b"GET "))

        def refused() -> httpx.Response | None:
            answer = httpx.get(f"{api.url}/v1/sms/status/m-1")
            return answer if answer.status_code == 503 else None

        answer = wait_until(refused, what="refused")
        assert ("SERVER_ERROR", "too many connections, try again") == (
            answer.json()["code"],
            answer.json()["message"],
        )
        named = ("Retry-After", "Cache-Control", "Connection")
        assert ["5", "no-store", "close"] == [answer.headers[name] for name in named]
        many = [open_.enter_context(api.connect()) for _ in range(200)]
        wait_until(lambda: sum(is_cut(one) for one in many) >= 200 - 64, what="the others cut")
        wait_until(lambda: "api.too_many_connections" in api.process.log, what="said")
        open_.close()
        wait_until(lambda: api.is_up(), what="served again")


def children_of(pid: int) -> list[int]:
    """Its processes."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_there(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def unreading(api: Api, _: bytes) -> socket.socket:
    """A client that has asked for more than any buffer takes, and reads nothing of it."""
    return api.connect(ASK * 500, receive_buffer=4096)


CLIENTS: dict[str, Callable[[Api, bytes], socket.socket]] = {
    "silent": lambda api, _: api.connect(),
    "half a head": lambda api, _: api.connect(ASK[:-4]),
    "half a body": lambda api, key: api.connect(POST % key + b"Content-Length: 9\r\n\r\n["),
    "a body nobody wants": lambda api, _: api.connect(POST % b"wrong" + b"Content-Length: 9\r\n\r\n["),
    "idle": lambda api, _: api.connect(ASK),
    "unreading": unreading,
}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_term_ends_it(stack: Stack, key: bytes, workers: str) -> None:
    """Whatever its clients do, the API ends in seconds, with all its processes."""
    with running(stack, "--workers", workers, REQUEST_SECONDS="600") as api, ExitStack() as open_:
        for make in (*CLIENTS.values(), *CLIENTS.values()):
            open_.enter_context(make(api, key))
        processes = [api.process.process.pid, *children_of(api.process.process.pid)]
        assert len(processes) > int(workers) - 1
        api.process.process.terminate()
        assert api.process.process.wait(ENDS_WITHIN) in (0, -15)
        wait_until(lambda: not any(is_there(pid) for pid in processes), what="all gone")
        assert [] == [line for line in api.process.log.splitlines() if '"level":"error"' in line]
