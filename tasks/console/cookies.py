"""The cookies: the text of a session, one for the console, one for the portal; and of a log-in that has begun."""

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from config.settings import Settings
from dispatcher.store.sessions import Session

CONSOLE, PORTAL = "dispatcher_console", "dispatcher_portal"
LOG_IN = "dispatcher_log_in"
"""A log-in that has begun at an identity provider. `Lax`, since the provider sends the browser back by a link."""
HOST_ONLY = "__Host-"
"""Before the name where the site is https: browsers then take it from this host alone (RFC 6265bis §4.1.3)."""


def is_secure(settings: Settings) -> bool:
    """Whether browsers reach the console by https."""
    return urlsplit(settings.console_url or "").scheme == "https"


def text_of(request: Request, *, portal: bool) -> str:
    """The session's text in a request; empty if there is none."""
    settings = request.app.state.parts.settings
    return read_text(request, settings, _name(portal=portal))


def put(response: Response, settings: Settings, text: str, session: Session) -> Response:
    """Gives the browser a session. One that a frame of another site shows is sent there too, and kept apart for that site."""
    portal, secure = bool(session.workspace), is_secure(settings)
    name, age = _full(settings, _name(portal=portal)), (session.ends_ms - session.created_ms) // 1000
    flags = _flags(age, secure=secure, is_framed=portal and bool(session.frame))
    response.headers.append("set-cookie", f"{name}={text}; {flags}")
    return response


def drop(response: Response, settings: Settings, *, portal: bool, is_framed: bool = False) -> Response:
    """Has the browser forget its session; it keeps one of a frame apart, and forgets it only if that is said again."""
    flags = _flags(0, secure=is_secure(settings), is_framed=is_framed)
    response.headers.append("set-cookie", f"{_full(settings, _name(portal=portal))}=; {flags}")
    return response


def read_text(request: Request, settings: Settings, name: str) -> str:
    """The text of a cookie; empty if there is none."""
    return request.cookies.get(_full(settings, name), "")


def put_text(response: Response, settings: Settings, name: str, text: str, seconds: int) -> Response:
    """Gives the browser a text, which scripts cannot read, and which other sites' forms are not sent with."""
    flags = _flags(seconds, secure=is_secure(settings), is_framed=False)
    response.headers.append("set-cookie", f"{_full(settings, name)}={text}; {flags}")
    return response


def drop_text(response: Response, settings: Settings, name: str) -> Response:
    """Has the browser forget a text."""
    return put_text(response, settings, name, "", 0)


def _flags(age: int, *, secure: bool, is_framed: bool) -> str:
    same_site = "None; Partitioned" if is_framed and secure else "Lax"
    return f"Path=/; Max-Age={age}; HttpOnly; SameSite={same_site}" + ("; Secure" if secure else "")


def _name(*, portal: bool) -> str:
    return PORTAL if portal else CONSOLE


def _full(settings: Settings, name: str) -> str:
    return (HOST_ONLY if is_secure(settings) else "") + name
