"""Renders a status change as its workspace's callback. No I/O."""

from dataclasses import dataclass

from dispatcher.model import (
    Status,
    StatusChange,
    check_not_ahead,
    encode_json,
    timestamp_ms,
    timestamp_ns,
)
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.callback import Callback
from dispatcher.rules.dialects import dialect_of
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.workspace import Workspace


@dataclass(frozen=True)
class RenderOptions:
    """Settings for rendering."""

    allow_http: bool = False
    expiry_ms: int = 172_800_000


@dataclass(frozen=True, slots=True)
class NoCallback:
    """The workspace's dialect has no callback for this status, or there is no callback URL."""


def render(
    change: StatusChange, workspace: Workspace, now_ms: int, options: RenderOptions
) -> Callback | NoCallback:
    """Renders a status change for a workspace. Raises InvalidInput."""
    occurred_ns = timestamp_ns(change.timestamp)
    occurred_ms = occurred_ns // 1_000_000
    check_not_ahead(occurred_ms, now_ms)
    dialect = dialect_of(workspace.dialect)
    event_type = dialect.event_type(change)
    goes_to = change.callback_url or workspace.callback_url
    if event_type is None or not goes_to:
        return NoCallback()
    url = parse_callback_url(goes_to, allow_http=options.allow_http)
    return Callback(
        workspace=workspace.id,
        event_id=change.event_id,
        event_type=event_type,
        status=change.status,
        message_uuid=change.message.uuid,
        url=url.url,
        endpoint=str(EndpointName(workspace.id, url.origin)),
        body=encode_json(dialect.body(change, event_type, now_ms)),
        digest=change.digest(),
        timestamp_ns=occurred_ns,
        ttl_ms=change.ttl_seconds * 1000 if change.ttl_seconds else options.expiry_ms,
        to_delivered_ms=_to_delivered_ms(change, occurred_ms),
    )


def _to_delivered_ms(change: StatusChange, occurred_ms: int) -> int | None:
    """Time from submission to delivery, if the backend gave the submission time."""
    submitted = change.message.accepted_at
    if submitted is None or change.status is not Status.DELIVERED:
        return None
    return max(0, occurred_ms - timestamp_ms(submitted))
