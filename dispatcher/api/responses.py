"""Shared by all platforms' APIs: authentication, rate limits, answers, request bodies, OpenAPI entries."""

import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, HTTPException, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from pydantic.alias_generators import to_camel
from starlette.requests import ClientDisconnect

from dispatcher.codec import not_utf8
from dispatcher.errors import InvalidInput, visible
from dispatcher.model import encode_json, timestamp_ms
from dispatcher.producer import AsyncDispatcher
from dispatcher.rules.addresses import AddressPolicy
from dispatcher.store.api_keys import ApiKey, ApiKeys, Spent
from dispatcher.store.audit import Audit
from dispatcher.store.callbacks import Callbacks
from dispatcher.store.messages import Messages
from dispatcher.store.producer_keys import ProducerKeys
from dispatcher.store.queue_writer import QueueWriter
from dispatcher.store.refused_calls import Refusals
from dispatcher.store.searches import Search, Searches, SearchRefused
from dispatcher.store.sessions import Sessions
from dispatcher.store.stats import Stats
from dispatcher.store.workspaces import Workspaces

if TYPE_CHECKING:
    from dispatcher.store.across.api_producer import ProducerAcross
    from dispatcher.store.archive.history import CallbacksAndArchive

NOT_VALID = "the API key is not valid"
"""What is said of every key that opens nothing here: a wrong one, a revoked one, another platform's."""
MAX_COMPARED = 50
"""How many parameters of a query are looked at for misspelt ones."""

AWAY = "not available now, try again"
"""What is said while Redis does not answer."""


@dataclass(frozen=True)
class ApiParts:
    """What the API reads and changes."""

    messages: Messages
    callbacks: "Callbacks | CallbacksAndArchive"
    stats: Stats
    workspaces: Workspaces
    api_keys: ApiKeys
    refusals: Refusals
    audit: Audit
    producer: "AsyncDispatcher | ProducerAcross"
    producer_keys: ProducerKeys
    queue: QueueWriter
    addresses: AddressPolicy
    searches: Searches
    sessions: Sessions
    console_url: str = ""
    """Where browsers reach the console, whose portal links lead there; empty: there are none."""
    allow_http: bool = False
    enqueuing: Counter[str] = field(default_factory=Counter)
    """Calls under way in this process, by producer key's id."""
    max_queued: int = 100_000
    """Queue length, in status changes, above which the HTTP intake refuses more."""
    is_divided: bool = False
    """Whether there are several partitions: then one server that is away is not Redis that is away."""
    webhook_changes_per_minute: int = 10
    """Limit of webhook changes a minute by one workspace's customer."""
    now_ms: Callable[[], int] = lambda: round(time.time() * 1000)


class Shape(BaseModel):
    """A JSON object of a platform's API: snake_case in Python, camelCase in JSON."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


def parts_of(request: Request) -> ApiParts:
    """The parts of the application that handles a request."""
    parts: ApiParts = request.app.state.parts
    return parts


def answer(request: Request, content: object, status: int = 200, *, nulls: bool = False) -> Response:
    """A JSON answer with rate-limit headers. Unknown values are left out, or null with `nulls`."""
    headers = rate_headers(request.state.spent) if hasattr(request.state, "spent") else {}
    return Response(encoded(content, nulls=nulls), status, headers, "application/json")


def encoded(content: object, *, nulls: bool = False) -> bytes:
    """The JSON of an answer. Unknown values are left out, or null with `nulls`."""
    return encode_json(_dumped(content, nulls))


def documented(text: str, example: object, *, nulls: bool = False, model: object = None) -> dict[str, Any]:
    """An OpenAPI response: its description, an example, and the schema of `model` (by default the example's)."""
    shown: dict[str, Any] = {"example": _dumped(example, nulls, mode="json")}
    return {"description": text, "model": model or _type(example), "content": {"application/json": shown}}


def failures(example: Callable[[int, str], Shape], denied: int = 401) -> dict[int, Any]:
    """OpenAPI entries of the errors that any platform may answer, in its own form; each operation picks from them."""
    return {
        400: documented(
            "The request is invalid.", example(400, "limit: Input should be less than or equal to 100")
        ),
        denied: documented("No valid API key.", example(denied, NOT_VALID)),
        404: documented("This workspace has nothing with that id.", example(404, "no such message")),
        415: documented(
            "The body is compressed, or not UTF-8.",
            example(415, "Content-Encoding gzip: send the body as it is"),
        ),
        429: documented(
            "Too many requests.", example(429, "Rate limit exceeded. 50 requests a second are allowed.")
        ),
        503: documented("Not available now; try again.", example(503, AWAY)),
    }


def _type(example: object) -> Any:
    return list[type(example[0])] if isinstance(example, list) else type(example)  # type: ignore[misc]


def _dumped(content: object, nulls: bool, mode: str = "python") -> Any:
    if isinstance(content, list):
        return [_dumped(one, nulls, mode) for one in content]
    if isinstance(content, BaseModel):
        return content.model_dump(by_alias=True, exclude_none=not nulls, mode=mode)
    return content


def rate_headers(spent: Spent) -> dict[str, str]:
    """Headers that say what the key has left in this second."""
    return {
        "X-RateLimit-Limit": str(spent.limit),
        "X-RateLimit-Remaining": str(max(0, spent.remaining)),
        "X-RateLimit-Reset": str(spent.reset),
    }


def caller(
    platform: str, credentials: Callable[..., Any], header: str, denied: int = 401, scheme: str = ""
) -> Callable[..., Awaitable[ApiKey]]:
    """Makes a FastAPI dependency that authenticates a request and returns its API key.

    `credentials` is a dependency that returns the key's text; `header` shows the header that has it; `scheme` is the
    WWW-Authenticate value of a 401. The dependency raises HTTPException: `denied` for a key that is missing, wrong
    or another platform's, 429 for one over its rate; and InvalidInput for a misspelt parameter of the query.
    """
    challenge = {"WWW-Authenticate": scheme} if scheme else None

    async def who(request: Request, text: Annotated[str | None, Depends(credentials)]) -> ApiKey:
        parts = parts_of(request)
        key, known_id = await parts.api_keys.identify(text or "")
        if key is None or key.platform != platform:
            refuse(request, "other_platform" if key else "wrong" if text else "missing", known_id)
            raise HTTPException(denied, NOT_VALID if text else f"no API key: send {header}", challenge)
        spent = await parts.api_keys.spend(key)
        request.state.spent = spent
        if spent.remaining < 0:
            refuse(request, "rate", key.id)
            headers = rate_headers(spent) | {"Retry-After": "1"}
            raise HTTPException(
                429, f"Rate limit exceeded. {spent.limit} requests a second are allowed.", headers
            )
        _refuse_misspelt(request)
        return key

    return who


def _refuse_misspelt(request: Request) -> None:
    """Raises InvalidInput for a parameter that is almost one of the operation's. Quite different ones are ignored."""
    known = {one.alias.lower(): one.alias for one in request.scope["route"].dependant.query_params}
    for name in list(request.query_params)[:MAX_COMPARED]:
        near = get_close_matches(name.lower(), known, n=1, cutoff=0.8) if name not in known.values() else ()
        if near:
            raise InvalidInput(f"{visible(name)}: there is no such parameter, did you mean {known[near[0]]}?")


@asynccontextmanager
async def searching(request: Request, key: ApiKey) -> AsyncIterator[Search]:
    """A search whose reads count against the caller's rate. Raises HTTPException 429 if refused or too slow."""
    search = Search(parts_of(request).searches, key)
    try:
        yield search
    except SearchRefused as error:
        raise HTTPException(429, str(error), {"Retry-After": "1"}) from None
    finally:
        await search.close()
        request.state.spent = search.spent or request.state.spent


def refuse(request: Request, reason: str, key_id: str) -> None:
    """Counts a refused call; `key_id` names an existing key, or is empty if unknown."""
    parts = parts_of(request)
    parts.refusals.add(reason, key_id, now_ms=parts.now_ms())


async def body_of(request: Request, max_bytes: int) -> bytes:
    """Reads a request's body, unless its headers already show that it cannot be used.

    Raises HTTPException: 413 if it is too long, 415 if it is compressed or not UTF-8, 400 if it breaks off.
    """
    _refuse_encoded(request)
    too_long = HTTPException(413, f"the limit is {max_bytes:,} bytes", {"Connection": "close"})
    told = request.headers.get("content-length", "")
    if told.isdigit() and (len(told) > 18 or int(told) > max_bytes):
        raise too_long
    read = bytearray()
    try:
        async for some in request.stream():
            read += some
            if len(read) > max_bytes:
                raise too_long
    except ClientDisconnect:
        raise HTTPException(400, "the body broke off") from None
    body = bytes(read)
    if problem := not_utf8(body):
        raise HTTPException(415, problem)
    return body


def _refuse_encoded(request: Request) -> None:
    coding = ", ".join(request.headers.getlist("content-encoding")).strip().lower()
    if coding not in ("", "identity"):
        headers = {"Accept-Encoding": "identity", "Connection": "close"}
        raise HTTPException(415, f"Content-Encoding {visible(coding)[:50]}: send the body as it is", headers)
    named = _CHARSET.search(request.headers.get("content-type", ""))
    if named and named[1].lower() not in ("", "utf-8", "utf8", "us-ascii"):
        raise HTTPException(415, f"charset {visible(named[1])[:50]}: send UTF-8", {"Connection": "close"})


_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([^"';\s]*)""", re.IGNORECASE)


def _flag(value: object) -> object:
    if value not in ("true", "false", True, False):
        raise ValueError("must be true or false")
    return value


Amount = Annotated[Decimal, WithJsonSchema({"type": "number"})]
"""A number of any precision; pydantic would say that it is text."""
Flag = Annotated[bool, BeforeValidator(_flag)]
"""A boolean query parameter: `true` or `false` only."""


def moment_ms(name: str, text: str) -> int:
    """Parses a time in a query into ms since 1970; a blank was a `+` before decoding. Raises InvalidInput."""
    try:
        return timestamp_ms(text.replace(" ", "+"))
    except ValueError as error:
        raise InvalidInput(f"{name}: {error}") from None
