"""Access tokens of OAuth 2.0 client credentials (RFC 6749 §4.4): fetched from token servers, and kept in memory."""

import asyncio
import base64
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlencode

import httpx
import msgspec

from dispatcher.rules.attempt_errors import AUTH
from dispatcher.rules.authorization import ClientCredentials
from dispatcher.sending.exceptions import Failed
from dispatcher.sending.failures import Failure, InternalError, NoAnswer

DEFAULT_LIFE_SECONDS = 300.0
"""Life of a token whose answer has no `expires_in`."""

MAX_LIFE_SECONDS = 86_400.0
"""Longest that a token is used, whatever its answer says."""

SPARE_SECONDS, SPARE_SHARE = 30.0, 0.1
"""How long before its end a token is used no more, or the share of its life if that is less."""

RENEW_AFTER_SECONDS = 30.0
"""A token that a receiver answers 401 to is replaced once it is older than this.

So a receiver that always answers 401 causes at most one token in this time, for each worker and credentials.
"""

MAX_KEPT = 10_000
"""Most tokens in memory; the least recently used one goes first."""

MAX_TOKEN = 8192
"""Longest token, in characters."""

MAX_CODE = 60
"""Most characters of a token server's error code that are shown."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750 §2.1."""

_CODE = re.compile(r"[!-~]+")
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,9})?")


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """An access token; times are seconds of the clock of its Tokens."""

    text: str = field(repr=False)
    fetched_at: float
    """When the token server was asked for it."""
    usable_until: float


class Tokens:
    """Gives tokens for credentials. Never raises for what a token server does.

    Whatever asks for the same credentials at the same time shares one request, whose time-out is the transport's own.
    The client stays the caller's, to close after `aclose`.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        allow_http: bool = False,
    ) -> None:
        self.timeout_seconds = timeout_seconds
        """The time-out of a whole attempt, in which a token may have to be fetched."""
        self._client = client
        self._allow_http = allow_http
        self._clock = clock
        self._kept: OrderedDict[ClientCredentials, Token] = OrderedDict()
        """By the credentials themselves, so that changed ones never get a token of the ones before."""
        self._fetches: dict[ClientCredentials, asyncio.Task[Token | Failure]] = {}

    async def get(
        self, credentials: ClientCredentials, deadline: float, workspace: str = ""
    ) -> Token | Failure:
        """A token that is kept, or a new one; `deadline` is a time of the loop's clock."""
        token = self._kept.get(credentials)
        if token and self._clock() < token.usable_until:
            self._kept.move_to_end(credentials)
            return token
        return await self._fetched(credentials, deadline, workspace)

    async def renewed(
        self, credentials: ClientCredentials, refused: Token, deadline: float, workspace: str = ""
    ) -> Token | Failure | None:
        """A token in place of one that a receiver answered 401 to; None if that one was fetched just now."""
        token = self._kept.get(credentials)
        if token and token is not refused and self._clock() < token.usable_until:
            return token  # another attempt has replaced it
        if self._clock() - refused.fetched_at <= RENEW_AFTER_SECONDS:
            return None
        return await self._fetched(credentials, deadline, workspace)

    async def aclose(self) -> None:
        """Ends all requests."""
        fetches = list(self._fetches.values())
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)

    async def _fetched(
        self, credentials: ClientCredentials, deadline: float, workspace: str
    ) -> Token | Failure:
        """The result of the request that is under way, or of a new one. Shielded: it outlives an attempt that ends."""
        fetch = self._fetches.get(credentials)
        if fetch is None:
            fetch = self._fetches[credentials] = asyncio.create_task(self._fetch(credentials, workspace))
            fetch.add_done_callback(lambda done: self._ended(credentials, done))
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(fetch)
        except TimeoutError:
            return NoAnswer(AUTH, "token server: timeout (no answer in time)")

    def _ended(self, credentials: ClientCredentials, fetch: "asyncio.Task[Token | Failure]") -> None:
        del self._fetches[credentials]
        if fetch.cancelled() or fetch.exception():  # who waits for it has the exception too
            return
        token = fetch.result()
        if isinstance(token, Token) and self._clock() < token.usable_until:
            self._kept[credentials] = token
            self._kept.move_to_end(credentials)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)

    async def _fetch(self, credentials: ClientCredentials, workspace: str) -> Token | Failure:
        began = self._clock()
        if not self._allow_http and not credentials.token_url.lower().startswith("https:"):
            return _no_token("its URL is http://, and DISPATCHER_ALLOW_HTTP is off")
        try:
            response = await self._client.post(
                credentials.token_url,
                content=request_body(credentials),
                headers=request_headers(credentials),
                extensions={"workspace": workspace, "whole": True},
            )
        except Failed as error:
            return _unanswered(error.failure, credentials)
        except httpx.InvalidURL:
            return _no_token("its URL cannot be read")
        except (httpx.HTTPError, ValueError):  # what httpx makes of an answer
            return _no_token("protocol")
        return read_token(response.status_code, response.content, credentials, began)


def request_headers(credentials: ClientCredentials) -> dict[str, str]:
    """The headers of a token request: the client proves itself by HTTP Basic (RFC 6749 §2.3.1)."""
    return {
        "Accept": "application/json",
        "Authorization": f"Basic {_proof(credentials)}",
        "Content-Type": "application/x-www-form-urlencoded",
    }


def _proof(credentials: ClientCredentials) -> str:
    both = f"{quote_plus(credentials.client_id)}:{quote_plus(credentials.client_secret)}"
    return base64.b64encode(both.encode()).decode()


def request_body(credentials: ClientCredentials) -> bytes:
    """The form of a token request (RFC 6749 §4.4.2)."""
    form = {
        "grant_type": "client_credentials",
        "scope": credentials.scope,
        "audience": credentials.audience,
    }
    return urlencode({name: value for name, value in form.items() if value}).encode()


def read_token(status: int, body: bytes, credentials: ClientCredentials, asked_at: float) -> Token | NoAnswer:
    """The token of an answer to a request that was sent at `asked_at`; or why it has none."""
    document = _document(body)
    if status != 200:
        return _no_token(f"http_{status}", _error_code(document, credentials))
    if document is None:
        return _no_token("its answer is no JSON object, or too long")
    text, kind = document.get("access_token"), document.get("token_type")
    if not isinstance(text, str) or not _TOKEN.fullmatch(text) or len(text) > MAX_TOKEN:
        return _no_token(f"its answer has no access_token of 1 to {MAX_TOKEN} letters, digits and -._~+/=")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return _no_token("the token_type of its answer is not bearer")
    life = _life(document.get("expires_in"))
    if life is None:
        return _no_token("the expires_in of its answer is no number of seconds")
    return Token(text, asked_at, asked_at + life - min(SPARE_SECONDS, life * SPARE_SHARE))


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _life(expires_in: Any) -> float | None:
    """Seconds by `expires_in`, which some servers send as text; None if it is no number."""
    if expires_in is None:
        return DEFAULT_LIFE_SECONDS
    if isinstance(expires_in, str) and _NUMBER.fullmatch(expires_in):
        expires_in = float(expires_in)
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return None
    if isinstance(expires_in, float) and not math.isfinite(expires_in):
        return None
    return float(min(max(expires_in, 0), MAX_LIFE_SECONDS))  # an integer may have any number of digits


def _error_code(document: dict[str, Any] | None, credentials: ClientCredentials) -> str:
    """The `error` of RFC 6749 §5.2, as it may be shown; empty if there is none.

    Never its error_description, which is free text.
    """
    code = document.get("error") if document else None
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return ""
    return "" if _contains_secret(code, credentials) else code[:MAX_CODE]


def _unanswered(failure: Failure, credentials: ClientCredentials) -> Failure:
    """What a failed request is for its attempt; the operator's proxy and this machine keep their own words."""
    if isinstance(failure, InternalError):
        return InternalError(f"token server: {failure.text}")
    if failure.word == "proxy":
        return NoAnswer("proxy", f"token server: {failure.text}")
    return _no_token(failure.word, "" if _contains_secret(failure.text, credentials) else failure.text)


def _contains_secret(text: str, credentials: ClientCredentials) -> bool:
    """Whether a stranger's text has the secret in it, as it is or as it was sent."""
    secret = credentials.client_secret
    return any(one in text for one in (secret, quote_plus(secret), _proof(credentials)))


def _no_token(why: str, more: str = "") -> NoAnswer:
    return NoAnswer(AUTH, f"token server: {why} ({more})" if more else f"token server: {why}")
