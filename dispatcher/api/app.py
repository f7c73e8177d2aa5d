"""The HTTP API: each platform's status API, and the HTTP intake. Errors have the form of the path's platform."""

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any, Protocol

import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from dispatcher import __version__
from dispatcher.api import (
    docs_page,
    jwks,
    namirial,
    portal_links,
    qlara,
    qlara_webhook,
    sendexa,
    status_changes,
    zeckta,
)
from dispatcher.api.enqueuer import Enqueuer
from dispatcher.api.log_rate import LogRate
from dispatcher.api.responses import AWAY, ApiParts, Shape, answer
from dispatcher.errors import ArchiveUnavailable, InvalidInput, RedisFull, RedisUnavailable
from dispatcher.health import PATHS, Health
from dispatcher.model import StatusChange

log = structlog.get_logger()


class Platform(Protocol):
    """What a platform's module defines."""

    PREFIX: str
    """The prefix of its paths."""
    router: APIRouter

    def failure(self, status: int, text: str) -> Shape:
        """An error in the platform's form."""


PLATFORMS: tuple[Platform, ...] = (
    zeckta, sendexa, namirial, qlara, qlara_webhook, status_changes, portal_links,
)  # fmt: skip
DESCRIPTION = """Status of messages for customers, in the form of the platform they know: each workspace's API keys open the
paths of its dialect. `POST /v1/status-changes` and `POST /v1/portal-links` are for backends. Another workspace's data is not found (404)."""

NO_PATH = HTTPStatus.NOT_FOUND.phrase
"""What Starlette says of a path that does not exist."""
ALIKE, MAX_COMPARED = 0.9, 64
"""How alike a path must be to be suggested, and the longest that is compared, in characters."""

BASE = "/api"
"""Part of Qlara's documented base URL."""

Parts = Callable[[], AbstractAsyncContextManager[ApiParts]]


class Api(FastAPI):
    """The application. All its answers have `Cache-Control: no-store`, except for public keys."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request. The server sets `refused` in the state of a connection above its limit: that gets a 503.

        So does every request, but for those of probes, while `health` says that nothing is served.
        """

        async def unkept(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("Cache-Control", "no-store")
            await send(message)

        refused = scope["type"] == "http" and scope.get("state", {}).get("refused")
        if (
            refused and scope["path"] != "/healthz"
        ):  # too many connections are no reason to restart the process
            headers = {"Retry-After": "5", "Connection": "close"}
            refusal = _failed(Request(scope), 503, "too many connections, try again", headers)
            await refusal(scope, receive, unkept)
        elif scope["type"] == "lifespan":
            scope.setdefault("state", {})  # a server without it does not see what starting puts into it
            await super().__call__(scope, receive, unkept)
        elif scope["type"] == "http" and self.state.health.serves_nothing and scope["path"] not in PATHS:
            await _failed(Request(scope), 503, AWAY, {"Retry-After": "5"})(scope, receive, unkept)
        else:
            await super().__call__(scope, receive, unkept)


class AwayLog:
    """Notes calls that met a Redis that is away or full, or an archive that is away."""

    def __init__(self, health: Health, rate: LogRate | None = None) -> None:
        self._health = health
        self._rate = rate or LogRate()
        self.is_divided = False
        """Whether there are several partitions: one call then says nothing of the others, and the process stays ready."""

    def note(self, error: Exception) -> None:
        """One call was refused because of this error."""
        if isinstance(error, ArchiveUnavailable):  # what Redis has is answered
            if calls := self._rate.count("archive"):
                log.error("api.archive_away", problem=str(error), calls=calls)
            return
        is_full = isinstance(error, RedisFull)
        if not (is_full or self.is_divided):  # a full Redis still answers reads
            self._health.failed(getattr(error, "why", ""))
        if calls := self._rate.count("full" if is_full else "away"):
            log.error("api.redis_away", problem=str(error), calls=calls)


def create_app(parts: Parts, *, docs: bool = False, health: Health | None = None) -> FastAPI:
    """The ASGI application; `parts` are open while it runs. With `docs` it has a page at /docs.

    /healthz and /readyz answer from `health`, without an API key. The server finds an `Enqueuer` in the state of its
    lifespan, as `enqueuer`: what it takes itself need not come through the application.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with parts() as app.state.parts:
            app.state.away.is_divided = app.state.parts.is_divided
            yield {"enqueuer": Enqueuer(app.state.parts, app.state.away.note, app.state.health)}

    app = Api(
        title="Callback dispatcher",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.health = health or Health()
    app.state.away = AwayLog(app.state.health)
    app.state.kept_keys = jwks.KeptKeys()
    app.include_router(_health_router(app.state.health))
    app.include_router(jwks.router)
    if docs:
        app.include_router(docs_page.router)
    for platform in PLATFORMS:
        app.include_router(platform.router)
    for platform in (qlara, qlara_webhook):
        app.include_router(platform.router, prefix=BASE, include_in_schema=False)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InvalidInput, _invalid)
    app.add_exception_handler(RedisUnavailable, _away)
    app.add_exception_handler(ArchiveUnavailable, _away)
    app.add_exception_handler(Exception, _broken)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _health_router(health: Health) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.api_route("/healthz", methods=["GET", "HEAD"])
    @router.api_route("/readyz", methods=["GET", "HEAD"])
    async def say(request: Request) -> Response:
        status, text = health.answer(request.scope["route"].path)
        return Response(text, status, media_type="text/plain")

    return router


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text, headers = str(error.detail), error.headers or {}
    if error.status_code == 404 and text == NO_PATH:
        text += _other_path(request.scope["path"])
    elif error.status_code == 405 and (methods := _methods(request.scope["path"])):
        text, headers = f"{text}: use {methods}", {**headers, "Allow": methods}
    return _failed(request, error.status_code, text, headers)


def _methods(path: str) -> str:
    """The methods that a path takes, as in an Allow header (RFC 9110 §10.2.1); empty if it is none of ours."""
    routes = [route for one in PLATFORMS for route in one.router.routes if isinstance(route, APIRoute)]
    return ", ".join(
        sorted({method for r in routes if r.path_regex.match(path) for method in r.methods or ()})
    )


def _other_path(path: str) -> str:
    """A hint at the path that may be meant by one that does not exist; empty if none is like it."""
    routes = [route for one in PLATFORMS for route in one.router.routes if isinstance(route, APIRoute)]
    if any(route.path_regex.match(path.removesuffix("/")) for route in routes):
        return ": there is such a path without the slash at its end"
    fixed = [route.path for route in routes if "{" not in route.path]
    found = get_close_matches(path, fixed, 1, ALIKE) if len(path) <= MAX_COMPARED else []
    return f": did you mean {found[0]}?" if found else ""


def _invalid(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        wrong = [_said(one) for one in error.errors()]
        return _failed(request, 400, "; ".join(wrong))
    return _failed(request, 400, str(error))


def _said(wrong: dict[str, Any]) -> str:
    return f"{wrong['loc'][-1]}: {str(wrong['msg']).removeprefix('Value error, ')}"


def _away(request: Request, error: Exception) -> Response:
    request.app.state.away.note(error)
    return _failed(request, 503, AWAY, {"Retry-After": "5"})


def _broken(request: Request, error: Exception) -> Response:
    path = getattr(
        request.scope.get("route"), "path", ""
    )  # the pattern, not the requested path, which may hold a phone number
    log.error("api.internal_error", path=path, exc_info=error)
    return _failed(request, 500, "internal error")


def _failed(request: Request, status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    path = str(request.scope["path"])
    path = path.removeprefix(BASE) if path.startswith(BASE + qlara.PREFIX) else path
    platform = next((one for one in PLATFORMS if path.startswith(one.PREFIX)), status_changes)
    response = answer(request, platform.failure(status, text), status)
    response.headers.update(headers or {})
    return response


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, without FastAPI's default error answers, which our handlers replace."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path != status_changes.PREFIX:
                operation["responses"].pop("422", None)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    change = StatusChange.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
    schemas |= change.pop("$defs") | {"StatusChange": change}
    app.openapi_schema = json.loads(_LONG_NAME.sub(_short_name, json.dumps(document)))
    return app.openapi_schema


_LONG_NAME = re.compile(r"dispatcher__api__(\w+?)__(\w+)")
"""FastAPI's name for a shape whose short name two platforms share."""


def _short_name(match: re.Match[str]) -> str:
    return match[1].title().replace("_", "") + match[2]
