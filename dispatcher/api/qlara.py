"""Qlara's status API: messages by customerMessageId, the history, and the webhook's CRUD (agiletelecom.com/documentation/qlara/api).

What the pages leave open, and what we chose: fields beside the three documented ones; a message without a
customerMessageId has its own id as one ("assigned by the platform"); the history is the oldest ten minutes first, `limit`
goes to 100, `page` so far that 20,000 messages are looked at, for one long search of a workspace at a time, and it has the fields of the use case UC-019 that we know;
RECEIVED may be asked for, too; errors look like the rate limit's (`status`, `error`, `message`). Of the pages that differ,
the API reference holds: `ids`, and 409 for a second webhook. The paths are there under `/api`, too, for that is in the
documented base URL.
"""

from decimal import Decimal
from hashlib import blake2s
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from fastapi.security import APIKeyHeader
from pydantic import Field, ValidationError

from dispatcher.api.answers import (
    Shape,
    answer,
    body_of,
    caller,
    documented,
    failures,
    moment_ms,
    parts_of,
    refuse,
    searching,
)
from dispatcher.errors import AlreadyExists, InvalidInput, NotFound
from dispatcher.model import Status, decode_json, iso_seconds
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.workspace import Workspace
from dispatcher.store.api_keys import ApiKey
from dispatcher.store.audit import Who, difference, is_changed
from dispatcher.store.stored_message import StoredMessage

PREFIX = "/partner-gateway/v1"
MAX_IDS, MAX_BYTES = 1000, 16_384
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
    """The status of a message now."""

    customer_message_id: str
    delivery_status: str
    delivery_status_description: str
    message_id: str
    channel: str
    destination: str
    timestamp: str


class Sent(Shape):
    """A message of the history."""

    message_id: str
    customer_message_id: str
    channel: str
    direction: str = "OUTBOUND"
    destination: str
    sender: str
    status: str
    send_date: str
    delivery_date: str | None = None
    cost: Decimal | None = None
    parts: int | None = None


class Webhook(Shape):
    """Where the callbacks of all channels go."""

    id: str
    callback_url: str
    status: str = "ACTIVE"
    created_at: str


class CallbackUrl(Shape):
    """What a webhook is made of."""

    callback_url: Annotated[
        str,
        Field(
            min_length=1, max_length=2048, pattern="^https?://", examples=["https://hooks.acme.example/qlara"]
        ),
    ]


class Failure(Shape):
    """Why there is no answer."""

    status: int
    error: str
    message: str
    retry_after: int | None = None


def failure(status: int, text: str) -> Failure:
    """An error in the form of the rate limit's."""
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
WEBHOOK = Webhook(
    id="wh-3f9c2a7b", callback_url="https://hooks.acme.example/qlara", created_at="2026-04-09T09:00:00Z"
)
TOO_LONG = documented("The body is too long.", failure(413, "the limit is 16,384 bytes"))
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": CallbackUrl.model_json_schema(by_alias=True),
                "example": {"callbackUrl": "https://hooks.acme.example/qlara"},
            }
        },
    }
}


def _often(limit: int) -> Failure:
    return failure(429, f"The webhook may be changed {limit} times a minute.")


READ_ONLY = "this API key may only read, not change the webhook"
MAY_NOT = documented("The key may only read.", failure(403, READ_ONLY))
TOO_MANY = documented("Too often: calls a second, or changes a minute.", _often(10))
NO_WEBHOOK = documented("There is none.", failure(404, "there is no callback URL; create it first"))

header = APIKeyHeader(name="X-Api-Key", auto_error=False, scheme_name="Qlara", description="the API key")
Caller = Annotated[ApiKey, Depends(caller("qlara", header, scheme="X-Api-Key"))]


async def _who_may_redirect(request: Request, key: Caller) -> ApiKey:
    """Raises HTTPException: 403 for a key that may only read."""
    if key.read_only:
        refuse(request, "read_only", key.id)
        raise HTTPException(403, READ_ONLY)
    return key


Redirector = Annotated[ApiKey, Depends(_who_may_redirect)]
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
    """The status of a message now."""
    found = await parts_of(request).messages.of_customer(key.workspace, channel, [customer_message_id])
    if not found:
        raise HTTPException(404, "no such message on this channel")
    return answer(request, _status(customer_message_id, found[customer_message_id]))


@router.get(
    "/messages/status", responses={200: documented("Of those that are known, in no order.", [STATUS])}
)
async def statuses(
    request: Request,
    key: Caller,
    ids: Annotated[
        str, Query(min_length=1, description="customerMessageIds with commas between them, no blanks.")
    ],
    channel: Channel,
) -> Response:
    """The status of several messages of one channel now; unknown ones are left out."""
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
    """The messages of a channel that were sent between two times; a page that is not full is the last."""
    parts, first, last = parts_of(request), moment_ms("from", since), moment_ms("to", until)
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


@router.post(
    "/webhooks/delivery-status",
    status_code=201,
    openapi_extra=BODY,
    responses={
        201: documented("It is set.", WEBHOOK),
        413: TOO_LONG,
        415: FAILURES[415],
        409: documented(
            "There is one.", failure(409, "there is a callback URL already; change or delete it")
        ),
        403: MAY_NOT,
        429: TOO_MANY,
    },
)
async def create_webhook(request: Request, key: Redirector) -> Response:
    """Sets the callback URL of a workspace that has none."""
    parts = parts_of(request)
    url = await _callback_url(request)
    if refusal := await _too_many(request, key, url, is_there=False):
        return refusal
    try:
        made = await parts.workspaces.create_callback_url(key.workspace, url, now_ms=parts.now_ms())
    except AlreadyExists as error:
        raise HTTPException(409, str(error)) from None
    except NotFound:
        raise HTTPException(404, "there is no such workspace any more") from None
    await _audit(request, key, "webhook.create", made)
    return answer(request, _webhook(made), 201)


@router.get(
    "/webhooks/delivery-status", responses={200: documented("The webhook.", WEBHOOK), 404: NO_WEBHOOK}
)
async def show_webhook(request: Request, key: Caller) -> Response:
    """The callback URL now."""
    found = await parts_of(request).workspaces.get(key.workspace)
    if found is None or not found.callback_url:
        raise HTTPException(404, "there is no callback URL; create it first")
    return answer(request, _webhook(found))


@router.put(
    "/webhooks/delivery-status",
    openapi_extra=BODY,
    responses={
        200: documented("It is changed.", WEBHOOK),
        404: NO_WEBHOOK,
        413: TOO_LONG,
        415: FAILURES[415],
        403: MAY_NOT,
        429: TOO_MANY,
    },
)
async def replace_webhook(request: Request, key: Redirector) -> Response:
    """Changes the callback URL, for status changes that are accepted from now on."""
    replaced = await _replace(request, key, await _callback_url(request))
    return replaced if isinstance(replaced, Response) else answer(request, _webhook(replaced))


@router.delete(
    "/webhooks/delivery-status",
    status_code=204,
    responses={
        204: {"description": "It is gone.", "model": None},
        404: NO_WEBHOOK,
        403: MAY_NOT,
        429: TOO_MANY,
    },
)
async def delete_webhook(request: Request, key: Redirector) -> Response:
    """Removes the callback URL; callbacks that wait still go to it."""
    replaced = await _replace(request, key, "")
    return replaced if isinstance(replaced, Response) else Response(status_code=204)


async def _replace(request: Request, key: ApiKey, url: str) -> Workspace | Response:
    """The changed workspace; or the answer that refuses to change it."""
    if refusal := await _too_many(request, key, url, is_there=True):
        return refusal
    try:
        replaced = await parts_of(request).workspaces.replace_callback_url(key.workspace, url)
    except NotFound:
        raise HTTPException(404, "there is no callback URL; create it first") from None
    await _audit(request, key, "webhook.replace" if url else "webhook.delete", replaced)
    return replaced


async def _audit(request: Request, key: ApiKey, what: str, workspace: Workspace) -> None:
    if is_changed(workspace):
        trail = parts_of(request).audit.by(Who("api", f"{key.id} ({key.name})"))
        await trail.add(what, workspace.id, *difference(workspace))


async def _too_many(request: Request, key: ApiKey, url: str, *, is_there: bool) -> Response | None:
    """Counts a change of the webhook; the answer that refuses it where there were too many in this minute.

    What changes nothing does not count, nor what cannot be: creating one that is there, replacing one that is not.
    """
    parts = parts_of(request)
    known, now_ms = await parts.workspaces.get(key.workspace), parts.now_ms()
    if known is None or bool(known.callback_url) != is_there or known.callback_url == url:
        return None
    limit = parts.webhook_changes_per_minute
    if await parts.workspaces.count_webhook_change(key.workspace, now_ms) <= limit:
        return None
    refuse(request, "webhook_rate", key.id)
    seconds = 60 - now_ms // 1000 % 60
    refusal = _often(limit).model_copy(update={"retry_after": seconds})
    response = answer(request, refusal, 429)
    response.headers["Retry-After"] = str(seconds)
    return response


_SAID = {
    "model_type": "must be a JSON object",
    "missing": "is required",
    "string_type": "must be text",
    "string_pattern_mismatch": "must start with https://",
}


async def _callback_url(request: Request) -> str:
    """The one in a request's body, if it may be used; names are looked up when they are. Raises InvalidInput."""
    parts = parts_of(request)
    try:
        url = CallbackUrl.model_validate(decode_json(await body_of(request, MAX_BYTES))).callback_url
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)
        said = (": ".join((*map(str, one["loc"]), _SAID.get(one["type"], one["msg"]))) for one in wrong)
        raise InvalidInput("; ".join(said)) from None
    try:
        read = parse_callback_url(url, allow_http=parts.allow_http)
    except InvalidInput as error:  # whose hint at a setting is for the operator
        raise InvalidInput(f"callbackUrl: {str(error).partition(' (DISPATCHER_')[0]}") from None
    # Names are looked up when they are used: an answer now would tell a customer which ones our name servers know.
    if parts.addresses.port_refusal(read.port):
        raise InvalidInput("callbackUrl: callbacks may not go to its port")
    if read.address and parts.addresses.refusal(read.host, read.port):
        raise InvalidInput("callbackUrl: its address is not public")
    return url


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


def _webhook(workspace: Workspace) -> Webhook:
    created = workspace.created_ms if workspace.webhook_ms is None else workspace.webhook_ms
    name = blake2s(f"{workspace.id} {created}".encode(), digest_size=4).hexdigest()
    return Webhook(id=f"wh-{name}", callback_url=workspace.callback_url, created_at=iso_seconds(created))
