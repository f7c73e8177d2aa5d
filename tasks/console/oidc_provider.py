"""What an OpenID Connect provider says over HTTP: its discovery document, its keys, its tokens."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx
import msgspec
import structlog
from joserfc.jwk import KeySet

from dispatcher.errors import InvalidInput
from dispatcher.sending.tls import tls_context
from tasks.console.oidc_token import keys_in

KEPT_SECONDS = 3600.0
"""How long its document and its keys are used before they are asked for again."""
ANSWER_SECONDS = 10.0
MOST_BYTES = 1024 * 1024
"""The longest answer that is read."""
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
NO_ANSWER = "the identity provider does not answer as it should: try again, or log in with a key"

log = structlog.get_logger()


class Provider:
    """One provider. Every method raises InvalidInput, with nothing of what the provider said in it."""

    def __init__(
        self, issuer: str, ca_file: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.issuer = issuer
        self._ca_file = ca_file
        self._clock = clock
        self._client: httpx.AsyncClient | None = None
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}
        self._reading: dict[str, asyncio.Task[dict[str, Any]]] = {}

    async def document(self) -> dict[str, Any]:
        """Its discovery document (OpenID Connect Discovery 1.0 §4), whose issuer and URLs are checked."""
        return await self._read(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration", self._check)

    async def keys(self, *, anew: bool = False) -> KeySet:
        """The keys that it signs with."""
        url = (await self.document())["jwks_uri"]
        if anew:
            self._kept.pop(url, None)
        return keys_in(await self._read(url))

    async def id_token(self, form: Mapping[str, str], client_id: str, secret: str) -> str:
        """The ID token for a code (RFC 6749 §4.1.3); without a secret as a public client."""
        url = (await self.document())["token_endpoint"]
        if secret:
            proof = httpx.BasicAuth(quote_plus(client_id), quote_plus(secret))
            status, answer = await self._ask("POST", url, data=dict(form), auth=proof)
        else:
            status, answer = await self._ask("POST", url, data={**form, "client_id": client_id})
        text = answer.get("id_token")
        if status != 200 or not isinstance(text, str):
            raise self._refused("token", status, answer)
        return text

    async def close(self) -> None:
        """Closes its connections."""
        for task in self._reading.values():
            task.cancel()
        if self._client:
            await self._client.aclose()

    async def _read(
        self, url: str, check: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> dict[str, Any]:
        """A document of it, from memory while it is fresh.

        Those who want it at the same time share a request: strangers may, however many, while it does not answer.
        """
        read_at, found = self._kept.get(url, (0.0, None))
        if found is not None and self._clock() - read_at < KEPT_SECONDS:
            return found
        if url not in self._reading:
            task = self._reading[url] = asyncio.create_task(self._fetched(url, check))
            task.add_done_callback(lambda done: self._read_ended(url, done))
        return await asyncio.shield(self._reading[url])

    def _read_ended(self, url: str, task: "asyncio.Task[dict[str, Any]]") -> None:
        del self._reading[url]
        if not task.cancelled():
            task.exception()  # or asyncio would log one that nobody waits for any more

    async def _fetched(self, url: str, check: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        status, found = await self._ask("GET", url)
        if status != 200:
            raise self._refused("document", status, found)
        check(found)
        self._kept[url] = self._clock(), found
        return found

    def _check(self, document: dict[str, Any]) -> None:
        if document.get("issuer") != self.issuer:
            raise InvalidInput(
                "the identity provider's document names another issuer: set DISPATCHER_CONSOLE_OIDC_ISSUER to exactly what it names"
            )
        allowed = {urlsplit(self.issuer).scheme.lower(), "https"}
        for name in ENDPOINTS:
            if _scheme(document.get(name)) not in allowed:
                raise InvalidInput(f"the identity provider's document has no {name} that can be used")

    async def _ask(self, method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
        """The status and the JSON object of an answer. Redirects are not followed."""
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self._http().stream(method, url, **options) as answer,
            ):
                body = bytearray()
                async for some in answer.aiter_raw():
                    body += some
                    if len(body) > MOST_BYTES:
                        raise InvalidInput(NO_ANSWER)
            return answer.status_code, msgspec.json.decode(body, type=dict[str, Any])
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, msgspec.MsgspecError) as error:
            log.error("console.oidc_no_answer", problem=type(error).__name__, host=urlsplit(url).hostname)
            raise InvalidInput(NO_ANSWER) from None

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                verify=tls_context(self._ca_file),
                trust_env=False,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            )
        return self._client

    def _refused(self, what: str, status: int, answer: Mapping[str, Any]) -> InvalidInput:
        """The error for an answer that is not one; its error code (RFC 6749 §5.2) goes to the log alone."""
        code = answer.get("error")
        known = (
            code
            if isinstance(code, str) and code.isascii() and code.isidentifier() and len(code) <= 64
            else None
        )
        log.error("console.oidc_refused", asked=what, status=status, error=known)
        return InvalidInput(NO_ANSWER)


def _scheme(url: object) -> str:
    """The scheme of a URL with a host; empty for what is none."""
    try:
        found = httpx.URL(url) if isinstance(url, str) else httpx.URL()
    except httpx.InvalidURL:
        return ""
    return found.scheme if found.host else ""
