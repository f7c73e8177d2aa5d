"""Zeckta's status API: a message, a campaign (developer.zeckta.com/introduction/quickstart, /api-reference).

The answer's envelope and the rate-limit headers are documented; a status is in lower case here. Where the pages leave
something open, we chose: the metadata of a message (as in callbacks, unknown values left out); an unknown id or
another workspace's is 404; a campaign's report is paged by `page` (from 1) and `limit` (1 to 100, default 50); "sending"
counts messages at the gateway (SUBMITTED, BUFFERED), "queued" those before it. READ is Zeckta's delivered, UNKNOWN its
queued.
"""

from decimal import Decimal
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import Field

from dispatcher.api.responses import Amount, Shape, answer, caller, documented, failures, parts_of
from dispatcher.model import Status, iso
from dispatcher.store.api_keys import ApiKey
from dispatcher.store.messages import Campaign
from dispatcher.store.stored_message import StoredMessage

PREFIX = "/v1/messaging"
STATUSES = {status: status.value.lower() for status in Status} | {
    Status.READ: "delivered",
    Status.UNKNOWN: "queued",
}
TOTALS = {
    "queued": (Status.SCHEDULED, Status.QUEUED, Status.PROCESSING, Status.UNKNOWN),
    "sending": (Status.SUBMITTED, Status.BUFFERED),
    "sent": (Status.SENT,),
    "delivered": (Status.DELIVERED, Status.READ),
    "failed": (Status.FAILED, Status.UNDELIVERABLE, Status.EXPIRED, Status.REJECTED),
}


class Message(Shape):
    """A message: its current status and known fields."""

    message_id: str
    status: str
    src: str | None = None
    dest: str | None = None
    segments: int | None = None
    units: int | None = None
    attempts: int | None = None
    cost: Amount | None = None
    currency: str | None = None
    campaign_id: str | None = None
    submitted_at: str | None = None
    updated_at: str | None = None
    delivered_at: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class MessageAnswer(Shape):
    """The envelope around a message."""

    success: bool = True
    message: str = "Message retrieved successfully"
    data: Message
    request_id: str


class Totals(Shape):
    """How many messages of a campaign are in which state; these change until all are final."""

    queued: int
    sending: int
    sent: int
    delivered: int
    failed: int


class Recipient(Shape):
    """One message of a campaign."""

    message_id: str
    dest: str
    status: str


class Pagination(Shape):
    """Which part of a campaign's messages this is."""

    page: int
    limit: int
    total: int
    total_pages: int


class CampaignReport(Shape):
    """A campaign."""

    campaign_id: str
    started_at: str
    recipients: int
    statistics: Totals
    messages: list[Recipient]
    pagination: Pagination


class CampaignAnswer(Shape):
    """The envelope around a campaign."""

    success: bool = True
    message: str = "Campaign retrieved successfully"
    data: CampaignReport
    request_id: str


class Failure(Shape):
    """An error."""

    success: bool = False
    message: str
    request_id: Annotated[str, Field(default_factory=lambda: str(uuid4()))]


ID, REQUEST = "b6e0c4de-6f2d-4d3a-9a39-0d7a2a1f8f11", "5f0c9a52-9b0a-4c53-8f0e-1f5a3c1a7d20"
FAILURES = failures(lambda _, text: Failure(message=text, request_id=REQUEST))
MESSAGE = MessageAnswer(
    data=Message(
        message_id=ID,
        status="delivered",
        src="ZECKTA",
        dest="+233202007745",
        segments=1,
        units=1,
        attempts=1,
        cost=Decimal("0.05"),
        currency="GHS",
        submitted_at="2026-06-09T13:04:50.000Z",
        updated_at="2026-06-09T13:04:57.487Z",
        delivered_at="2026-06-09T13:04:57.487Z",
    ),
    request_id=REQUEST,
)
CAMPAIGN = CampaignAnswer(
    data=CampaignReport(
        campaign_id="spring-sale",
        started_at="2026-06-09T13:04:50.000Z",
        recipients=1,
        statistics=Totals(queued=0, sending=0, sent=0, delivered=1, failed=0),
        messages=[Recipient(message_id=ID, dest="+233202007745", status="delivered")],
        pagination=Pagination(page=1, limit=50, total=1, total_pages=1),
    ),
    request_id=REQUEST,
)

bearer = HTTPBearer(auto_error=False, scheme_name="Zeckta", description="`Authorization: Bearer <API key>`")


async def _token(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str | None:
    return given.credentials if given else None


Caller = Annotated[ApiKey, Depends(caller("zeckta", _token, "Authorization: Bearer KEY", scheme="Bearer"))]
router = APIRouter(prefix=PREFIX, tags=["Zeckta"], responses={n: FAILURES[n] for n in (401, 429, 503)})


@router.get(
    "/sms/messages/{messageId}", responses={200: documented("The message.", MESSAGE), 404: FAILURES[404]}
)
async def message(
    request: Request, key: Caller, message_id: Annotated[str, Path(alias="messageId")]
) -> Response:
    """The current status of a message."""
    found = await parts_of(request).messages.get(key.workspace, message_id)
    if found is None:
        raise HTTPException(404, "no such message")
    return answer(request, MessageAnswer(data=_message(found), request_id=str(uuid4())))


@router.get(
    "/sms/campaigns/{campaignId:path}",
    responses={200: documented("The campaign.", CAMPAIGN), 400: FAILURES[400], 404: FAILURES[404]},
)
async def campaign(
    request: Request,
    key: Caller,
    campaign_id: Annotated[str, Path(alias="campaignId")],
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> Response:
    """How many messages of a campaign are in which state, and a page of them."""
    messages = parts_of(request).messages
    found = await messages.campaign(key.workspace, campaign_id)
    if found is None:
        raise HTTPException(404, "no such campaign")
    some = await messages.recipients(key.workspace, campaign_id, (page - 1) * limit, limit)
    report = CampaignReport(
        campaign_id=campaign_id,
        started_at=iso(found.started_ms),
        recipients=found.recipients,
        statistics=_totals(found),
        messages=[Recipient(message_id=m.uuid, dest=m.dest, status=STATUSES[m.status]) for m in some],
        pagination=Pagination(
            page=page, limit=limit, total=found.recipients, total_pages=-(-found.recipients // limit)
        ),
    )
    return answer(request, CampaignAnswer(data=report, request_id=str(uuid4())))


def failure(status: int, text: str) -> Failure:
    """An error in Zeckta's form."""
    return Failure(message=text)


def _message(found: StoredMessage) -> Message:
    delivered = found.first(Status.DELIVERED, Status.READ)
    return Message(
        message_id=found.uuid,
        status=STATUSES[found.status],
        src=found.src,
        dest=found.dest,
        segments=found.segments,
        units=found.units,
        attempts=found.attempts,
        cost=found.cost,
        currency=found.currency,
        campaign_id=found.campaign_id,
        submitted_at=iso(found.sent_ms),
        updated_at=iso(found.history[-1][1]),
        delivered_at=iso(delivered) if delivered else None,
        error_code=found.error_code,
        error_message=found.error_message,
    )


def _totals(found: Campaign) -> Totals:
    return Totals(**{name: sum(found.counts.get(s, 0) for s in group) for name, group in TOTALS.items()})
