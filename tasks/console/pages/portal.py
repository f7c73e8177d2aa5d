"""The portal's way in: a link that a backend asked for begins a customer's session."""

from dataclasses import replace

from starlette.responses import RedirectResponse, Response

from dispatcher.store.sessions import PORTAL_SECONDS, Session
from tasks.console.access import ANY_SITE, Role
from tasks.console.asking import Ask, customer_of
from tasks.console.cookies import put, text_of
from tasks.console.site import page

USED_UP = "this link was used, or is older than five minutes: open the portal again where you found it"


@page("/", role=Role.CUSTOMER, customers=True)
async def home(ask: Ask) -> Response:
    """The first page."""
    return ask.go("/workspace")


@page("/enter", role=Role.CUSTOMER, customers=True, public=True)
async def enter(ask: Ask) -> Response:
    """Begins the link's session, and takes the link, once. What only looks at the link, or fetches it ahead, does not use it up.

    The link is taken last: where no session can be begun, as in a full Redis, it stays valid, and so does the session of before.
    """
    if ask.request.method == "HEAD":
        return Response()
    if "prefetch" in ask.request.headers.get("sec-purpose", ""):
        return ask.page("problem.html", "Not opened", status=503, text="open the link itself")
    sessions, link = await ask.parts.sessions(), ask.query.get("link", "")
    session = await _offered(ask, link)
    if session is None:
        return _used_up(ask)
    opened = await sessions.begin(session)
    if not await sessions.take(link):  # somebody else has it by now
        await sessions.end(opened)
        return _used_up(ask)
    if old := text_of(ask.request, portal=True):
        await sessions.end(old)
    return put(RedirectResponse(ask.url("/workspace"), 303), ask.settings, opened, session)


def _used_up(ask: Ask) -> Response:
    ask.request.state.frame = ANY_SITE
    return ask.page("problem.html", "Link used up", status=410, text=USED_UP)


async def _offered(ask: Ask, link: str) -> Session | None:
    """The session that the link begins, of an hour from now; None if there is none any more.

    It counts as begun when the link was made: who ends all sessions ends those too whose links are not used yet.
    """
    if not link:
        return None
    sessions = await ask.parts.sessions()
    found = await sessions.offered(link)
    if found is None or await customer_of(await ask.parts.store(), found) is None:
        return None
    return replace(found, ends_ms=await sessions.now_ms() + PORTAL_SECONDS * 1000)
