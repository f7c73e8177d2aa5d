"""The application: guards every request, then lets a page answer. `open_console` makes it from the settings."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.settings import Settings
from dispatcher.errors import (
    ArchiveUnavailable,
    DispatcherError,
    InvalidInput,
    NotFound,
    OtherFormat,
    RedisUnavailable,
)
from dispatcher.health import PATHS, Health
from dispatcher.store.across.absent import apart
from tasks.console import pages
from tasks.console.access import ANY_SITE, NOT_NOW, Person, Role, is_from_elsewhere
from tasks.console.asking import LONG_FORM, SHORT_FORM, TEMPLATES, Ask, Parts, form_of, who_asks
from tasks.console.cookies import text_of
from tasks.console.figures import HourFigures
from tasks.console.hosts import is_ours
from tasks.console.live import Live
from tasks.console.opened import Opened
from tasks.console.site import PAGES, PORTAL, Page
from tasks.console.watch import Watch
from tasks.console.ways import Ways
from tasks.health import looking

LOG_OUT = "/logout"
"""The form of the portal that is carried out however many were."""
STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer, unless its page says otherwise."""

log = structlog.get_logger()


class Guarded:
    """Adds HEADERS to every answer, and refuses requests that other sites' pages make."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if frame := scope.get("state", {}).get("frame"):
                    csp = HEADERS["Content-Security-Policy"]
                    headers["Content-Security-Policy"] = csp.replace(
                        "frame-ancestors 'none'", f"frame-ancestors {frame}"
                    )
                    del headers["X-Frame-Options"]
            await send(message)

        if not _is_probe(scope) and (refused := _refused(Request(scope))):
            await refused(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)


def _is_probe(scope: Scope) -> bool:
    """Whether health is asked for: orchestrators ask by addresses."""
    return scope["path"].removeprefix(scope.get("root_path", "")) in PATHS


def _refused(request: Request) -> Response | None:
    """The answer to what comes by a name that is not the console's, or from another site's page, or above the limit of connections."""
    if request.scope.get("state", {}).get("refused"):  # BoundedProtocol says so
        return PlainTextResponse(
            "too many connections, try again", 503, {"Retry-After": "5", "Connection": "close"}
        )
    host = request.headers.get("host", "")
    if not is_ours(host, request.app.state.parts.settings.console_url):
        text = (
            "refused: this is not the name that the console is reached by; open it by that of DISPATCHER_CONSOLE_URL, "
            "or as localhost where it listens (a proxy must pass on the Host header)"
        )
        return PlainTextResponse(text, 421)
    if is_from_elsewhere(request.method, request.headers, host):
        text = "refused: the request came from another site's page, or its browser does not say from where"
        return PlainTextResponse(text, 403)
    return None


def create_app(opened: Callable[[], AbstractAsyncContextManager[Parts]] | None = None) -> Starlette:
    """The ASGI application; `opened` gives its parts while it runs.

    Without it, who mounts it sets them as `state.parts`: a mounted application is not told when the server starts.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        assert opened
        async with opened() as app.state.parts:
            yield

    routes: list[Any] = [
        *(Route(path, _probe) for path in PATHS),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    for page in PAGES:
        if page.role is not Role.CUSTOMER:
            routes.append(_route(page.path, partial(_answer, page, False), page.methods))
        if page.customers:
            routes.append(_route(PORTAL + page.path, partial(_answer, page, True), page.methods))
    handlers: dict[Any, Any] = {HTTPException: _failed, Exception: _broken}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan if opened else None)
    app.add_middleware(Guarded)
    app.router.redirect_slashes = False  # it would lead to what the Host header says
    return app


def _route(path: str, answer: Callable[[Request], Awaitable[Response]], methods: tuple[str, ...]) -> Route:
    async def endpoint(request: Request) -> Response:
        return await answer(request)

    return Route(path, endpoint, methods=list(methods))


@asynccontextmanager
async def open_console(settings: Settings, ways: Ways, health: Health | None = None) -> AsyncIterator[Parts]:
    """What the pages read and change; the store is opened when the first page wants it, closed at the end.

    health: that of the process, if something else in it keeps it up to date
    """
    async with AsyncExitStack() as closing, AsyncExitStack() as ending:
        opened = Opened(settings, closing)
        if health is None:
            health = Health()
            await closing.enter_async_context(looking(health, settings, writes=False))
        watch, live, figures = Watch(opened.store), Live(settings, opened.store), HourFigures(opened.store)
        parts = Parts(
            settings, health, opened.store, opened.sessions, opened.alerts, ways, watch, live, figures
        )
        for one in (opened, parts.unwritten, watch, live, figures, parts.jobs):
            ending.push_async_callback(one.close)  # before the store, from which they read
        if ways.oidc:
            ending.push_async_callback(ways.oidc.close)
        yield parts


async def _probe(request: Request) -> Response:
    parts: Parts = request.app.state.parts
    status, text = parts.health.answer(request.scope["route"].path)
    return PlainTextResponse(text, status)


async def _answer(page: Page, portal: bool, request: Request) -> Response:
    """Lets the page answer the person who asks, if they may see it."""
    parts: Parts = request.app.state.parts
    root = request.scope.get("root_path", "")
    nobody = Person("", "", Role.CUSTOMER if portal else Role.VIEWER)
    ask = Ask(request, nobody, parts, root + (PORTAL if portal else ""))
    with apart() as ask.absent:
        return await _answered(page, portal, ask)


async def _answered(page: Page, portal: bool, ask: Ask) -> Response:
    request, parts, nobody = ask.request, ask.parts, ask.person
    try:
        if parts.health.serves_nothing:  # what it would show or change mostly belongs elsewhere now
            return _problem(ask, 503, parts.health.ready_problem())
        person = nobody if page.public else await who_asks(request, parts, portal=portal)
        if person is None:
            return _log_in(ask)
        ask.person = person
        if person.frame:
            request.state.frame = person.frame
        if not (page.public or portal or person.may(page.role)):
            raise HTTPException(403, f"this needs the role {page.role.word}; you are {person.role.word}")
        if "POST" in page.methods:
            ask.form = await form_of(request, LONG_FORM if page.has_long_form else SHORT_FORM)
        if not page.public:  # what an identity provider sends there has the length it likes
            ask.require_short()
        if "POST" in page.methods and not page.public:
            session = person.who, text_of(request, portal=portal)
            form = request.url.path, tuple(sorted(ask.form.items()))
            return await parts.repeats.once(session, form, partial(_made, page, ask))
        return await page.answer(ask)
    except Exception as error:
        return _problem(ask, *_said(error, page))


async def _made(page: Page, ask: Ask) -> Response:
    if not ask.is_portal or page.path == LOG_OUT:
        return await page.answer(ask)
    with ask.parts.portal_rate.one(ask.person.workspace):
        return await page.answer(ask)


def _said(error: Exception, page: Page) -> tuple[int, str]:
    """The status and the text for an error; one that is not expected is logged."""
    match error:
        case NotFound():
            return 404, str(error)
        case RedisUnavailable() | ArchiveUnavailable() | OtherFormat():
            log.error("console.store_away", problem=str(error))
            return 503, str(error)
        case InvalidInput():
            return 400, str(error)
        case DispatcherError():
            return 409, str(error)
        case HTTPException():
            return error.status_code, error.detail
    log.error("console.internal_error", path=page.path, exc_info=error)
    return 500, "a fault of ours, which is in the log"


def _log_in(ask: Ask) -> Response:
    """Where somebody without a session goes. What asks in the background is told, so that the page goes there."""
    request, root = ask.request, ask.request.scope.get("root_path", "")
    if ask.base.endswith(PORTAL):
        return _problem(ask, 401, "your session is over: open the portal again where you found its link")
    if request.headers.get("sec-fetch-dest", "document") == "empty" or request.method != "GET":
        return _problem(ask, 401, "your session is over: log in again")
    path = request.url.path.removeprefix(root) + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(ask.url("/login", to=None if path == "/" else path), 303)


TITLES = {401: "Logged out", 403: "Not allowed", 404: "Not found", 503: "Not available"}


def _problem(ask: Ask, status: int, text: str) -> Response:
    title = TITLES.get(status, "Refused" if status < 500 else "Broken")
    in_portal = ask.base.endswith(PORTAL)
    if in_portal and not ask.person.who:
        ask.request.state.frame = ANY_SITE
    if status == 503 and in_portal:  # where our Redis is does not concern a customer
        text = NOT_NOW
    elif status == 503 and not ask.person.who:  # nor somebody of whom we do not know who they are
        text = f"{NOT_NOW}; the console's log says why"
    return ask.page("problem.html", title, status=status, text=text)


async def _failed(request: Request, error: Exception) -> Response:
    """What no page takes: an unknown path, or a method that a path does not have."""
    assert isinstance(error, HTTPException)
    base = request.scope.get("root_path", "").removesuffix("/static")
    is_portal = request.url.path.startswith(f"{base}{PORTAL}/")
    if is_portal:
        request.state.frame = await _frame_of(request)
    text = TEMPLATES.get_template("bare.html").render(
        title=TITLES.get(error.status_code, "Refused"),
        text={404: "there is no such page", 405: "this page cannot be asked in this way"}.get(
            error.status_code, str(error.detail)
        ),
        base=base,
        overview=base + (f"{PORTAL}/" if is_portal else "/"),
    )
    return Response(text, error.status_code, dict(error.headers or {}), "text/html")


async def _frame_of(request: Request) -> str:
    """The site that may show the portal in a frame to whoever asks; any site, if nobody is logged in."""
    try:
        person = await who_asks(request, request.app.state.parts, portal=True)
    except DispatcherError:
        person = None
    return person.frame if person else ANY_SITE


async def _broken(request: Request, error: Exception) -> Response:
    log.error("console.internal_error", exc_info=error)
    return PlainTextResponse("a fault of ours, which is in the log", 500, HEADERS)


assert pages.ALL  # importing them fills PAGES
