"""Sendexa's status API: one message, and totals (developers.sendexa.co/sms/status, docs.sendexa.co/authentication).

The answer has the documented form. Where the pages leave something open, we chose: the content of `statusHistory` and
`webhookStatus` (the latest 100 callbacks of the message: state, attempts, next retry); for all errors the form of the
older pages (`status`, `code`, `message`, `timestamp`); `deliveredAt` is null before delivery; `provider` is the backend's
`provider.name`; without an error code from the backend, the one of the table E001 to E006 that fits the status;
`/analytics`, over a number of hours.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from starlette.requests import HTTPConnection

from dispatcher.api.responses import (
    Amount,
    Flag,
    Shape,
    answer,
    caller,
    documented,
    failures,
    parts_of,
    searching,
)
from dispatcher.model import Status, iso, iso_seconds
from dispatcher.rules.dialects.sendexa import DEFAULT_ERRORS
from dispatcher.store.api_keys import ApiKey
from dispatcher.store.stored_callback import StoredCallback
from dispatcher.store.stored_message import StoredMessage

PREFIX = "/v1/sms"
MAX_CALLBACKS = 100
"""How many callbacks of a message are shown: the latest."""
AN_HOUR = 5
"""Cost of reading one hour of figures, in messages read."""
STATUSES = {
    Status.SCHEDULED: "queued",
    Status.QUEUED: "queued",
    Status.PROCESSING: "queued",
    Status.SUBMITTED: "queued",
    Status.UNKNOWN: "queued",
    Status.SENT: "sent",
    Status.BUFFERED: "sent",
    Status.DELIVERED: "delivered",
    Status.READ: "delivered",
    Status.FAILED: "failed",
    Status.UNDELIVERABLE: "failed",
    Status.EXPIRED: "expired",
    Status.REJECTED: "rejected",
}
CODES = {
    400: "INVALID_PARAMETERS",
    401: "INVALID_TOKEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    429: "RATE_LIMIT_EXCEEDED",
}


class Step(Shape):
    """A status and the time from which it held."""

    status: str
    timestamp: str


class Callback(Shape):
    """What became of one of the message's callbacks."""

    event_id: str
    event: str
    state: str
    """pending, sending, retrying, delivered, failed, expired or superseded"""
    attempts: int
    last_attempt_at: str | None
    last_http_status: int | None
    last_error: str | None
    next_retry_at: str | None
    ended_at: str | None


class Message(Shape):
    """A message: its current status and known fields."""

    message_id: str
    status: str
    recipient: str
    sender_id: str
    segments: int | None
    cost: Amount | None
    submitted_at: str
    last_updated_at: str
    delivered_at: str | None
    error_code: str | None
    error_message: str | None
    provider: str | None
    network: str | None


class MessageWithMore(Message):
    """A message with its timeline and callbacks, if requested."""

    status_history: list[Step] | None = None
    webhook_status: list[Callback] | None = None


class MessageAnswer(Shape):
    """The envelope around a message."""

    success: bool = True
    data: MessageWithMore


class Analytics(Shape):
    """Figures of a workspace's messages and callbacks."""

    hours: int
    delivered: int
    failed: int
    success_rate: float | None
    average_delivery_seconds: float | None
    callback_latency_ms_p95: float | None


class AnalyticsAnswer(Shape):
    """The envelope around figures."""

    success: bool = True
    data: Analytics


class Failure(Shape):
    """An error."""

    status: str = "error"
    code: str
    message: str
    timestamp: str


def failure(status: int, text: str) -> Failure:
    """An error in Sendexa's form."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Failure(code=CODES.get(status, "SERVER_ERROR"), message=text, timestamp=now)


FAILURES = failures(
    lambda status, text: failure(status, text).model_copy(update={"timestamp": "2026-06-09T13:05:00Z"})
)
MESSAGE = MessageAnswer(
    data=MessageWithMore(
        message_id="exa_api_01",
        status="delivered",
        recipient="233555539152",
        sender_id="YourBrand",
        segments=1,
        cost=Decimal(1),
        submitted_at="2026-06-09T13:04:50Z",
        last_updated_at="2026-06-09T13:04:57Z",
        delivered_at="2026-06-09T13:04:57Z",
        error_code=None,
        error_message=None,
        provider="mtn_ghana",
        network="MTN",
        status_history=[
            Step(status="sent", timestamp="2026-06-09T13:04:50Z"),
            Step(status="delivered", timestamp="2026-06-09T13:04:57Z"),
        ],
        webhook_status=[
            Callback(
                event_id="evt_1",
                event="sms.delivered",
                state="retrying",
                attempts=1,
                last_attempt_at="2026-06-09T13:04:57.512Z",
                last_http_status=503,
                last_error="http_503",
                next_retry_at="2026-06-09T13:05:12.512Z",
                ended_at=None,
            )
        ],
    )
)
ANALYTICS = AnalyticsAnswer(
    data=Analytics(
        hours=24,
        delivered=9_871,
        failed=129,
        success_rate=0.9871,
        average_delivery_seconds=6.2,
        callback_latency_ms_p95=28.5,
    )
)


class _Basic(HTTPBasic):
    """As FastAPI's, but a malformed header is treated as a wrong key: counted, and answered in Sendexa's form."""

    async def __call__(self, request: HTTPConnection) -> HTTPBasicCredentials | None:  # type: ignore[override]  # as FastAPI's
        """The header's credentials; None without a header, or if it has another scheme."""
        try:
            return await super().__call__(request)
        except HTTPException:  # raised in spite of auto_error=False
            return HTTPBasicCredentials(username="", password="")


basic = _Basic(
    auto_error=False, scheme_name="Sendexa", description="`key:secret`: the two parts of the API key"
)


async def _text(given: Annotated[HTTPBasicCredentials | None, Depends(basic)]) -> str | None:
    return f"{given.username}.{given.password}" if given else None


Caller = Annotated[
    ApiKey, Depends(caller("sendexa", _text, "Authorization: Basic KEY:SECRET, in base64", scheme="Basic"))
]
router = APIRouter(prefix=PREFIX, tags=["Sendexa"], responses={n: FAILURES[n] for n in (400, 401, 429, 503)})


@router.get(
    "/status/{messageId}",
    responses={200: documented("The message.", MESSAGE, nulls=True), 404: FAILURES[404]},
)
async def message(
    request: Request,
    key: Caller,
    message_id: Annotated[str, Path(alias="messageId")],
    include_history: Annotated[Flag, Query(alias="includeHistory")] = False,
    webhook_status: Annotated[Flag, Query(alias="webhookStatus")] = False,
) -> Response:
    """The current status of a message, on request with its timeline and its callbacks."""
    parts = parts_of(request)
    found = await parts.messages.get(key.workspace, message_id)
    if found is None:
        raise HTTPException(404, "no such message")
    fields = _message(found)
    if include_history:
        fields["statusHistory"] = [
            Step(status=word, timestamp=iso_seconds(at)).model_dump(by_alias=True)
            for word, at in found.projected(STATUSES)
        ]
    if webhook_status:
        events = await parts.callbacks.of_message(key.workspace, message_id, last=MAX_CALLBACKS)
        fields["webhookStatus"] = [_callback(event).model_dump(by_alias=True) for event in events]
    return answer(request, {"success": True, "data": fields})


@router.get("/analytics", responses={200: documented("The figures.", ANALYTICS, nulls=True)})
async def analytics(
    request: Request, key: Caller, hours: Annotated[int, Query(ge=1, le=168)] = 24
) -> Response:
    """Figures of messages and callbacks in the current hour and the `hours` before it."""
    parts = parts_of(request)
    async with searching(request, key) as search:
        await search.look_at(hours * AN_HOUR)
        figures = await parts.stats.workspace(key.workspace, parts.now_ms(), hours + 1)
    delivered, failed = figures.counts["messagesDelivered"], figures.counts["messagesFailed"]
    timed, took_ms = figures.counts["messagesTimed"], figures.counts["messagesTimedMs"]
    data = Analytics(
        hours=hours,
        delivered=delivered,
        failed=failed,
        success_rate=round(delivered / (delivered + failed), 5) if delivered + failed else None,
        average_delivery_seconds=round(took_ms / timed / 1000, 3) if timed else None,
        callback_latency_ms_p95=figures.percentile_ms(0.95),
    )
    return answer(request, AnalyticsAnswer(data=data), nulls=True)


def _message(found: StoredMessage) -> dict[str, object]:
    delivered = found.first(Status.DELIVERED, Status.READ)
    default = DEFAULT_ERRORS.get(found.status, {})
    name = found.provider.get("name")
    return Message(
        message_id=found.uuid,
        status=STATUSES[found.status],
        recipient=found.dest.removeprefix("+"),
        sender_id=found.src,
        segments=found.segments,
        cost=found.cost,
        submitted_at=iso_seconds(found.sent_ms),
        last_updated_at=iso_seconds(found.history[-1][1]),
        delivered_at=iso_seconds(delivered) if delivered else None,
        error_code=found.error_code or default.get("code"),
        error_message=found.error_message if found.error_code else default.get("message"),
        provider=name if isinstance(name, str) else None,
        network=found.network,
    ).model_dump(by_alias=True)


def _callback(event: StoredCallback) -> Callback:
    last = event.attempts[-1] if event.attempts else None
    waits = not event.ended and event.next_attempt_ms is not None
    return Callback(
        event_id=event.event_id,
        event=event.event_type,
        state=event.state.value,
        attempts=len(event.attempts),
        last_attempt_at=iso(last.started_at_ms) if last else None,
        last_http_status=last.http_status if last else None,
        last_error=last.error if last else None,
        next_retry_at=iso(event.next_attempt_ms or 0) if waits else None,
        ended_at=None if event.ended_ms is None else iso(event.ended_ms),
    )
