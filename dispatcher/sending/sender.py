"""One attempt: sign, POST, look at the answer."""

import email.utils
import time
from collections.abc import Mapping
from datetime import UTC
from typing import Protocol

from dispatcher.errors import InvalidInput
from dispatcher.rules.callback import Claimed
from dispatcher.rules.decide import PACED
from dispatcher.rules.dialects import Signing, dialect_of
from dispatcher.rules.outcomes import Attempt
from dispatcher.rules.workspace import Workspace
from dispatcher.sending.answer import Answer
from dispatcher.sending.transport import OwnFault, TransportFailure
from dispatcher.signing import webhook_headers

ANSWER_BYTES = 256
"""How much of a failed answer the ledger keeps."""

EXPLAINED = ("blocked_address", "tls_", "proxy", "protocol", "maybe_received")
"""Errors that the ledger keeps in words, in place of an answer.

Not `dns`, `connect` and `timeout`: the word says nearly all, an outage makes very many, and the log has the rest.
"""


class Poster(Protocol):
    """What a sender needs of the transport."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """One POST. Raises TransportFailure or OwnFault."""


class Sender:
    """POSTs callbacks; never raises for what a receiver does."""

    def __init__(self, transport: Poster, user_agent: str) -> None:
        self._transport = transport
        self._headers = {"Content-Type": "application/json", "User-Agent": user_agent, "Accept": "*/*"}

    async def send(self, callback: Claimed, workspace: Workspace | None, now_ms: int) -> Attempt:
        """Makes one attempt, at `now_ms` by Redis's clock."""
        if callback.body is None:
            return Attempt(now_ms, 0, error="body_missing")
        if workspace is None:
            return Attempt(now_ms, 0, error="workspace_removed")
        try:
            headers = self._headers_of(callback, callback.body, workspace, now_ms)
        except InvalidInput as error:
            return Attempt(now_ms, 0, own_fault=f"workspace {workspace.id!r}: {error}")
        return await self._post(callback.url, headers, callback.body, now_ms)

    def _headers_of(
        self, callback: Claimed, body: bytes, workspace: Workspace, now_ms: int
    ) -> dict[str, str]:
        timestamp = now_ms // 1000
        secrets = workspace.live_secrets(now_ms)
        signing = Signing(callback.event_id, body, [s.text for s in secrets], timestamp, callback.attempt)
        return {
            **self._headers,
            **workspace.headers,
            **dialect_of(workspace.dialect).headers(signing),
            **webhook_headers([s.key for s in secrets], callback.event_id, timestamp, body),
        }

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes, now_ms: int) -> Attempt:
        began = time.monotonic()
        try:
            answer = await self._transport.post(url, headers, body)
        except OwnFault as error:
            return Attempt(now_ms, _since(began), own_fault=str(error))
        except TransportFailure as error:
            detail = str(error)[:ANSWER_BYTES]
            kept = detail.encode(errors="replace") if error.word.startswith(EXPLAINED) else b""
            return Attempt(now_ms, _since(began), error=error.word, answer=kept, detail=detail)
        duration_ms = _since(began)
        if 200 <= answer.status < 300:
            return Attempt(now_ms, duration_ms, answer.status)
        return Attempt(
            now_ms,
            duration_ms,
            answer.status,
            f"http_{answer.status}",
            _retry_after_ms(answer, now_ms + duration_ms),
            answer.body[:ANSWER_BYTES],
        )


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _retry_after_ms(answer: Answer, now_ms: int) -> int | None:
    if answer.status not in PACED:
        return None
    given = [value.decode("latin-1") for name, value in answer.headers if name.lower() == b"retry-after"]
    return parse_retry_after(", ".join(given), now_ms)


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
