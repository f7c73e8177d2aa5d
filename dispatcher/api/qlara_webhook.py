"""Qlara's webhook API, by which a customer sets its callback URL (agiletelecom.com/documentation/qlara/api).

Where pages contradict each other the API reference counts: 409 for a second webhook.
"""

from hashlib import blake2s
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import Field, ValidationError

from dispatcher.api.qlara import FAILURES, Caller, Failure
from dispatcher.api.qlara import PREFIX as PREFIX
from dispatcher.api.qlara import failure as failure
from dispatcher.api.responses import Shape, answer, body_of, documented, parts_of, refuse
from dispatcher.errors import AlreadyExists, InvalidInput, NotFound
from dispatcher.model import decode_json, iso_seconds
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.workspace import Workspace
from dispatcher.store.api_keys import ApiKey
from dispatcher.store.audit import Who, difference, is_changed

MAX_BYTES = 16_384


class Webhook(Shape):
    """Where the callbacks of all channels go."""

    id: str
    callback_url: str
    status: str = "ACTIVE"
    created_at: str


class CallbackUrl(Shape):
    """The body of a request that sets the webhook."""

    callback_url: Annotated[
        str,
        Field(
            min_length=1, max_length=2048, pattern="^https?://", examples=["https://hooks.acme.example/qlara"]
        ),
    ]


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
TOO_MANY = documented("Too many calls a second, or changes a minute.", _often(10))
NO_WEBHOOK = documented("There is no webhook.", failure(404, "there is no callback URL; create it first"))


async def _who_may_redirect(request: Request, key: Caller) -> ApiKey:
    """The caller's key. Raises HTTPException 403 for one that may only read."""
    if key.read_only:
        refuse(request, "read_only", key.id)
        raise HTTPException(403, READ_ONLY)
    return key


Redirector = Annotated[ApiKey, Depends(_who_may_redirect)]
router = APIRouter(prefix=PREFIX, tags=["Qlara"], responses={n: FAILURES[n] for n in (400, 401, 429, 503)})


@router.post(
    "/webhooks/delivery-status",
    status_code=201,
    openapi_extra=BODY,
    responses={
        201: documented("The webhook is created.", WEBHOOK),
        413: TOO_LONG,
        415: FAILURES[415],
        409: documented(
            "There is a webhook already.",
            failure(409, "there is a callback URL already; change or delete it"),
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
    """The current callback URL."""
    found = await parts_of(request).workspaces.get(key.workspace)
    if found is None or not found.callback_url:
        raise HTTPException(404, "there is no callback URL; create it first")
    return answer(request, _webhook(found))


@router.put(
    "/webhooks/delivery-status",
    openapi_extra=BODY,
    responses={
        200: documented("The webhook is changed.", WEBHOOK),
        404: NO_WEBHOOK,
        413: TOO_LONG,
        415: FAILURES[415],
        403: MAY_NOT,
        429: TOO_MANY,
    },
)
async def replace_webhook(request: Request, key: Redirector) -> Response:
    """Changes the callback URL for status changes accepted from now on."""
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
    """Removes the callback URL; waiting callbacks still go to it."""
    replaced = await _replace(request, key, "")
    return replaced if isinstance(replaced, Response) else Response(status_code=204)


async def _replace(request: Request, key: ApiKey, url: str) -> Workspace | Response:
    """Changes the callback URL; returns the workspace, or the answer that refuses the change."""
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
    """Counts a change of the webhook; returns the answer that refuses it after too many in this minute.

    A change without effect does not count, nor an impossible one: creating an existing webhook, replacing a missing one.
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
    """The callback URL in a request's body, checked except for its host's addresses. Raises InvalidInput."""
    parts = parts_of(request)
    try:
        url = CallbackUrl.model_validate(decode_json(await body_of(request, MAX_BYTES))).callback_url
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)
        said = (": ".join((*map(str, one["loc"]), _SAID.get(one["type"], one["msg"]))) for one in wrong)
        raise InvalidInput("; ".join(said)) from None
    try:
        read = parse_callback_url(url, allow_http=parts.allow_http)
    except InvalidInput as error:  # its hint at a setting is for operators only
        said_once = str(error).removeprefix("callback URL").partition(" (DISPATCHER_")[0]
        raise InvalidInput(f"callbackUrl{said_once}") from None
    # No look-up here: the answer would tell a customer which names our name servers know.
    if parts.addresses.port_refusal(read.port):
        raise InvalidInput("callbackUrl: callbacks may not go to its port")
    if read.address and parts.addresses.refusal(read.host, read.port):
        raise InvalidInput("callbackUrl: its address is not public")
    return url


def _webhook(workspace: Workspace) -> Webhook:
    created = workspace.created_ms if workspace.webhook_ms is None else workspace.webhook_ms
    name = blake2s(f"{workspace.id} {created}".encode(), digest_size=4).hexdigest()
    return Webhook(id=f"wh-{name}", callback_url=workspace.callback_url, created_at=iso_seconds(created))
