"""One attempt: sign, POST, look at the answer."""

import email.utils
import functools
import time
from collections.abc import Sequence
from datetime import UTC

import httpx

from dispatcher.decide import PACED
from dispatcher.dialects import Signing, dialects
from dispatcher.errors import InvalidInput
from dispatcher.ledger import Claimed
from dispatcher.outcomes import Attempt
from dispatcher.signing import webhook_headers
from dispatcher.transport import OwnFault, TransportFailure
from dispatcher.workspaces import Workspace

ANSWER_BYTES = 256
"""How much of a failed answer the ledger keeps."""

MENDABLE = ("blocked_address", "tls_", "proxy")
"""Errors that somebody has to mend: the ledger keeps what they say in words, in place of an answer."""

_WORDS: Sequence[tuple[type[httpx.TransportError], str]] = (
    (httpx.TimeoutException, "timeout"),
    (httpx.ConnectError, "connect"),
    (httpx.ProtocolError, "protocol"),
    (httpx.TransportError, "maybe_received"),
)


class Sender:
    """POSTs callbacks through an httpx transport; never raises for what a receiver does."""

    def __init__(self, transport: httpx.AsyncBaseTransport, user_agent: str) -> None:
        self._transport = transport
        self._headers = {"Content-Type": "application/json", "User-Agent": user_agent, "Accept": "*/*"}

    async def send(self, callback: Claimed, workspace: Workspace | None, now_ms: int) -> Attempt:
        """Makes one attempt, at `now_ms` by Redis's clock."""
        if callback.body is None:
            return Attempt(now_ms, 0, error="body_missing")
        if workspace is None:
            return Attempt(now_ms, 0, error="workspace_removed")
        try:
            request = self._request(callback, workspace, now_ms)
        except InvalidInput as error:
            return Attempt(now_ms, 0, own_fault=f"workspace {workspace.id!r}: {error}")
        except (httpx.InvalidURL, UnicodeError):  # a host that is neither a name nor an address
            return Attempt(now_ms, 0, error="blocked_address")
        return await self._post(request, now_ms)

    def _request(self, callback: Claimed, workspace: Workspace, now_ms: int) -> httpx.Request:
        body = callback.body or b""
        timestamp = now_ms // 1000
        secrets = workspace.live_secrets(now_ms)
        signing = Signing(callback.event_id, body, [s.text for s in secrets], timestamp, callback.attempt)
        headers = (
            self._headers
            | dict(workspace.headers)
            | dialects()[workspace.dialect].headers(signing)
            | webhook_headers([s.key for s in secrets], callback.event_id, timestamp, body)
        )
        return httpx.Request("POST", _url(callback.url), headers=headers, stream=httpx.ByteStream(body))

    async def _post(self, request: httpx.Request, now_ms: int) -> Attempt:
        began = time.monotonic()
        try:
            response = await self._transport.handle_async_request(request)
        except OwnFault as error:
            return Attempt(now_ms, _since(began), own_fault=str(error))
        except httpx.TransportError as error:
            word, detail = _word(error), str(error)[:ANSWER_BYTES]
            kept = detail.encode(errors="replace") if word.startswith(MENDABLE) else b""
            return Attempt(now_ms, _since(began), error=word, answer=kept, detail=detail)
        duration_ms = _since(began)
        if response.is_success:
            return Attempt(now_ms, duration_ms, response.status_code)
        return Attempt(
            now_ms,
            duration_ms,
            response.status_code,
            f"http_{response.status_code}",
            _retry_after_ms(response, now_ms + duration_ms),
            b"".join([chunk async for chunk in response.aiter_raw()])[:ANSWER_BYTES],
        )


@functools.lru_cache(maxsize=4096)
def _url(text: str) -> httpx.URL:
    url = httpx.URL(text)
    url.host.isascii()  # decodes it: raises for a name that is none
    return url


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _word(error: httpx.TransportError) -> str:
    if isinstance(error, TransportFailure):
        return error.word
    return next(word for kind, word in _WORDS if isinstance(error, kind))


def _retry_after_ms(response: httpx.Response, now_ms: int) -> int | None:
    return (
        parse_retry_after(response.headers.get("retry-after", ""), now_ms)
        if response.status_code in PACED
        else None
    )


def parse_retry_after(value: str, now_ms: int) -> int | None:
    """Milliseconds to wait by a Retry-After header: seconds or an HTTP date; None for nonsense (RFC 9110 §10.2.3)."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return int(text[:12]) * 1000
    try:
        date = email.utils.parsedate_to_datetime(text)
        return max(0, round((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1000) - now_ms)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
