"""Access tokens: how long one is kept, and who shares a request."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

import httpx
import pytest
from msgspec.structs import replace

from dispatcher.rules.authorization import ClientCredentials
from dispatcher.sending import tokens as module
from dispatcher.sending.exceptions import exception_of
from dispatcher.sending.failures import Failure, InternalError, NoAnswer
from dispatcher.sending.tokens import Token, Tokens
from tests.fakes import played, quiet
from tests.unit.test_token_answers import CREDENTIALS, HUSH, granted

LONG = 1e9
"""A deadline that is never met."""


class Server:
    """A token server in this process; each of its tokens is another."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[httpx.Request] = []
        self.failure: Failure | Exception | None = None
        self.life: float = 3600
        self.gate = asyncio.Event()
        self.gate.set()
        client = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.tokens = Tokens(client, 10.0, clock=lambda: self.now)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        number = len(self.asked)
        await self.gate.wait()
        if isinstance(self.failure, Exception):
            raise self.failure
        if self.failure:
            raise exception_of(self.failure)
        return httpx.Response(200, content=granted(access_token=f"t{number}", expires_in=self.life))

    async def get(self, credentials: ClientCredentials = CREDENTIALS, deadline: float = LONG) -> Token:
        """A token, which there must be."""
        token = await self.tokens.get(credentials, deadline)
        assert isinstance(token, Token), token
        return token


def story(tell: Callable[[Server], Awaitable[None]]) -> None:
    """Runs what happens at a server; nothing may break behind it."""

    async def told() -> None:
        server = Server()
        await tell(server)
        await server.tokens.aclose()

    assert played(told()) == []


def test_it_is_kept() -> None:
    """Until 30 s before its end it is the same token; then a new one is fetched."""

    async def tell(server: Server) -> None:
        first = await server.get()
        server.now += 3569.9
        assert await server.get() is first
        server.now += 0.2
        assert (await server.get()).text == "t2"
        assert len(server.asked) == 2

    story(tell)


def test_changed_credentials_get_a_token_of_their_own() -> None:
    """Whatever of them is another: URL, id, secret, scope, audience."""

    async def tell(server: Server) -> None:
        await server.get()
        for field in ("token_url", "client_id", "client_secret", "scope", "audience"):
            other = replace(CREDENTIALS, **{field: "https://other.example/"})
            assert (await server.get(other)).text == f"t{len(server.asked)}"
        assert len(server.asked) == 6

    story(tell)


def test_it_is_as_old_as_its_request() -> None:
    """The time that the server took counts as its life."""

    async def tell(server: Server) -> None:
        server.gate.clear()
        getting = asyncio.create_task(server.get())
        await quiet()
        server.now += 60
        server.gate.set()
        assert (await getting).usable_until == 1000 + 3570

    story(tell)


def test_a_token_without_a_life_is_not_kept() -> None:
    """It is used once."""

    async def tell(server: Server) -> None:
        server.life = 0
        assert [(await server.get()).text for _ in range(2)] == ["t1", "t2"]

    story(tell)


def test_simultaneous_attempts_share_a_request() -> None:
    """A hundred ask, the server is asked once; other credentials ask by themselves."""

    async def tell(server: Server) -> None:
        server.gate.clear()
        other = replace(CREDENTIALS, scope="b")
        asking = [asyncio.create_task(server.get()) for _ in range(100)]
        asking.append(asyncio.create_task(server.get(other)))
        await quiet()
        server.gate.set()
        assert {(await one).text for one in asking} == {"t1", "t2"}
        assert len(server.asked) == 2

    story(tell)


def test_who_is_cancelled_takes_nothing_from_the_others() -> None:
    """The attempt that asked first goes; the second one gets the token, and it is kept."""

    async def tell(server: Server) -> None:
        server.gate.clear()
        first, second = (asyncio.create_task(server.get()) for _ in range(2))
        await quiet()
        first.cancel()
        await quiet()
        server.gate.set()
        assert (await second).text == (await server.get()).text == "t1"
        assert first.cancelled()

    story(tell)


def test_all_are_cancelled() -> None:
    """What they asked for is kept when it comes; if it breaks, no task dies unheard."""

    async def tell(server: Server) -> None:
        for failure in (None, RuntimeError("a bug")):
            server.gate.clear()
            server.failure = failure
            server.now += 10_000
            asking = asyncio.create_task(server.get())
            await quiet()
            asking.cancel()
            await quiet()
            server.gate.set()
            await quiet()
            gc.collect()
        server.now -= 10_000
        assert (await server.get()).text == "t1"

    story(tell)


def test_a_bug_reaches_all_who_wait() -> None:
    """It is raised, as any bug is, and the next one asks anew."""

    async def tell(server: Server) -> None:
        server.failure = RuntimeError("a bug")
        both = await asyncio.gather(server.get(), server.get(), return_exceptions=True)
        assert [str(one) for one in both] == ["a bug"] * 2
        server.failure = None
        assert (await server.get()).text == "t2"

    story(tell)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (
            NoAnswer("timeout", "no answer in time"),
            NoAnswer("auth", "token server: timeout (no answer in time)"),
        ),
        (
            NoAnswer("blocked_address", "10.0.0.1 is no"),
            NoAnswer("auth", "token server: blocked_address (10.0.0.1 is no)"),
        ),
        (NoAnswer("protocol", f"it said {HUSH}"), NoAnswer("auth", "token server: protocol")),
        (
            NoAnswer("proxy", "the proxy answered 502"),
            NoAnswer("proxy", "token server: the proxy answered 502"),
        ),
        (InternalError("no descriptors"), InternalError("token server: no descriptors")),
    ],
    ids=lambda value: getattr(value, "word", "internal"),
)
def test_a_failure(failure: Failure, expected: Failure) -> None:
    """It is `auth`, unless our proxy or this machine is to blame; it is not kept: the next one asks again."""

    async def tell(server: Server) -> None:
        server.failure = failure
        assert await server.tokens.get(CREDENTIALS, LONG) == expected
        server.failure = None
        assert (await server.get()).text == "t2"

    story(tell)


def test_nobody_waits_beyond_the_deadline() -> None:
    """The attempt ends as `auth`; what was asked for is there for the next one."""

    async def tell(server: Server) -> None:
        server.gate.clear()
        soon = asyncio.get_running_loop().time() + 0.01
        assert await server.tokens.get(CREDENTIALS, soon) == NoAnswer(
            "auth", "token server: timeout (no answer in time)"
        )
        server.gate.set()
        assert (await server.get()).text == "t1"

    story(tell)


def test_after_401() -> None:
    """A token that is older than 30 s is replaced, once for all who used it; a fresh one is not."""

    async def tell(server: Server) -> None:
        first = await server.get()
        server.now += 30
        assert await server.tokens.renewed(CREDENTIALS, first, LONG) is None
        server.now += 0.1
        server.gate.clear()
        both = [asyncio.create_task(server.tokens.renewed(CREDENTIALS, first, LONG)) for _ in range(2)]
        await quiet()
        server.gate.set()
        second, same = [await one for one in both]
        assert second is same
        assert await server.tokens.renewed(CREDENTIALS, first, LONG) is second
        assert await server.get() is second
        assert await server.tokens.renewed(CREDENTIALS, second, LONG) is None
        assert len(server.asked) == 2

    story(tell)


def test_a_token_stays_if_there_is_no_other() -> None:
    """The receiver of another subscription may still accept it."""

    async def tell(server: Server) -> None:
        first = await server.get()
        server.now += 31
        server.failure = NoAnswer("connect", "refused")
        refused = await server.tokens.renewed(CREDENTIALS, first, LONG)
        assert refused == NoAnswer("auth", "token server: connect (refused)")
        assert await server.get() is first

    story(tell)


def test_the_least_recently_used_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many are kept, and no more."""
    monkeypatch.setattr(module, "MAX_KEPT", 3)

    async def tell(server: Server) -> None:
        a, b, c, d = (replace(CREDENTIALS, scope=scope) for scope in "abcd")
        for one in (a, b, c, a, d):
            await server.get(one)
        assert len(server.asked) == 4
        for one in (a, c, d):
            await server.get(one)
        assert len(server.asked) == 4
        await server.get(b)
        assert len(server.asked) == 5

    story(tell)


def test_closing_ends_requests() -> None:
    """None is left behind."""

    async def tell(server: Server) -> None:
        server.gate.clear()
        asking = asyncio.create_task(server.get())
        await quiet()
        await server.tokens.aclose()
        assert [True] == [
            isinstance(one, asyncio.CancelledError)
            for one in await asyncio.gather(asking, return_exceptions=True)
        ]

    story(tell)
