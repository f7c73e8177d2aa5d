"""A connection whose plain posts go past h11, with an intake that answers when the test says."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dispatcher.api.enqueuer import Answer, Reply
from dispatcher.api.log_rate import LogRate
from tasks.api_protocol import Limits
from tasks.intake_protocol import MAX_BEHIND_BYTES, IntakeProtocol
from tests.http.served_api import Answered, Served, answer_on

KEY = "key_0123456789ab." + "a" * 43
BODY = b'{"x":1}'


class Intake:
    """Keeps calls until the test answers them."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._replies: list[Reply] = []
        self._loop = asyncio.get_running_loop()

    def knows(self, key_text: str) -> bool:
        return key_text == KEY

    def take(self, key_text: str, body: bytes, reply: Reply) -> None:
        self.bodies.append(body)
        self._replies.append(reply)

    def answer(self, answer: Answer | None) -> None:
        """Answers the oldest call; None: it is not for the intake."""
        self._loop.call_soon_threadsafe(self._replies.pop(0), answer)


class App:
    """An application that answers 200 with the body's length, once it has it."""

    intake: Intake

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            self.intake = scope["state"]["enqueuer"] = Intake()
            for _ in range(2):
                await send({"type": (await receive())["type"] + ".complete"})
            return
        length, more = 0, True
        while more:
            message = await receive()
            length, more = length + len(message.get("body", b"")), message.get("more_body", False)
        text = b"%d" % length
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", b"%d" % len(text))],
            }
        )
        await send({"type": "http.response.body", "body": text})


@contextmanager
def running(seconds: float = 10, connections: int = 100) -> Iterator[tuple[Served, Intake]]:
    """A server, and its intake."""
    app = App()
    api = Served(app, IntakeProtocol, Limits(seconds, connections, LogRate()))
    try:
        yield api, app.intake
    finally:
        api.stop()


def post(body: bytes = BODY, key: str = KEY) -> bytes:
    """A plain post."""
    head = f"POST /v1/status-changes HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def answer(text: str) -> Answer:
    """An answer of the intake."""
    return Answer(202, {"X-Said": text}, b"{}")


def outcomes(api: Served, connection: socket.socket, count: int) -> list[tuple[int, str]]:
    """Status and words of as many answers."""
    behind = bytearray()
    answers = [answer_on(connection, behind) for _ in range(count)]
    return [(one.status, one.header("x-said") or one.body.decode()) for one in answers]


def test_pipelined_posts() -> None:
    """Requests that are sent without waiting are answered in their order, whoever answers them."""
    with running() as (api, intake), api.connect(post(b"{1}")) as connection:
        api.wait_for(lambda: len(intake.bodies) == 1)
        connection.sendall(
            post(b"{2}") + post(b"[33]") + b"GET / HTTP/1.1\r\nHost: api\r\n\r\n" + post(b"{5}")
        )
        intake.answer(answer("one"))
        assert [(202, "one"), (200, "3"), (200, "4"), (200, "0"), (200, "3")] == outcomes(api, connection, 5)


def test_a_connection_that_pipelines_is_for_the_application() -> None:
    """The intake does not hold up a client that sends more than it waits for; h11 does."""
    with running() as (api, intake), api.connect(post(b"{1}")) as connection:
        api.wait_for(lambda: len(intake.bodies) == 1)
        connection.sendall(post(b"{2}"))
        intake.answer(answer("one"))
        assert [(202, "one"), (200, "3")] == outcomes(api, connection, 2)
        connection.sendall(post(b"{3}"))
        assert [(200, "3")] == outcomes(api, connection, 1)
        assert [b"{1}"] == intake.bodies


def test_what_comes_behind_is_bounded() -> None:
    """While a request is with the intake, little is read of what its client sends behind it, and nothing is lost."""
    long = post(b"[" + b" " * 8_000_000 + b"]")
    with running() as (api, intake), api.connect(post()) as connection:
        api.wait_for(lambda: len(intake.bodies) == 1)
        connection.setblocking(False)
        sent = 0
        while api.held() <= MAX_BEHIND_BYTES:
            sent += some(connection, long[sent:])
        intake.answer(answer("one"))
        connection.settimeout(20)
        connection.sendall(long[sent:])
        assert [(202, "one"), (200, "8000002")] == outcomes(api, connection, 2)


def some(connection: socket.socket, data: bytes) -> int:
    """Sends what the kernel takes; returns how much."""
    try:
        return connection.send(data)
    except BlockingIOError:
        return 0


def test_a_post_that_is_not_for_the_intake() -> None:
    """What the intake gives back is answered by the application, and the next request is for the intake again."""
    with running() as (api, intake), api.connect(post()) as connection:
        for number in (1, 3):
            api.wait_for(lambda n=number: len(intake.bodies) == n)
            intake.answer(None)
            assert [(200, "7")] == outcomes(api, connection, 1)
            connection.sendall(post())
            api.wait_for(lambda n=number: len(intake.bodies) == n + 1)
            intake.answer(answer("taken"))
            assert [(202, "taken")] == outcomes(api, connection, 1)
            connection.sendall(post())
        api.wait_for(lambda: len(intake.bodies) == 5)
        intake.answer(None)


def test_a_body_behind_an_unknown_key() -> None:
    """A body is waited for only with a key that is known: else the application has the request as soon as its head came."""
    with running() as (api, intake), api.connect(post(key=KEY.upper().lower()[:-1] + "b")[:-1]) as connection:
        api.wait_for(lambda: api.app.requests == 1)
        connection.sendall(BODY[-1:])
        assert ([(200, "7")], []) == (outcomes(api, connection, 1), intake.bodies)


def test_a_body_that_does_not_come() -> None:
    """A post with a known key that is not complete at its deadline is answered 408, as every request is."""
    with running(seconds=0.3) as (api, intake), api.connect(post()[:-1]) as connection:
        assert (408, []) == (answer_on(connection).status, intake.bodies)
        assert b"" == connection.recv(100)


def test_an_intake_that_takes_too_long() -> None:
    """A connection whose request is not answered at its deadline is cut, and the answer that comes later goes nowhere."""
    with running(seconds=0.3) as (api, intake):
        with api.connect(post()) as connection:
            assert b"" == received(connection)
        intake.answer(answer("late"))
        with api.connect(post()) as connection:
            api.wait_for(lambda: len(intake.bodies) == 2)
            intake.answer(answer("next"))
            assert [(202, "next")] == outcomes(api, connection, 1)


def received(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    try:
        return connection.recv(100)
    except ConnectionResetError:
        return b""


def test_a_client_that_leaves() -> None:
    """What a client that has left asked for is done, and neither its answer nor the application disturbs others."""
    for late in (answer("late"), None):
        with running() as (api, intake), api.connect(post()) as other:
            api.wait_for(lambda i=intake: len(i.bodies) == 1)
            api.connect(post()).close()
            api.wait_for(lambda i=intake: len(i.bodies) == 2)
            api.wait_for(lambda a=api: a.connections() == 1)
            intake.answer(answer("other"))
            intake.answer(late)
            assert [(202, "other")] == outcomes(api, other, 1)
            assert 0 == api.app.requests


def test_an_end_while_the_intake_is_busy() -> None:
    """A TERM lets calls that are with the intake end, and then closes the connection."""
    answers: list[Answered] = []
    for late in (answer("last"), None):
        with running() as (api, intake), api.connect(post()) as connection, api.connect(post()[:-1]) as half:
            api.wait_for(lambda i=intake: len(i.bodies) == 1)
            api.wait_for(lambda a=api: a.held() > 0)
            api.begin_to_stop()
            api.wait_for(lambda a=api: a.is_ending())
            intake.answer(late)
            answers.append(answer_on(connection))
            assert b"" == connection.recv(100)
            half.close()
    assert [(202, "last"), (200, "")] == [(one.status, one.header("x-said")) for one in answers]


def test_a_connection_above_the_limit() -> None:
    """A connection that is one too many gets nothing from the intake."""
    with running(connections=1) as (api, intake), api.connect(post()):
        api.wait_for(lambda: len(intake.bodies) == 1)
        assert 200 == api.ask(post()).status
        assert 1 == len(intake.bodies)
        intake.answer(answer("first"))


def test_an_idle_connection() -> None:
    """A connection on which a post was answered is kept for some seconds, and then closed."""
    with running() as (api, intake), api.connect(post()) as connection:
        api.wait_for(lambda: len(intake.bodies) == 1)
        intake.answer(answer("one"))
        assert [(202, "one")] == outcomes(api, connection, 1)
        assert b"" == connection.recv(100)
