"""Qlara's status API: messages by customerMessageId, and the history (agiletelecom.com/documentation/qlara/api).

Where the pages leave something open, we chose: fields in addition to the three documented ones; a message without a
customerMessageId has its own id as one ("assigned by the platform"); the history lists the oldest ten minutes first,
with `limit` up to 100, `page` as far as 20,000 messages looked at, one long search of a workspace at a time, and
those fields of the use case UC-019 that we know; `status` may also be RECEIVED; errors look like the rate limit's
(`status`, `error`, `message`). Where pages contradict each other the API reference counts: `ids`. The paths also exist
under `/api`, which is part of the documented base URL.
"""

from decimal import Decimal
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from fastapi.security import APIKeyHeader

from dispatcher.api.responses import (
    Amount,
    Shape,
    answer,
    caller,
    documented,
    failures,
    moment_ms,
    parts_of,
    searching,
)
from dispatcher.errors import InvalidInput
from dispatcher.model import Status, iso_seconds
from dispatcher.store.api_keys import ApiKey
from dispatcher.store.stored_message import StoredMessage

PREFIX = "/partner-gateway/v1"
MAX_IDS = 1000
STATUSES = {
    Status.SCHEDULED: "UNKNOWN",
    Status.QUEUED: "UNKNOWN",
    Status.PROCESSING: "UNKNOWN",
    Status.UNKNOWN: "UNKNOWN",
    Status.SUBMITTED: "SENT",
    Status.SENT: "SENT",
    Status.BUFFERED: "RECEIVED",
    Status.DELIVERED: "DELIVERED",
    Status.READ: "DELIVERED",
    Status.FAILED: "ERROR",
    Status.UNDELIVERABLE: "ERROR",
    Status.REJECTED: "ERROR",
    Status.EXPIRED: "EXPIRED",
}
DESCRIPTIONS = {
    "UNKNOWN": "No receipt yet",
    "SENT": "Message forwarded to the carrier",
    "RECEIVED": "Message received by the downstream system",
    "DELIVERED": "Message delivered",
    "ERROR": "Message not delivered",
    "EXPIRED": "Message expired",
}


class DeliveryStatus(Shape):
    """The current status of a message."""

    customer_message_id: str
    delivery_status: str
    delivery_status_description: str
    message_id: str
    channel: str
    destination: str
    timestamp: str


class Sent(Shape):
    """A message in the history."""

    message_id: str
    customer_message_id: str
    channel: str
    direction: str = "OUTBOUND"
    destination: str
    sender: str
    status: str
    send_date: str
    delivery_date: str | None = None
    cost: Amount | None = None
    parts: int | None = None


class Failure(Shape):
    """An error."""

    status: int
    error: str
    message: str
    retry_after: int | None = None


def failure(status: int, text: str) -> Failure:
    """An error in the form of the documented rate-limit error."""
    return Failure(
        status=status, error=HTTPStatus(status).phrase, message=text, retry_after=1 if status == 429 else None
    )


FAILURES = failures(failure)
STATUS = DeliveryStatus(
    customer_message_id="order-12345",
    delivery_status="DELIVERED",
    delivery_status_description="Message delivered",
    message_id="b6e0c4de-6f2d-4d3a-9a39-0d7a2a1f8f11",
    channel="SMS",
    destination="+393401234567",
    timestamp="2026-04-09T10:30:00Z",
)
SENT = Sent(
    message_id="b6e0c4de-6f2d-4d3a-9a39-0d7a2a1f8f11",
    customer_message_id="order-12345",
    channel="SMS",
    destination="+393401234567",
    sender="ACME",
    status="DELIVERED",
    send_date="2026-04-09T10:29:55Z",
    delivery_date="2026-04-09T10:30:00Z",
    cost=Decimal("0.045"),
    parts=1,
)
header = APIKeyHeader(name="X-Api-Key", auto_error=False, scheme_name="Qlara", description="the API key")
Caller = Annotated[ApiKey, Depends(caller("qlara", header, "X-Api-Key: KEY", scheme="X-Api-Key"))]


Channel = Annotated[Literal["SMS", "RCS", "WHATSAPP"], Query(description="The channel it was sent on.")]
router = APIRouter(prefix=PREFIX, tags=["Qlara"], responses={n: FAILURES[n] for n in (400, 401, 429, 503)})


@router.get(
    "/messages/status/{customerMessageId:path}",
    responses={200: documented("The status.", STATUS), 404: FAILURES[404]},
)
async def status(
    request: Request,
    key: Caller,
    customer_message_id: Annotated[str, Path(alias="customerMessageId")],
    channel: Channel,
) -> Response:
    """The current status of a message."""
    found = await parts_of(request).messages.of_customer(key.workspace, channel, [customer_message_id])
    if not found:
        raise HTTPException(404, "no such message on this channel")
    return answer(request, _status(customer_message_id, found[customer_message_id]))


@router.get(
    "/messages/status", responses={200: documented("The known ones, in no particular order.", [STATUS])}
)
async def statuses(
    request: Request,
    key: Caller,
    ids: Annotated[
        str, Query(min_length=1, description="customerMessageIds separated by commas, without blanks.")
    ],
    channel: Channel,
) -> Response:
    """The current status of several messages of one channel; unknown ones are left out."""
    wanted = list(dict.fromkeys(one for one in ids.split(",") if one))
    if len(wanted) > MAX_IDS:
        raise InvalidInput(f"ids: at most {MAX_IDS:,} at once")
    async with searching(request, key) as search:
        await search.look_at(len(wanted))
        found = await parts_of(request).messages.of_customer(key.workspace, channel, wanted)
    return answer(request, [_status(id_, one) for id_, one in found.items()])


@router.get("/messages/history", responses={200: documented("A page of messages.", [SENT])})
async def history(
    request: Request,
    key: Caller,
    channel: Channel,
    since: Annotated[
        str,
        Query(
            alias="from",
            json_schema_extra={"format": "date-time"},
            description="ISO 8601 with an offset; inclusive.",
        ),
    ],
    until: Annotated[
        str,
        Query(
            alias="to",
            json_schema_extra={"format": "date-time"},
            description="ISO 8601 with an offset; inclusive.",
        ),
    ],
    status: Annotated[
        Literal["DELIVERED", "SENT", "RECEIVED", "ERROR", "EXPIRED", "UNKNOWN"] | None, Query()
    ] = None,
    page: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """The messages of a channel sent between two times; a page that is not full is the last."""
    parts, first, last = parts_of(request), moment_ms("from", since), moment_ms("to", until)
    if first > last:
        return answer(request, [])
    async with searching(request, key) as search:
        found = await parts.messages.sent_between(
            key.workspace,
            channel,
            first,
            last,
            now_ms=parts.now_ms(),
            skip=page * limit,
            count=limit,
            keep=(lambda one: STATUSES[one.status] == status) if status else None,
            look=search.look_at,
        )
    return answer(request, [_sent(one) for one in found])


def _customer_id(found: StoredMessage) -> str:
    return found.customer_message_id or found.uuid


def _status(id_: str, found: StoredMessage) -> DeliveryStatus:
    word, changed_ms = found.projected(STATUSES)[-1]
    failed = word in ("ERROR", "EXPIRED")
    return DeliveryStatus(
        customer_message_id=id_,
        delivery_status=word,
        delivery_status_description=(failed and found.error_message) or DESCRIPTIONS[word],
        message_id=found.uuid,
        channel=found.channel,
        destination=found.dest,
        timestamp=iso_seconds(changed_ms),
    )


def _sent(found: StoredMessage) -> Sent:
    delivered = found.first(Status.DELIVERED, Status.READ)
    return Sent(
        message_id=found.uuid,
        customer_message_id=_customer_id(found),
        channel=found.channel,
        destination=found.dest,
        sender=found.src,
        status=STATUSES[found.status],
        send_date=iso_seconds(found.sent_ms),
        delivery_date=iso_seconds(delivered) if delivered else None,
        cost=found.cost,
        parts=found.total_parts or found.segments,
    )
