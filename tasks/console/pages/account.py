"""Logging in and out."""

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from dispatcher.store.api_keys import OPERATORS
from dispatcher.store.sessions import EVERYBODY, Session
from tasks.console.access import Role, safe_path
from tasks.console.asking import Ask
from tasks.console.cookies import drop, put, text_of
from tasks.console.site import action, page
from tasks.console.ways import new_session


@page("/login", public=True)
async def form(ask: Ask) -> Response:
    """The log-in page; the link that the command prints brings its token behind `#`, which the script puts into the form."""
    return ask.page(
        "login.html", "Log in", to=safe_path(ask.query.get("to", "/")), problem="", oidc=ask.parts.ways.oidc
    )


@action("/login", public=True)
async def log_in(ask: Ask) -> Response:
    """Begins a session with a console key, or with the printed link's token."""
    address = ask.request.client.host if ask.request.client else ""
    to = safe_path(ask.form.get("to", "/"))
    problem, status = "this key is not valid here", 403
    if session := await _session(ask, ask.form.get("key", "").strip()):
        return await begin(ask, session, to)  # also beyond the limit: behind a proxy all have one address
    if wait := ask.parts.limit.wait_seconds(address):
        problem, status = f"too many failed log-ins: try again in {wait} s", 429
    else:
        ask.parts.limit.failed(address)
    answer = ask.page("login.html", "Log in", status=status, to=to, problem=problem, oidc=ask.parts.ways.oidc)
    if wait:
        answer.headers["Retry-After"] = str(wait)
    return answer


async def _session(ask: Ask, given: str) -> Session | None:
    """The session of a key or a token; None for anything else."""
    store = await ask.parts.store()
    now_ms = await store.installation.now_ms()
    if session := ask.parts.ways.by_token(given, now_ms):
        return session
    key = await store.api_keys.verify(given)
    if key is None or key.workspace != OPERATORS:
        return None
    role = Role.of(key.platform.partition(":")[2])
    return new_session(f"key:{key.id}", key.name, role, now_ms) if role else None


async def begin(ask: Ask, session: Session, to: str) -> Response:
    """Begins a session: always a new one, so that none that somebody prepared is taken over. Then the one of before ends."""
    sessions = await ask.parts.sessions()
    text = await sessions.begin(session)
    if old := text_of(ask.request, portal=False):
        await sessions.end(old)
    return put(RedirectResponse(ask.base + to, 303), ask.settings, text, session)


@page("/account", customers=True)
async def account(ask: Ask) -> Response:
    """Who is logged in, and how to log out."""
    return ask.page("account.html", "Account")


@action("/logout", role=Role.VIEWER, customers=True)
async def log_out(ask: Ask) -> Response:
    """Ends this session; with `everywhere` all of this person's, with `everybody` (admins) those of all."""
    sessions, store = await ask.parts.sessions(), await ask.store()
    now_ms = await store.installation.now_ms()
    if ask.form.get("everybody"):
        if not ask.person.may(Role.ADMIN):
            raise HTTPException(403, "this needs the role admin")
        await sessions.end_all(EVERYBODY, now_ms)
        await store.audit.add("console.end_all_sessions")
    if text := text_of(ask.request, portal=ask.is_portal):
        await sessions.end(text)  # before what a full Redis refuses
    if ask.form.get("everywhere"):
        await sessions.end_all(ask.person.who, now_ms)
    if ask.is_portal:
        ended = ask.page(
            "problem.html",
            "Logged out",
            text="you are logged out: open the portal again where you found its link",
        )
        return drop(ended, ask.settings, portal=True, is_framed=bool(ask.person.frame))
    return drop(RedirectResponse(ask.url("/login"), 303), ask.settings, portal=False)


@page("/login/oidc", public=True)
async def to_provider(ask: Ask) -> Response:
    """Sends the browser to the identity provider."""
    if ask.parts.ways.oidc is None:
        return ask.go("/login")
    return await ask.parts.ways.oidc.begin(ask.request, safe_path(ask.query.get("to", "/")))


@page("/login/oidc/back", public=True)
async def from_provider(ask: Ask) -> Response:
    """Takes the provider's answer, and begins a session for a user who has a role."""
    if ask.parts.ways.oidc is None:
        return ask.go("/login")
    oidc = ask.parts.ways.oidc
    user, to = await oidc.finish(ask.request)
    role = ask.parts.ways.role_of(user.name, user.groups)
    if role is None:
        text = f"{user.name} has no role here: DISPATCHER_CONSOLE_ROLES names who has"
        return oidc.forget(ask.page("login.html", "Log in", status=403, to=to, problem=text, oidc=oidc))
    now_ms = await (await ask.parts.store()).installation.now_ms()
    session = new_session(f"oidc:{user.subject}", user.name, role, now_ms)
    return oidc.forget(await begin(ask, session, to))
