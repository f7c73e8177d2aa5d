"""What the platforms' APIs have in common: who asks, how an answer is made, what OpenAPI says of it."""

import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel
from starlette.requests import ClientDisconnect

from dispatcher.errors import InvalidInput, visible
from dispatcher.model import encode_json, timestamp_ms
from dispatcher.producer import AsyncDispatcher
from dispatcher.rules.addresses import AddressPolicy
from dispatcher.store.api_keys import ApiKey, ApiKeys, Spent
from dispatcher.store.audit import Audit
from dispatcher.store.callbacks import Callbacks
from dispatcher.store.messages import Messages
from dispatcher.store.refusals import Refusals
from dispatcher.store.searches import Search, Searches, SearchRefused
from dispatcher.store.stats import Stats
from dispatcher.store.workspaces import Workspaces


@dataclass(frozen=True)
class ApiParts:
    """What the API reads and changes."""

    messages: Messages
    callbacks: Callbacks
    stats: Stats
    workspaces: Workspaces
    api_keys: ApiKeys
    refusals: Refusals
    audit: Audit
    producer: AsyncDispatcher
    addresses: AddressPolicy
    searches: Searches
    allow_http: bool = False
    enqueuing: Counter[str] = field(default_factory=Counter)
    """Ids of producer keys, with how many calls of each are under way in this process."""
    max_queued: int = 100_000
    """Status changes on the queue above which the HTTP intake takes no more."""
    webhook_changes_per_minute: int = 10
    """By one workspace's customer."""
    now_ms: Callable[[], int] = lambda: round(time.time() * 1000)


class Shape(BaseModel):
    """A JSON object of a platform: snake_case here, camelCase there."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


def parts_of(request: Request) -> ApiParts:
    """The parts of the app that a request came to."""
    parts: ApiParts = request.app.state.parts
    return parts


def answer(request: Request, content: object, status: int = 200, *, nulls: bool = False) -> Response:
    """A JSON answer with what is left of the caller's rate; what is unknown is left out, or null."""
    headers = rate_headers(request.state.spent) if hasattr(request.state, "spent") else {}
    return Response(encode_json(_dumped(content, nulls)), status, headers, "application/json")


def documented(text: str, example: object, *, nulls: bool = False, model: object = None) -> dict[str, Any]:
    """An answer for OpenAPI: its meaning, its schema (the example's, where `model` is not another one), an example."""
    shown: dict[str, Any] = {"example": _dumped(example, nulls, mode="json")}
    return {"description": text, "model": model or _type(example), "content": {"application/json": shown}}


def failures(example: Callable[[int, str], Shape], denied: int = 401) -> dict[int, Any]:
    """What every platform may answer in place of what was asked for, in its own form; each operation takes what it needs."""
    return {
        400: documented(
            "The question is wrong.", example(400, "limit: Input should be less than or equal to 100")
        ),
        denied: documented("No valid API key.", example(denied, "the API key is missing or not valid")),
        404: documented("This workspace has none of that id.", example(404, "no such message")),
        415: documented(
            "The body is compressed, or not UTF-8.",
            example(415, "Content-Encoding gzip: send the body as it is"),
        ),
        429: documented("Too often.", example(429, "Rate limit exceeded. 50 requests a second are allowed.")),
        503: documented("Ask again soon.", example(503, "not available now, try again")),
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
    """What a key has left in this second."""
    return {
        "X-RateLimit-Limit": str(spent.limit),
        "X-RateLimit-Remaining": str(max(0, spent.remaining)),
        "X-RateLimit-Reset": str(spent.reset),
    }


def caller(
    platform: str, credentials: Callable[..., Any], denied: int = 401, scheme: str = ""
) -> Callable[..., Awaitable[ApiKey]]:
    """A dependency that says whose API key a request has. `credentials` is a dependency that gives the key's text, `scheme` what a 401 asks for.

    Raises HTTPException: `denied` for a key that is missing, wrong or another platform's, 429 for one that asks too often.
    """
    challenge = {"WWW-Authenticate": scheme} if scheme else None

    async def who(request: Request, text: Annotated[str | None, Depends(credentials)]) -> ApiKey:
        parts = parts_of(request)
        key, known_id = await parts.api_keys.identify(text or "")
        if key is None or key.platform != platform:
            refuse(request, "other_platform" if key else "wrong" if text else "missing", known_id)
            raise HTTPException(denied, "the API key is missing or not valid", challenge)
        spent = await parts.api_keys.spend(key)
        request.state.spent = spent
        if spent.remaining < 0:
            refuse(request, "rate", key.id)
            headers = rate_headers(spent) | {"Retry-After": "1"}
            raise HTTPException(
                429, f"Rate limit exceeded. {spent.limit} requests a second are allowed.", headers
            )
        return key

    return who


@asynccontextmanager
async def searching(request: Request, key: ApiKey) -> AsyncIterator[Search]:
    """A search for a call, paid for by what it reads. Raises HTTPException 429 where it has to wait."""
    search = Search(parts_of(request).searches, key)
    try:
        yield search
    except SearchRefused as error:
        raise HTTPException(429, str(error), {"Retry-After": "1"}) from None
    finally:
        await search.close()
        request.state.spent = search.spent or request.state.spent


def refuse(request: Request, reason: str, key_id: str) -> None:
    """Counts a call that is refused; `key_id` is that of a key that there is, if it is known."""
    parts = parts_of(request)
    parts.refusals.add(reason, key_id, now_ms=parts.now_ms())


async def body_of(request: Request, max_bytes: int) -> bytes:
    """A request's body, read only now, and not at all where its headers say that it cannot be used.

    Raises HTTPException: 413 where it is too long, 415 where it is compressed or not UTF-8, 400 where it breaks off.
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
    return bytes(read)


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


Flag = Annotated[bool, BeforeValidator(_flag)]
"""A boolean in a query: `true` or `false`."""


def moment_ms(name: str, text: str) -> int:
    """A query's time in ms since 1970; a `+` that came as a blank is put back. Raises InvalidInput."""
    try:
        return timestamp_ms(text.replace(" ", "+"))
    except ValueError as error:
        raise InvalidInput(f"{name}: {error}") from None
