"""Namirial's status API: a message, the latest by number or reference (docs.namirial.app, apistatus-messagestatus).

The message object is that of the callbacks. Where the pages leave something open, we chose: a `count` below 1 or not
a number is 400; errors look like those of the send API (`code`, `message`, `details`), with the HTTP status as code;
unknown values are left out; `providerAcceptanceAt` is the time of sending, from the first status change that gave it,
and `sendDate` is compared with it; a number may be written with `+`, `00` or neither. A message that the provider has not accepted yet is not found.

Times have whole seconds, and `sendDate` is exclusive: a client that pages by the oldest `providerAcceptanceAt` seen
passes the second after it, so that it misses no message of that second, and drops duplicates.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from fastapi.security import APIKeyHeader

from dispatcher.api.responses import (
    Shape,
    answer,
    caller,
    documented,
    failures,
    moment_ms,
    parts_of,
    searching,
)
from dispatcher.model import Status, iso_seconds
from dispatcher.rules.dialects import compact
from dispatcher.rules.dialects import namirial as dialect
from dispatcher.store.api_keys import ApiKey
from dispatcher.store.message_record import Head
from dispatcher.store.stored_message import StoredMessage

PREFIX = "/api/messagestatus"
MAX_COUNT = 100
Find = Callable[..., Awaitable[Sequence[StoredMessage]]]
"""Messages.to_phone or Messages.with_reference."""
STATUSES = dialect.STATUSES | {Status.SUBMITTED: "PROVIDER_ACCEPTANCE", Status.BUFFERED: "SENT"}


class Sms(Shape):
    """Fields of SMS only."""

    segments: int


class Message(Shape):
    """A message: its current status and known fields."""

    id: str
    provider_acceptance_at: str
    status_changed_at: str
    reference: dict[str, Any]
    channel: str
    status: str
    provider: dict[str, Any] | None = None
    sms: Sms | None = None


class MessageAnswer(Shape):
    """One message."""

    message: Message


class MessagesAnswer(Shape):
    """Messages, the latest first."""

    messages: list[MessageAnswer]


class Failure(Shape):
    """An error."""

    code: int
    message: str
    details: str | None = None


def failure(status: int, text: str) -> Failure:
    """An error in the form of the send API."""
    return Failure(code=status, message=text)


FAILURES = failures(failure, denied=403)
MESSAGE = MessageAnswer(
    message=Message(
        id="b6e0c4de-6f2d-4d3a-9a39-0d7a2a1f8f11",
        provider_acceptance_at="2026-02-12T14:49:00Z",
        status_changed_at="2026-02-12T14:50:35Z",
        reference={"service": "DIGITALSIGN", "action": "AUTH", "key": "order-7"},
        channel="SMS",
        status="DELIVERED",
        provider={"name": "PROVIDER1", "id": "p-1", "status": "delivered", "code": "0"},
        sms=Sms(segments=1),
    )
)
MESSAGES = MessagesAnswer(messages=[MESSAGE])

header = APIKeyHeader(name="X-Api-Key", auto_error=False, scheme_name="Namirial", description="the API key")
Caller = Annotated[ApiKey, Depends(caller("namirial", header, "X-Api-Key: KEY", denied=403))]
Count = Annotated[int, Query(ge=1, description="Maximum number of messages; values above 100 mean 100.")]
SendDate = Annotated[
    str | None,
    Query(
        alias="sendDate",
        json_schema_extra={"format": "date-time"},
        description="Only messages sent before this time (default: now).",
    ),
]
router = APIRouter(prefix=PREFIX, tags=["Namirial"], responses={n: FAILURES[n] for n in (403, 429, 503)})


@router.get("/{messageid}", responses={200: documented("The message.", MESSAGE), 404: FAILURES[404]})
async def message(
    request: Request, key: Caller, message_id: Annotated[str, Path(alias="messageid")]
) -> Response:
    """The current status of a message."""
    found = await parts_of(request).messages.get(key.workspace, message_id)
    if found is None or not _is_there(found):
        raise HTTPException(404, "no such message")
    return answer(request, _answer(found))


@router.get(
    "/phonenumber/{phonenumber:path}",
    responses={
        200: documented("The messages; an empty list if there are none.", MESSAGES),
        400: FAILURES[400],
    },
)
async def to_phone_number(
    request: Request,
    key: Caller,
    number: Annotated[str, Path(alias="phonenumber", description="International: `+39…`, `0039…` or `39…`.")],
    count: Count = 50,
    send_date: SendDate = None,
) -> Response:
    """The latest messages to a phone number."""
    messages = parts_of(request).messages

    async def to_phone(
        workspace: str, number: str, before_ms: int, count: int, *rest: Any
    ) -> Sequence[StoredMessage]:
        found = [
            one
            for spelling in spellings(number)
            for one in await messages.to_phone(workspace, spelling, before_ms, count, *rest)
        ]
        return sorted(found, key=lambda one: one.sent_ms, reverse=True)[:count]

    return await _latest(request, key, to_phone, number, count, send_date)


@router.get(
    "/reference/{referencekey:path}",
    responses={
        200: documented("The messages; an empty list if there are none.", MESSAGES),
        400: FAILURES[400],
    },
)
async def with_reference(
    request: Request,
    key: Caller,
    reference: Annotated[str, Path(alias="referencekey", description="`reference.key` of the message.")],
    count: Count = 50,
    send_date: SendDate = None,
) -> Response:
    """The latest messages with a reference key."""
    return await _latest(request, key, parts_of(request).messages.with_reference, reference, count, send_date)


async def _latest(
    request: Request, key: ApiKey, find: Find, by: str, count: int, send_date: str | None
) -> Response:
    """The latest messages that `find` finds, sent before `send_date` (default: now)."""
    before = moment_ms("sendDate", send_date) if send_date else parts_of(request).now_ms()
    async with searching(request, key) as search:
        found = await find(key.workspace, by, before, min(count, MAX_COUNT), _is_there, search.look_at)
    return answer(request, {"messages": [_answer(one) for one in found]})


def spellings(number: str) -> list[str]:
    """A number as given, and in the forms in which backends give an international one: `+39…`, `39…`, `0039…`."""
    international = re.fullmatch(r"(?:\+|00)?([1-9][0-9]{4,14})", re.sub(r"[\s().-]", "", number))
    return list(
        dict.fromkeys([number, *(f"{start}{international[1]}" for start in ("+", "", "00") if international)])
    )


def _is_there(found: StoredMessage | Head) -> bool:
    """Whether the provider has accepted it: after a status in STATUSES only others of STATUSES follow."""
    return found.status in STATUSES


def _answer(found: StoredMessage) -> dict[str, Any]:
    status, changed_ms = found.projected(STATUSES)[-1]
    error = compact({"code": found.error_code, "message": found.error_message})
    segments = found.segments if found.channel == "SMS" else None
    fields = {
        "id": found.uuid,
        "providerAcceptanceAt": iso_seconds(found.sent_ms),
        "statusChangedAt": iso_seconds(changed_ms),
        "reference": found.reference,
        "channel": found.channel,
        "status": status,
        "provider": error | dict(found.provider) or None,
        "sms": None if segments is None else {"segments": segments},
    }
    return {"message": compact(fields)}
