"""Sends a signed test callback from here, as a delivery is sent; keeps nothing of it."""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import msgspec

from config.settings import Settings
from dispatcher.errors import InvalidInput
from dispatcher.model import StatusChange, iso
from dispatcher.rules.addresses import CallbackUrl, parse_callback_url, without_query
from dispatcher.rules.attempt_errors import ERRORS
from dispatcher.rules.callback import Callback, Claimed
from dispatcher.rules.client_certificate import ClientCertificate
from dispatcher.rules.dialects import dialects
from dispatcher.rules.endpoint_name import EndpointName, callback_id
from dispatcher.rules.outcomes import Attempt
from dispatcher.rules.render import NoCallback, RenderOptions, render
from dispatcher.rules.subscription import ACTIVE, DEFAULT
from dispatcher.rules.workspace import Workspace
from dispatcher.sending.answer import Answer
from dispatcher.sending.exceptions import Failed
from dispatcher.sending.failures import Failure
from dispatcher.sending.sender import Sender
from dispatcher.sending.tokens import Tokens
from dispatcher.sending.transport import http_client
from dispatcher.store.subscriptions import found as subscription_of
from tasks import engine_wiring, wiring
from tasks.actions import endpoints


async def ping_url(
    settings: Settings, workspace: Workspace, now_ms: int, url: str, subscription: str = ""
) -> dict[str, Any]:
    """Sends a test callback to a URL, on the terms of a subscription (empty: the default one); returns the result.

    Raises InvalidInput.
    """
    callback = _callback(settings, workspace, now_ms, url, subscription)
    others = {name: replace(one, state=ACTIVE) for name, one in workspace.subscriptions.items()}
    workspace = replace(
        workspace, state=ACTIVE, subscriptions=others
    )  # a disabled one can be tried before `resume`
    async with http_client(engine_wiring.transport(settings)) as client:
        tokens = Tokens(client, settings.request_timeout_seconds, allow_http=settings.allow_http)
        sender = Sender(ByHttpx(client), engine_wiring.USER_AGENT, tokens)
        attempt = await sender.send(_claimed(callback, now_ms), workspace, now_ms)
    return _document(callback, attempt)


async def url_of(store: wiring.Store, workspace: Workspace, given: CallbackUrl, name: EndpointName) -> str:
    """The full URL to ping: as given, from a waiting callback, or the subscription's own.

    Raises NotFound if there is no such endpoint, InvalidInput if the path is unknown.
    """
    endpoint = await store.endpoints.get(name)
    known = await store.endpoints.next_url(endpoint) if endpoint else None
    registered = subscription_of(workspace, name.subscription or DEFAULT).callback_url
    if not known and registered:
        own = parse_callback_url(registered, allow_http=True)
        known = own.url if own.origin == given.origin else None
    if not known and not endpoint:
        raise await endpoints.unknown(store, name.owner, given.origin)
    if given.target:
        return given.url
    if not known:
        raise InvalidInput("nothing waits there, so the path is not known: give the URL in full")
    return known


class ByHttpx:
    """A sender's POSTs through an httpx client that has our transport."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        workspace: str,
        *,
        deadline: float | None = None,
        certificate: ClientCertificate | None = None,
    ) -> Answer | Failure:
        """Sends one POST. The answer has the status and the raw body, without headers."""
        of = {"workspace": workspace, "deadline": deadline, "certificate": certificate}
        try:
            async with self._client.stream(
                "POST", url, headers=dict(headers), content=body, extensions=of
            ) as response:
                raw = b"".join([chunk async for chunk in response.aiter_raw()])
        except Failed as error:
            return error.failure
        return Answer(response.status_code, body=raw)


def _callback(settings: Settings, workspace: Workspace, now_ms: int, url: str, subscription: str) -> Callback:
    receiver = workspace.subscriptions[subscription] if subscription else workspace
    dialect = receiver.dialect
    if dialect not in dialects():
        raise InvalidInput(f"this installation has no dialect {dialect!r}: no test callback can be made")
    uuid = secrets.token_hex(8)
    change = StatusChange.from_dict(
        {
            "eventId": f"ping_{uuid}",
            "workspace": workspace.id,
            "status": "DELIVERED",
            "timestamp": iso(now_ms),
            "message": {"uuid": f"ping-{uuid}", "src": "PING", "dest": "+10000000000", "channel": "SMS"},
        }
    )
    options = RenderOptions(allow_http=True, expiry_ms=settings.expiry_seconds * 1000)
    without = receiver.without_fields
    to = replace(
        workspace,
        callback_url=url,
        dialect=dialect,
        events=(),
        channels=(),
        without_fields=without,
        state=ACTIVE,
    )
    callback = render(change, to, now_ms, options)
    if isinstance(callback, NoCallback):
        raise InvalidInput(f"the dialect {dialect} has no callback of a delivered message")
    return msgspec.structs.replace(callback, event_id=callback_id(callback.event_id, subscription))


def _claimed(callback: Callback, now_ms: int) -> Claimed:
    return Claimed(
        callback.event_id,
        1,
        1,
        now_ms + callback.ttl_ms,
        callback.event_type,
        callback.status,
        callback.message_uuid,
        callback.url,
        callback.body,
    )


def _document(callback: Callback, attempt: Attempt) -> dict[str, Any]:
    error = attempt.internal_error or attempt.error
    return {
        "eventId": callback.event_id,
        "eventType": callback.event_type,
        "url": without_query(callback.url),
        "taken": attempt.http_status is not None and 200 <= attempt.http_status < 300,
        "httpStatus": attempt.http_status,
        "error": error,
        "detail": attempt.detail or ERRORS.get(error or "") or None,
        "durationMs": attempt.duration_ms,
        "answer": (attempt.answer.decode(errors="replace") or None) if attempt.http_status else None,
    }
