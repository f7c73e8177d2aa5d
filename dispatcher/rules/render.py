"""Renders a status change as callbacks: one for each subscription of its workspace that wants it. No I/O."""

from dataclasses import dataclass

from msgspec.structs import replace

from dispatcher.errors import InvalidInput
from dispatcher.fast_decode import Change
from dispatcher.model import (
    Status,
    accepted_ms,
    check_not_ahead,
    encode_json,
    timestamp_ns,
)
from dispatcher.rules.addresses import CallbackUrl, parse_callback_url
from dispatcher.rules.callback import Callback
from dispatcher.rules.dialects import Dialect, dialect_of, dialects
from dispatcher.rules.endpoint_name import EndpointName, callback_id
from dispatcher.rules.field_mask import masked
from dispatcher.rules.subscription import DISABLED, Receiver
from dispatcher.rules.unrendered import NOWHERE, unrendered
from dispatcher.rules.workspace import Workspace


@dataclass(frozen=True)
class RenderOptions:
    """Settings for rendering."""

    allow_http: bool = False
    expiry_ms: int = 172_800_000


@dataclass(frozen=True, slots=True)
class NoCallback:
    """The dialect has no callback for this status, there is no callback URL, or the subscription does not want it."""


def render(
    change: Change, workspace: Workspace, now_ms: int, options: RenderOptions
) -> Callback | NoCallback:
    """Renders a status change for a workspace's default subscription, or for a URL of its own. Raises InvalidInput."""
    occurred_ns = timestamp_ns(change.timestamp)
    check_not_ahead(occurred_ns // 1_000_000, now_ms)
    dialect = dialect_of(workspace.dialect)
    event_type = dialect.event_type(change)
    goes_to = change.callback_url or workspace.callback_url
    if event_type is None or not goes_to:
        return NoCallback()
    is_choosy = not change.callback_url and (
        workspace.events or workspace.channels or workspace.state == DISABLED
    )
    if is_choosy and not workspace.wants(event_type, change.message.channel):
        return NoCallback()
    body = dialect.body(change, event_type, now_ms)
    if workspace.without_fields:
        body = masked(body, workspace.without_fields)
    url = parse_callback_url(goes_to, allow_http=options.allow_http)
    return _callback(change, workspace.id, "", event_type, url, encode_json(body), occurred_ns, options)


def fan_out(change: Change, workspace: Workspace, now_ms: int, options: RenderOptions) -> list[Callback]:
    """Renders a status change for all of a workspace's subscriptions that want it. Raises InvalidInput.

    The last callback has the eventId itself: it makes the status change known, so that it is accepted once. If the
    default subscription does not want it, that one has no endpoint, and is not posted. Of several subscriptions, the
    terms of one never refuse the status change: see `_of_one`.
    """
    if change.callback_url or not workspace.subscriptions:
        own = render(change, workspace, now_ms, options)
        return [own] if isinstance(own, Callback) else []
    occurred_ns, found = timestamp_ns(change.timestamp), list[Callback]()
    check_not_ahead(occurred_ns // 1_000_000, now_ms)
    usual = dialect_of(workspace.dialect).event_type(change)
    has_event, is_wanted = usual is not None, False
    for name, one in (*workspace.subscriptions.items(), ("", workspace)):
        dialect = dialects().get(one.dialect)
        event_type = dialect.event_type(change) if dialect else usual
        has_event = has_event or event_type is not None
        is_wanted = event_type is not None and one.wants(event_type, change.message.channel)
        if event_type is not None and is_wanted:
            url, body = _of_one(change, one, dialect, event_type, now_ms)
            found.append(_callback(change, workspace.id, name, event_type, url, body, occurred_ns, options))
    if is_wanted:  # by the default one, which comes last
        return found
    if found:  # the time to the handset is counted once
        found[0] = replace(found[0], to_delivered_ms=_to_delivered_ms(change, occurred_ns // 1_000_000))
    return [*found, _without_endpoint(change, workspace, occurred_ns, options)] if has_event else []


def _of_one(
    change: Change, one: Receiver, dialect: Dialect | None, event_type: str, now_ms: int
) -> tuple[CallbackUrl, bytes]:
    """URL and body of the callback for one of several subscriptions.

    If its terms allow none, the body is why (unrendered.py): the callback ends failed, and the others go on. Whether
    http:// is allowed is looked at when it is sent (worker/not_sent.py).
    """
    try:
        url = parse_callback_url(one.callback_url, allow_http=True)
    except InvalidInput as error:
        return parse_callback_url(NOWHERE), unrendered(str(error))
    if dialect is None:
        return url, unrendered(f"this installation has no dialect {one.dialect!r}")
    body = dialect.body(change, event_type, now_ms)
    return url, encode_json(masked(body, one.without_fields) if one.without_fields else body)


def _callback(
    change: Change,
    workspace: str,
    subscription: str,
    event_type: str,
    url: CallbackUrl,
    body: bytes,
    occurred_ns: int,
    options: RenderOptions,
) -> Callback:
    return Callback(
        workspace=workspace,
        event_id=callback_id(change.event_id, subscription) if subscription else change.event_id,
        event_type=event_type,
        status=change.status,
        message_uuid=change.message.uuid,
        url=url.url,
        endpoint=str(EndpointName(workspace, url.origin, subscription)),
        body=body,
        digest=change.digest(),
        timestamp_ns=occurred_ns,
        ttl_ms=change.ttl_seconds * 1000 if change.ttl_seconds else options.expiry_ms,
        to_delivered_ms=None if subscription else _to_delivered_ms(change, occurred_ns // 1_000_000),
        trace=tuple(filter(None, (change.traceparent, change.tracestate))) if change.traceparent else (),
    )


def _without_endpoint(
    change: Change, workspace: Workspace, occurred_ns: int, options: RenderOptions
) -> Callback:
    return Callback(
        workspace=workspace.id,
        event_id=change.event_id,
        event_type="-",
        status=change.status,
        message_uuid=change.message.uuid,
        url="",
        endpoint="",
        body=b"",
        digest=change.digest(),
        timestamp_ns=occurred_ns,
        ttl_ms=change.ttl_seconds * 1000 if change.ttl_seconds else options.expiry_ms,
    )


def _to_delivered_ms(change: Change, occurred_ms: int) -> int | None:
    """Time from submission to delivery, if the backend gave the submission time."""
    submitted = accepted_ms(change.message)
    if submitted is None or change.status is not Status.DELIVERED:
        return None
    return max(0, occurred_ms - submitted)
