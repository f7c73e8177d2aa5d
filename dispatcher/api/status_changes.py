"""The HTTP intake: status changes from backends that cannot reach Redis."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from dispatcher.api.responses import (
    ApiParts,
    Shape,
    answer,
    body_of,
    caller,
    documented,
    failures,
    parts_of,
)
from dispatcher.codec import json_problem
from dispatcher.errors import EnqueueInterrupted, InvalidInput, RedisUnavailable
from dispatcher.fast_decode import status_change
from dispatcher.given import Ready, check_time_and_url, unknown_workspace
from dispatcher.store.api_keys import PRODUCERS, ApiKey

PREFIX = "/v1/status-changes"
MAX_CHANGES = 1000
MAX_BYTES = 8 * 1024 * 1024
RETRY_AFTER_SECONDS = 5
MAX_AT_ONCE = 8
"""Calls of one key under way in one process: it bounds the bodies in memory."""
SLICE, SLICE_BYTES = 50, 64 * 1024
"""Status changes, and bytes of them, validated before the event loop serves other calls."""

Looked = tuple[Ready | None, str]
"""A valid status change, or None and the problem."""


class Result(Shape):
    """The result for one status change; results are in the order of the request."""

    event_id: str | None = None
    result: Literal["queued", "invalid", "unconfirmed"]
    """queued: it is on the queue; invalid: see `problem`; unconfirmed: it may be on the queue, enqueue it again."""
    problem: str | None = None


class Results(Shape):
    """The results for all status changes of a call."""

    queued: int
    results: list[Result]


class Failure(Shape):
    """An error: nothing was enqueued."""

    error: str


def failure(status: int, text: str) -> Failure:
    """An error in our own form."""
    return Failure(error=text)


FAILURES = failures(failure)
RESULTS = Results(
    queued=1,
    results=[
        Result(event_id="evt_1", result="queued"),
        Result(result="invalid", problem="message.dest: is required"),
    ],
)
FAILED = Results(queued=0, results=[Result(result="invalid", problem="message.dest: is required")])
CUT = Results(queued=0, results=[Result(event_id="evt_1", result="unconfirmed")])
CHANGE = {
    "eventId": "evt_1",
    "workspace": "acme",
    "status": "DELIVERED",
    "timestamp": "2026-06-09T13:04:57.487133482Z",
    "message": {"uuid": "b6e0c4de-6f2d-4d3a-9a39-0d7a2a1f8f11", "src": "ACME", "dest": "+233202007745"},
}

bearer = HTTPBearer(
    auto_error=False, scheme_name="Producer", description="`Authorization: Bearer <producer key>`"
)


async def _token(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str | None:
    return given.credentials if given else None


Caller = Annotated[ApiKey, Depends(caller(PRODUCERS, _token, "Authorization: Bearer KEY", scheme="Bearer"))]
router = APIRouter(tags=["HTTP intake"])


def body_schema() -> dict[str, Any]:
    """OpenAPI's description of the body: one status change, or an array of up to 1,000."""
    one = {"$ref": "#/components/schemas/StatusChange"}
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_CHANGES}
    examples = {"one": {"value": CHANGE}, "several": {"value": [CHANGE]}}
    content = {"application/json": {"schema": {"oneOf": [one, many]}, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    PREFIX,
    status_code=202,
    openapi_extra=body_schema(),
    responses={
        202: documented("The valid ones are on the queue.", RESULTS),
        **{number: FAILURES[number] for number in (400, 401, 415, 429)},
        413: documented("The body is too long.", failure(413, f"the limit is {MAX_BYTES:,} bytes")),
        422: documented("None of them is valid; none is on the queue.", FAILED),
        503: documented(
            "Redis is unavailable or full, or the queue is too long: try again after `Retry-After`.",
            CUT,
            model=Results | Failure,
        ),
    },
)
async def enqueue(request: Request, key: Caller) -> Response:
    """Enqueues status changes. Repeating a call is safe if each has an eventId, or the same fields as before."""
    await _refuse_while_full(request)
    with _one_more(parts_of(request), key):
        changes = _split(await body_of(request, MAX_BYTES))
        results, confirmed, whole = await _enqueue(parts_of(request), changes)
    given = Counter(change.event_id for change, _ in results if change)
    queued = {id_ for id_, times in given.items() if confirmed[id_] == times}
    status = 503 if not whole else 202 if given else 422
    answered = answer(request, results_of(results, queued), status)
    if status == 503:
        answered.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return answered


@contextmanager
def _one_more(parts: ApiParts, key: ApiKey) -> Iterator[None]:
    """Counts a key's calls under way, each of which holds a body. Raises HTTPException 429."""
    if parts.enqueuing[key.id] >= MAX_AT_ONCE:
        raise HTTPException(429, f"{MAX_AT_ONCE} calls at once with one key", {"Retry-After": "1"})
    parts.enqueuing[key.id] += 1
    try:
        yield
    finally:
        parts.enqueuing[key.id] -= 1


async def _enqueue(parts: ApiParts, changes: list[msgspec.Raw]) -> tuple[list[Looked], Counter[str], bool]:
    """Validates and enqueues; returns each result, the eventIds certainly on the queue, and whether Redis took all.

    Raises RedisUnavailable if Redis took none.
    """
    results: list[Looked] = []
    confirmed: Counter[str] = Counter()
    known: set[str] = set()
    whole = True
    for some in _slices(changes):
        looked = [looked_at(bytes(one), parts) for one in some]
        try:
            if whole:
                looked = await _of_known_workspaces(parts, looked, known)
                confirmed.update(await parts.producer.enqueue_ready(one for one, _ in looked if one))
        except EnqueueInterrupted as error:
            confirmed.update(error.confirmed)
            whole = False
        except RedisUnavailable:
            if not confirmed:
                raise
            whole = False
        results += looked
        await asyncio.sleep(0)  # lets other calls run
    return results, confirmed, whole


async def _of_known_workspaces(parts: ApiParts, looked: list[Looked], known: set[str]) -> list[Looked]:
    """Marks status changes of unknown workspaces as invalid; adds existing workspaces to `known`."""
    new = {one.workspace for one, _ in looked if one} - known
    unknown = await parts.producer.unknown_workspaces(new)
    known |= new.difference(unknown)
    if not unknown:
        return looked
    return [
        (None, unknown_workspace(one.workspace)) if one and one.workspace in unknown else (one, problem)
        for one, problem in looked
    ]


def _slices(changes: list[msgspec.Raw]) -> Iterator[list[msgspec.Raw]]:
    """Splits them into slices that each take milliseconds to validate."""
    some: list[msgspec.Raw] = []
    length = 0
    for one in changes:
        if some and (length + len(one) > SLICE_BYTES or len(some) == SLICE):
            yield some
            some, length = [], 0
        some.append(one)
        length += len(one)
    if some:
        yield some


async def _refuse_while_full(request: Request) -> None:
    parts = parts_of(request)
    if await parts.producer.queued() > parts.max_queued:
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        raise HTTPException(503, f"more than {parts.max_queued:,} status changes are on the queue", headers)


def _split(body: bytes) -> list[msgspec.Raw]:
    """Splits a body into the JSON of each status change, without memory for more than MAX_CHANGES. Raises InvalidInput."""
    try:
        if not _ARRAY.match(body):
            return [msgspec.json.decode(body, type=msgspec.Raw)]
        found = [one for one in msgspec.structs.astuple(_decode_many(body)) if one is not msgspec.UNSET]
    except msgspec.ValidationError:
        found = []
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput(json_problem(body, error)) from None
    if not found:
        raise InvalidInput(f"give 1 to {MAX_CHANGES:,} status changes at once")
    return found


_ARRAY = re.compile(rb"[ \t\r\n]*\[")
_Many = msgspec.defstruct(
    "_Many",
    [(f"change_{number}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for number in range(MAX_CHANGES)],
    array_like=True,
    forbid_unknown_fields=True,
)
"""An array of at most MAX_CHANGES. A struct, because msgspec checks its length while decoding, a list's only after."""
_decode_many = msgspec.json.Decoder(_Many).decode


def looked_at(given: bytes, parts: ApiParts) -> Looked:
    """Reads and validates the JSON of one status change, which goes onto the queue as it was sent."""
    given = given.strip(b" \t\r\n")
    try:
        one = status_change(given)
        check_time_and_url(one, parts.now_ms(), allow_http=parts.allow_http)
        return Ready(one.event_id, one.workspace, given, one.message.uuid), ""
    except InvalidInput as error:  # its hint at a setting is for operators only
        return None, str(error).partition(" (DISPATCHER_")[0]


def _said(change: Ready | None, problem: str, queued: set[str]) -> Result:
    if change is None:
        return Result(result="invalid", problem=problem)
    return Result(event_id=change.event_id, result="queued" if change.event_id in queued else "unconfirmed")


def results_of(looked: Iterable[Looked], queued: set[str]) -> Results:
    """The answer for status changes; `queued` are the eventIds that are certainly on the queue."""
    results = [_said(*one, queued) for one in looked]
    return Results(queued=sum(one.result == "queued" for one in results), results=results)
