"""Callbacks of subscriptions with OAuth 2.0 client credentials: a real token server, a real receiver, real POSTs."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from dataclasses import replace as changed
from urllib.parse import parse_qs, unquote_plus

import httpx
import pytest
import uvloop
from msgspec.structs import replace

from dispatcher.rules.addresses import AddressPolicy
from dispatcher.rules.attempt_errors import ERRORS
from dispatcher.rules.authorization import ClientCredentials
from dispatcher.rules.client_certificate import ClientCertificate
from dispatcher.rules.outcomes import Attempt
from dispatcher.sending.answer import Answer
from dispatcher.sending.failures import NoAnswer
from dispatcher.sending.http_connection import REST_SECONDS
from dispatcher.sending.sender import Sender
from dispatcher.sending.tokens import Tokens
from dispatcher.sending.transport import CallbackTransport, http_client
from tasks.actions.ping import ByHttpx
from tests.http.raw_server import (
    Behaviour,
    Connection,
    RawServer,
    Received,
    answer,
    answers,
    closes,
    hangs,
    serving,
)
from tests.http.test_sender import AGENT, BODY, NOW_MS, TLS, callback, workspace

LOCAL = AddressPolicy.of(["127.0.0.0/8"])
HUSH = "hush: 100% +ok/"
ID = "client:1 a"


def replies(reply: Callable[[Received], bytes]) -> Behaviour:
    """Answers each request by a function."""

    async def behaviour(connection: Connection) -> None:
        while True:
            await connection.send(reply(await connection.request()))

    return behaviour


def granting(life: float = 3600, name: str = "t") -> Behaviour:
    """Gives t1, t2 and so on, or such of another name."""
    count = 0

    def reply(_request: Received) -> bytes:
        nonlocal count
        count += 1
        document = {"access_token": f"{name}{count}", "token_type": "bearer", "expires_in": life}
        return answer(200, json.dumps(document).encode(), "Content-Type: application/json")

    return replies(reply)


def taking(*tokens: str) -> Behaviour:
    """A receiver that answers 200 to these tokens, 401 to others; without any it takes all."""
    known = {f"Bearer {one}" for one in tokens}
    return replies(
        lambda request: answer(200 if not tokens or known & set(request.values("authorization")) else 401)
    )


async def takes_and_hangs(connection: Connection) -> None:
    """A receiver that reads a request and never answers."""
    await connection.request()
    await connection.gone()


@dataclass
class Scene:
    """A sender between a token server and a receiver."""

    server: RawServer
    receiver: RawServer
    client: httpx.AsyncClient
    transport: CallbackTransport
    timeout_seconds: float
    now: float = 0.0
    credentials: ClientCredentials = field(init=False)

    def __post_init__(self) -> None:
        self.credentials = ClientCredentials(self.server.url_at("127.0.0.1", "/token?tenant=a"), ID, HUSH)
        self.tokens = Tokens(self.client, self.timeout_seconds, clock=lambda: self.now, allow_http=True)

    async def send(self, url: str = "", *, by_httpx: bool = False) -> Attempt:
        """One attempt of the default subscription's callback."""
        own = changed(workspace(), callback_url=self.receiver.url, auth=self.credentials)
        poster = ByHttpx(self.client) if by_httpx else self.transport
        sender = Sender(poster, AGENT, self.tokens)
        return await sender.send(callback(url or self.receiver.url), own, NOW_MS)

    @property
    def shown(self) -> list[str | None]:
        """The Authorization headers that the receiver got."""
        return [next(iter(one.values("authorization")), None) for one in self.receiver.received]


@asynccontextmanager
async def scene(
    server: Behaviour, receiver: Behaviour, seconds: float = 20.0, policy: AddressPolicy = LOCAL
) -> AsyncIterator[Scene]:
    """Both servers; all is closed at the end, the transport once."""
    async with AsyncExitStack() as closing:
        tokens = await closing.enter_async_context(serving(server))
        hooks = await closing.enter_async_context(serving(receiver))
        transport = CallbackTransport(policy, seconds, tls=TLS)
        client = await closing.enter_async_context(http_client(transport))
        made = Scene(tokens, hooks, client, transport, seconds)
        closing.push_async_callback(made.tokens.aclose)
        yield made


def played(
    tell: Callable[[Scene], Awaitable[None]],
    server: Behaviour,
    receiver: Behaviour,
    seconds: float = 20.0,
    policy: AddressPolicy = LOCAL,
) -> None:
    """Runs a story on the loop that a worker runs."""

    async def story() -> None:
        async with scene(server, receiver, seconds, policy) as made, asyncio.timeout(10):
            await tell(made)

    uvloop.run(story())


def test_one_token_for_many_callbacks() -> None:
    """It is fetched once, and goes out with each."""

    async def tell(made: Scene) -> None:
        for _ in range(20):
            assert (await made.send()).error is None
        assert made.shown == ["Bearer t1"] * 20
        assert len(made.server.received) == 1

    played(tell, granting(), taking())


def test_simultaneous_attempts_share_a_token() -> None:
    """Thirty at once ask the token server once."""

    async def tell(made: Scene) -> None:
        attempts = await asyncio.gather(*(made.send() for _ in range(30)))
        assert {one.http_status for one in attempts} == {200}
        assert made.shown == ["Bearer t1"] * 30
        assert len(made.server.received) == 1

    played(tell, granting(), taking())


def test_fetched_again_near_its_end() -> None:
    """Not before, and not after."""

    async def tell(made: Scene) -> None:
        for now in (0, 3569, 3571):
            made.now = now
            await made.send()
        assert made.shown == ["Bearer t1", "Bearer t1", "Bearer t2"]

    played(tell, granting(), taking())


def test_what_the_token_server_is_asked() -> None:
    """A POST to the whole URL: a form with scope and audience, and Basic with id and secret form-encoded."""

    async def tell(made: Scene) -> None:
        made.credentials = replace(made.credentials, scope="a b", audience="https://api.example/")
        await made.send()
        [asked] = made.server.received
        assert asked.line == "POST /token?tenant=a HTTP/1.1"
        assert parse_qs(asked.body.decode()) == {
            "grant_type": ["client_credentials"],
            "scope": ["a b"],
            "audience": ["https://api.example/"],
        }
        assert asked.values("content-type") == ["application/x-www-form-urlencoded"]
        assert asked.values("accept") == ["application/json"]
        [basic] = asked.values("authorization")
        user, _, secret = base64.b64decode(basic.removeprefix("Basic ")).decode().partition(":")
        assert (unquote_plus(user), unquote_plus(secret)) == (ID, HUSH)
        assert len(asked.headers) == 5  # with Host and Content-Length: nothing else is told

    played(tell, granting(), taking())


def test_once_more_after_401() -> None:
    """A token that is no longer new is replaced within the attempt; all else of the second POST is as it was."""

    async def tell(made: Scene) -> None:
        await made.send()
        made.now = 31
        assert (await made.send()).http_status == 200
        assert made.shown == ["Bearer t1", "Bearer t1", "Bearer t2"]
        _, first, second = made.receiver.received
        assert first.body == second.body == BODY
        assert [one for one in first.headers if one[0] != "Authorization"] == [
            one for one in second.headers if one[0] != "Authorization"
        ]

    played(tell, granting(), taking("t2"))


def test_an_answer_that_repeats_the_token_is_not_kept() -> None:
    """A token is in no answer that is kept: who reads that may not use it."""

    async def tell(made: Scene) -> None:
        assert (await made.send()).answer == b"(not kept: it repeats a header that we sent)"

    played(
        tell, granting(name="a-token-of-some-length-"), answers(answer(500, b"no a-token-of-some-length-1"))
    )


def test_401_to_a_new_token_is_the_answer() -> None:
    """Neither is a second token fetched, nor the callback sent again."""

    async def tell(made: Scene) -> None:
        for _ in range(3):
            attempt = await made.send()
            assert (attempt.error, attempt.http_status, attempt.answer) == ("http_401", 401, b"ok")
        assert made.shown == ["Bearer t1"] * 3
        assert len(made.server.received) == 1

    played(tell, granting(), taking("none"))


def test_a_receiver_that_refuses_every_token() -> None:
    """A token every 30 s at most, and two POSTs in an attempt at most."""

    async def tell(made: Scene) -> None:
        for made.now in (0, 30, 31, 40, 50, 61):
            assert (await made.send()).error == "http_401"
        assert len(made.server.received) == 2
        assert made.shown == ["Bearer t1"] * 3 + ["Bearer t2"] * 4

    played(tell, granting(), taking("none"))


def test_attempts_that_are_refused_together_share_the_new_token() -> None:
    """Ten old tokens are refused at once; one new one is fetched."""

    async def tell(made: Scene) -> None:
        await made.send()
        made.now = 31
        attempts = await asyncio.gather(*(made.send() for _ in range(10)))
        assert {one.http_status for one in attempts} == {200}
        assert len(made.server.received) == 2

    played(tell, granting(), taking("t2"))


TOO_LONG = json.dumps({"access_token": "t", "token_type": "bearer", "x": "x" * 20_000}).encode()
REFUSAL = json.dumps({"error": "invalid_client", "error_description": f"not {HUSH}"}).encode()
TROUBLE: dict[str, tuple[Behaviour, str]] = {
    "500": (replies(lambda _: answer(500, b"hush")), "token server: http_500"),
    "a refusal": (replies(lambda _: answer(401, REFUSAL)), "token server: http_401 (invalid_client)"),
    "a redirect": (replies(lambda _: answer(302, b"", "Location: /other")), "token server: http_302"),
    "nonsense": (replies(lambda _: answer(200, b"<html>")), "token server: its answer is no JSON object, or too long"),
    "too long": (replies(lambda _: answer(200, TOO_LONG)), "token server: its answer is no JSON object, or too long"),
    "no HTTP": (replies(lambda _: b"SSH-2.0-x\r\n"), "token server: protocol ("),
    "closes": (closes, "token server: maybe_received ("),
    "hangs": (hangs, "token server: timeout (no answer in time)"),
}  # fmt: skip


@pytest.mark.parametrize("by_httpx", [False, True], ids=["worker", "ping"])
@pytest.mark.parametrize(("server", "detail"), TROUBLE.values(), ids=list(TROUBLE))
def test_trouble_with_the_token_server(server: Behaviour, detail: str, by_httpx: bool) -> None:
    """It is the attempt's error `auth`, with one line why and no secret in it; the receiver is not asked."""

    async def tell(made: Scene) -> None:
        attempt = await made.send(by_httpx=by_httpx)
        assert (attempt.error, attempt.http_status, attempt.internal_error) == ("auth", None, None)
        assert attempt.detail.startswith(detail)
        assert attempt.answer == attempt.detail.encode()
        assert attempt.detail.isprintable()
        assert not [one for one in ("hush", "tenant") if one in repr(attempt)]
        assert made.receiver.received == []

    assert "auth" in ERRORS
    played(tell, server, taking(), 0.3)


def test_a_token_server_that_is_down_and_comes_back() -> None:
    """Its refusal is not kept: the next attempt has a token."""
    up = granting()
    is_down = True

    async def server(connection: Connection) -> None:
        await (closes if is_down else up)(connection)

    async def tell(made: Scene) -> None:
        nonlocal is_down
        assert (await made.send()).error == "auth"
        is_down = False
        assert (await made.send()).http_status == 200

    played(tell, server, taking())


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.2:1/token?tenant=a", "connect ("),
        ("http://169.254.169.254/token?tenant=a", "blocked_address (169.254.169.254"),
        ("http://[fd00::1]/token?tenant=a", "blocked_address ("),
    ],
)
def test_a_token_server_that_cannot_be_reached(url: str, why: str) -> None:
    """Tokens are fetched through the guarded transport; a blocked address may be allowed later, so it is tried again."""

    async def tell(made: Scene) -> None:
        made.credentials = replace(made.credentials, token_url=url)
        attempt = await made.send()
        assert attempt.error == "auth"
        assert attempt.detail.startswith(f"token server: {why}")
        assert "tenant" not in repr(attempt)

    played(tell, granting(), taking())


def test_nothing_is_fetched_for_others() -> None:
    """A `callbackUrl` goes without a token, and without one being fetched."""

    async def tell(made: Scene) -> None:
        attempt = await made.send(made.receiver.url_at("127.0.0.1", "/other"))
        assert attempt.http_status == 200
        assert made.shown == [None]
        assert made.server.received == []

    played(tell, granting(), taking())


def test_a_sender_without_tokens() -> None:
    """It is our fault, and costs no attempt; nothing is sent without a token."""

    async def tell(made: Scene) -> None:
        own = changed(workspace(), callback_url=made.receiver.url, auth=made.credentials)
        attempt = await Sender(made.transport, AGENT).send(callback(made.receiver.url), own, NOW_MS)
        assert attempt.internal_error == "a token is needed, and this process fetches none"
        assert made.receiver.received == []

    played(tell, granting(), taking())


def test_a_token_server_that_sends_its_head_first() -> None:
    """Of a callback's answer the status is enough; a token is waited for until the attempt's time is over."""

    async def head_first(connection: Connection) -> None:
        while True:
            await connection.request()
            whole = answer(200, b'{"access_token": "t1", "token_type": "bearer"}')
            end = whole.index(b"\r\n\r\n") + 4
            await connection.send(whole[:end])
            await asyncio.sleep(REST_SECONDS + 0.3)
            await connection.send(whole[end:])

    async def tell(made: Scene) -> None:
        attempt = await made.send()
        assert (attempt.error, attempt.http_status) == (None, 200)
        assert made.shown == ["Bearer t1"]

    played(tell, head_first, taking())


@pytest.mark.parametrize("by_httpx", [False, True], ids=["worker", "ping"])
def test_an_attempt_has_one_deadline(by_httpx: bool) -> None:
    """A receiver that hangs ends with the attempt's time, not with a time-out of its own that begins after the token."""

    async def tell(made: Scene) -> None:
        made.tokens.timeout_seconds = 0.3  # of the attempt; the transport alone would wait for an hour
        attempt = await made.send(by_httpx=by_httpx)
        assert (attempt.error, attempt.detail) == ("timeout", "no answer in time")
        assert made.shown == ["Bearer t1"]

    played(tell, granting(), takes_and_hangs, 3600)


def test_all_of_an_attempt_has_the_same_deadline() -> None:
    """Both POSTs are given it, and show the client certificate if there is one."""
    shown = ClientCertificate("", "", "f", "", NOW_MS * 2)
    deadlines: list[float | None] = []

    class Refusing:
        async def post(
            self, *_request: object, deadline: float | None = None, certificate: object = None
        ) -> Answer:
            deadlines.append(deadline)
            assert certificate is shown
            await asyncio.sleep(0.01)  # the loop's clock goes on
            return Answer(401)

    async def tell(made: Scene) -> None:
        own = changed(
            workspace(), callback_url=made.receiver.url, auth=made.credentials, client_certificate=shown
        )
        sender = Sender(Refusing(), AGENT, made.tokens)
        await sender.send(callback(made.receiver.url), own, NOW_MS)
        made.now = 31
        await sender.send(callback(made.receiver.url), own, NOW_MS)
        first, second, third = deadlines
        assert first is not None
        assert first != second == third

    played(tell, granting(), taking())


def test_a_hanging_token_server_delays_nobody_else() -> None:
    """Attempts with other credentials, or without any, go on."""

    async def tell(made: Scene) -> None:
        waiting = asyncio.create_task(made.send())
        made.credentials = replace(made.credentials, client_id="another")
        async with serving(granting()) as other:
            made.credentials = replace(made.credentials, token_url=other.url)
            assert (await made.send()).http_status == 200
        assert not waiting.done()
        waiting.cancel()

    played(tell, hangs, taking())


@pytest.mark.parametrize("seconds", [-1.0, 0.1])
def test_a_deadline_of_a_post(seconds: float) -> None:
    """The transport keeps to one that it is given, also if it has passed."""

    async def tell(made: Scene) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        found = await made.transport.post(made.receiver.url, {}, b"{}", deadline=deadline)
        assert isinstance(found, NoAnswer)
        assert found.word == "timeout"

    played(tell, granting(), hangs, 3600)


@pytest.mark.parametrize(
    "location", ["\x01", "https://xn--a.example/", "mailto:x@y", "https://other.example/"]
)
def test_where_a_token_server_points(location: str) -> None:
    """Nobody follows it, nor reads it: what it holds is a refusal like any other."""

    async def tell(made: Scene) -> None:
        for _ in range(2):
            attempt = await made.send()
            assert (attempt.error, attempt.detail) == ("auth", "token server: http_302")
        assert made.receiver.received == []

    played(tell, replies(lambda _: answer(302, b"", f"Location: {location}")), taking())


def test_http_where_it_is_not_allowed_any_more() -> None:
    """The secret goes nowhere in clear, though it was stored while http:// was allowed."""

    async def tell(made: Scene) -> None:
        made.tokens = Tokens(made.client, made.timeout_seconds)
        attempt = await made.send()
        assert attempt.error == "auth"
        assert "its URL is http://, and DISPATCHER_ALLOW_HTTP is off" in attempt.detail
        assert (made.server.received, made.receiver.received) == ([], [])

    played(tell, granting(), taking())
