"""One attempt: sign, POST, look at the answer."""

import email.utils
import time
from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import assert_never

from dispatcher.errors import InvalidInput
from dispatcher.model import iso
from dispatcher.rules.attempt_errors import AUTH, DELIVERY_CONTROLS, is_explained
from dispatcher.rules.callback import Claimed
from dispatcher.rules.decide import RETRY_AFTER_STATUSES
from dispatcher.rules.endpoint_name import subscription_of
from dispatcher.rules.outcomes import Attempt
from dispatcher.rules.request_headers import NO_PROOF, Proof, proof_for, request_headers
from dispatcher.rules.subscription import DISABLED, Receiver
from dispatcher.rules.workspace import Workspace
from dispatcher.sending.answer import ANSWER_BYTES, Answer
from dispatcher.sending.echo import secrets_in, without_echo
from dispatcher.sending.failures import Failure, InternalError, NoAnswer
from dispatcher.sending.token_post import Poster, post_with_token
from dispatcher.sending.tokens import Tokens

NOT_2XX = 300
"""The lowest status of an answer whose body is kept."""


class Sender:
    """POSTs callbacks; never raises for what a receiver does."""

    def __init__(self, transport: Poster, user_agent: str, tokens: Tokens | None = None) -> None:
        self._transport = transport
        self._user_agent = user_agent
        self._tokens = tokens

    async def send(self, callback: Claimed, workspace: Workspace | None, now_ms: int) -> Attempt:
        """Makes one attempt, at `now_ms` by Redis's clock."""
        if callback.body is None:
            return Attempt(now_ms, 0, error="body_missing")
        if workspace is None:
            return Attempt(now_ms, 0, error="workspace_removed")
        receiver = _receiver_of(callback, workspace)
        if isinstance(receiver, str):
            return Attempt(now_ms, 0, error=receiver)
        try:
            headers = request_headers(callback, callback.body, receiver, now_ms, self._user_agent)
            has_proof = receiver.auth or receiver.client_certificate
            proof = proof_for(callback, receiver) if has_proof else NO_PROOF
        except InvalidInput as error:
            subscription = subscription_of(callback.event_id)
            of = f", subscription {subscription!r}" if subscription else ""
            return Attempt(now_ms, 0, internal_error=f"workspace {workspace.id!r}{of}: {error}")
        if proof.certificate and proof.certificate.ends_ms <= now_ms:
            detail = f"our client certificate ended at {iso(proof.certificate.ends_ms)}"
            return Attempt(now_ms, 0, error=AUTH, answer=detail.encode(), detail=detail)
        return await self._post(
            callback.url, headers, callback.body, workspace.id, now_ms, proof, receiver.headers
        )

    async def _post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        workspace: str,
        now_ms: int,
        proof: Proof,
        own: Iterable[str],
    ) -> Attempt:
        """`own`: the names of the receiver's own headers, whose values may be secrets."""
        began, credentials = time.monotonic(), proof.credentials
        if credentials is None:
            posted = await self._transport.post(url, headers, body, workspace, certificate=proof.certificate)
        elif self._tokens is None:
            posted = InternalError("a token is needed, and this process fetches none")
        else:
            posted = await post_with_token(
                self._transport, self._tokens, credentials, url, headers, body, workspace, proof.certificate
            )
        if isinstance(posted, Answer) and posted.status >= NOT_2XX:
            posted = without_echo(posted, secrets_in(headers, own))
        return attempt_of(posted, now_ms, round((time.monotonic() - began) * 1000))


def _receiver_of(callback: Claimed, workspace: Workspace) -> Receiver | str:
    """Whose callback it is; or the error by which it is not sent."""
    subscription = subscription_of(callback.event_id) if "." in callback.event_id else ""
    receiver = workspace.subscriptions.get(subscription) if subscription else workspace
    if receiver is None or (subscription and 0 < callback.first_accepted_ms < receiver.created_ms):
        return "subscription_removed"  # the latter: and added again by its name
    if receiver.state == DISABLED and (subscription or receiver.has_url(callback.url)):
        return "subscription_disabled"
    return receiver


def attempt_of(posted: Answer | Failure, now_ms: int, duration_ms: int) -> Attempt:
    """The attempt, for the ledger, of a POST that began at `now_ms`."""
    match posted:
        case Answer():  # matching its fields here took longer than everything else that is done with it
            status = posted.status
            if 200 <= status < 300:
                return Attempt(now_ms, duration_ms, status)
            retry_after_ms, kept = _retry_after_ms(posted, now_ms + duration_ms), posted.body[:ANSWER_BYTES]
            error = _delivery_control(posted) or f"http_{status}"
            return Attempt(now_ms, duration_ms, status, error, retry_after_ms, kept)
        case NoAnswer(word, text):
            detail = text[:ANSWER_BYTES]
            kept = detail.encode(errors="replace") if is_explained(word) else b""
            return Attempt(now_ms, duration_ms, error=word, answer=kept, detail=detail)
        case InternalError(text):
            return Attempt(now_ms, duration_ms, internal_error=text)
        case _:
            assert_never(posted)


def _delivery_control(answer: Answer) -> str | None:
    """The error that the header `webhook-delivery` means; of several words the one that says most counts."""
    if b"webhook-delivery" not in answer.head.lower():
        return None
    given = [value for name, value in answer.headers if name.lower() == b"webhook-delivery"]
    words = {word.strip() for word in b",".join(given).decode("latin-1").lower().split(",")}
    found = [error for word, error in DELIVERY_CONTROLS.items() if word in words]
    return found[-1] if found else None


def _retry_after_ms(answer: Answer, now_ms: int) -> int | None:
    if answer.status not in RETRY_AFTER_STATUSES:
        return None
    given = [value.decode("latin-1") for name, value in answer.headers if name.lower() == b"retry-after"]
    return parse_retry_after(", ".join(given), now_ms)


def parse_retry_after(value: str, now_ms: int) -> int | None:
    """Milliseconds to wait by a Retry-After header: seconds or an HTTP date (RFC 9110 §10.2.3); else None."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return int(text[:12]) * 1000
    try:
        date = email.utils.parsedate_to_datetime(text)
        return max(0, round((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1000) - now_ms)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
