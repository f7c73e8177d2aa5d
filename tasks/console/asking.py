"""One request to a page: who asks for what, and the answers that pages give."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jinja2
import jinja2.runtime
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from config.settings import Settings
from dispatcher import __version__
from dispatcher.errors import InvalidInput, NotFound, RedisUnavailable
from dispatcher.health import Health
from dispatcher.rules.addresses import MAX_URL_LENGTH
from dispatcher.store.across.absent import Absent
from dispatcher.store.latest_alerts import LatestAlerts
from dispatcher.store.sessions import Session, Sessions
from tasks import wiring
from tasks.console.access import Person, Role, missing
from tasks.console.cookies import text_of
from tasks.console.figures import HourFigures
from tasks.console.jobs import Jobs
from tasks.console.live import Live
from tasks.console.login_limit import LoginLimit
from tasks.console.notes import Notes
from tasks.console.pings import Pings
from tasks.console.portal_rate import PortalRate
from tasks.console.repeats import Repeats
from tasks.console.svg import draw
from tasks.console.unwritten import Unwritten
from tasks.console.watch import Snapshot, Watch
from tasks.console.ways import Ways
from tasks.console.words import FILTERS, prose, shown, without_commands

LONG_FORM, SHORT_FORM = 512 * 1024, 64 * 1024
"""How many bytes a form may have: the body of a callback whose signature does not verify is pasted into a long one.

A callback's has little more than its entry (64 KB), three times that as browsers send it; all of it is read in the event loop.
"""
MOST_FIELDS = 100
MOST_CHARACTERS = MAX_URL_LENGTH
"""Of a field of a form or a URL: the longest that pages send are callback URLs. Errors quote fields whole."""
LONG_FIELDS = frozenset({"headers", "body", "secret"})
"""Fields that may be longer: people paste requests and keys into them."""

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=shown,
    auto_reload=False,  # or each use looks at its file, which an upgrade may replace under a running console
)
TEMPLATES.filters.update(FILTERS)


@jinja2.pass_context
def _prose(context: jinja2.runtime.Context, text: str | None) -> Markup:
    """A sentence as `prose` shows it; in the portal without commands and settings."""
    return prose(without_commands(text or "") if context["ask"].is_portal else text)


TEMPLATES.filters["prose"] = _prose
TEMPLATES.globals |= {"version": __version__, "draw": draw}


@dataclass
class Parts:
    """What all pages share, while the application runs."""

    settings: Settings
    health: Health
    store: Callable[[], Awaitable[wiring.Store]]
    """Opens the store when it is first asked for. Raises RedisUnavailable, OtherFormat."""
    sessions: Callable[[], Awaitable[Sessions]]
    alerts: Callable[[], Awaitable[LatestAlerts]]
    ways: Ways
    watch: Watch
    live: Live
    figures: HourFigures
    jobs: Jobs = field(default_factory=Jobs)
    notes: Notes = field(default_factory=Notes)
    pings: Pings = field(default_factory=Pings)
    portal_rate: PortalRate = field(default_factory=PortalRate)
    limit: LoginLimit = field(default_factory=LoginLimit)
    repeats: Repeats = field(default_factory=Repeats)
    unwritten: Unwritten = field(default_factory=Unwritten)


@dataclass
class Ask:
    """One request."""

    request: Request
    person: Person
    parts: Parts
    base: str
    """What stands before each path: the path it is mounted at, and `/portal` for a customer."""
    form: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    """Why the archive does not answer, so that the page may lack something."""
    absent: Absent = field(default_factory=Absent)
    """The partitions that did not answer: what they hold is missing on the page."""

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return self.parts.settings

    @property
    def is_portal(self) -> bool:
        """Whether a customer asks."""
        return self.person.role is Role.CUSTOMER

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The parameters of the URL, without empty ones."""
        return {name: value.strip() for name, value in self.request.query_params.items() if value.strip()}

    async def store(self) -> wiring.Store:
        """The store; what is done by it is in the log of actions as this person's."""
        found = await self.parts.store()
        audit = replace(found.audit.by(self.person.author), again=self.parts.unwritten.again)
        return replace(found, audit=audit)

    def workspace(self, given: str | None) -> str:
        """The workspace that a request is about; empty: all. A customer's is always their own. Raises NotFound for another."""
        own = self.person.workspace
        if own and given and given != own:
            raise NotFound(f"there is no workspace {given}")
        return own or (given or "")

    def require_short(self) -> None:
        """Raises InvalidInput for a field that is longer than pages send it."""
        given = (*self.request.query_params.multi_items(), *self.form.items())
        for name, value in given:
            if len(value) > MOST_CHARACTERS and name not in LONG_FIELDS:
                raise InvalidInput(f"{name[:20]} has {len(value):,} characters; at most {MOST_CHARACTERS:,}")

    def needs(self, *names: str) -> list[str]:
        """Fields that must be given, of the form or the URL. Raises InvalidInput."""
        found = [self.form.get(name) or self.query.get(name) or "" for name in names]
        if missing := [name for name, value in zip(names, found, strict=True) if not value]:
            raise InvalidInput(f"the page lacks {', '.join(missing)}: go back and try again")
        return found

    async def is_still_allowed(self) -> bool:
        """Whether the person could ask again now: not once the session has ended. While Redis is away nobody knows, and they may."""
        try:
            found = await who_asks(self.request, self.parts, portal=self.is_portal)
        except RedisUnavailable:
            return True
        return found is not None and found.role >= self.person.role

    async def now(self) -> Snapshot:
        """The installation of the last seconds; the page says what did not answer when it was read."""
        found = await self.parts.watch.latest()
        if found.absent.partitions:
            self.absent.add(found.absent, await self._own_partitions())
        return found

    async def _own_partitions(self) -> Collection[int] | None:
        """Those that may hold what is of a customer; None, all, for an operator."""
        if not (own := self.person.workspace):
            return None
        width = (await (await self.parts.store()).workspaces.require(own)).width
        return self.settings.partitioning.all_of(own, width)

    @property
    def missing(self) -> str:
        """What is said where partitions did not answer; empty if all did."""
        return missing(self.absent, for_customer=self.is_portal)

    def away(self, error: Exception) -> None:
        """Notes that the archive does not answer: the page says so."""
        self.problem = str(error)

    def url(self, path: str, **query: object) -> str:
        """A link to one of our pages."""
        given = {name: value for name, value in query.items() if value not in (None, "")}
        return f"{self.base}{path}" + (f"?{urlencode(given)}" if given else "")

    def page(self, template: str, title: str, *, status: int = 200, **context: Any) -> Response:
        """An HTML page."""
        note = self.parts.notes.take(self.query.get("note", ""), self.person.who)
        text = TEMPLATES.get_template(template).render(
            title=title, ask=self, person=self.person, note=note, Role=Role, status=status, **context
        )
        return HTMLResponse(text, status)

    def go(self, path: str, note: str = "", **query: object) -> Response:
        """Sends the browser to another page of ours, which shows the note once."""
        key = self.parts.notes.keep(note, self.person.who) if note else None
        return RedirectResponse(self.url(path, **query, note=key), HTTPStatus.SEE_OTHER)


async def who_asks(request: Request, parts: Parts, *, portal: bool) -> Person | None:
    """The person who asks, by a session or a proxy. Raises RedisUnavailable."""
    if not portal and (found := parts.ways.by_proxy(request)):
        return found
    if not (text := text_of(request, portal=portal)):
        return None
    sessions, store = await parts.sessions(), await parts.store()
    session = await sessions.of(text, await store.installation.now_ms())
    if session is None:
        return None
    if portal:
        return await customer_of(store, session)
    person = Person.of(session)
    return person if person and person.role is not Role.CUSTOMER else None


async def customer_of(store: wiring.Store, session: Session) -> Person | None:
    """The customer of a session; None if it is an operator's, or if its workspace was removed since. Raises RedisUnavailable."""
    person = Person.of(session)
    if person is None or person.role is not Role.CUSTOMER:
        return None
    found = await store.workspaces.find(person.workspace)
    if found is None:
        return None
    if found.is_damaged:
        return person
    return replace(person, since_ms=found.created_ms) if found.created_ms <= session.created_ms else None


async def form_of(request: Request, most_bytes: int) -> dict[str, str]:
    """The fields of a form as browsers send it. Raises HTTPException for one that is too long or of another kind."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "send the form as application/x-www-form-urlencoded")
    read = bytearray()
    try:
        async for some in request.stream():
            read += some
            if len(read) > most_bytes:
                raise HTTPException(413, f"the form is longer than {most_bytes:,} bytes")
    except ClientDisconnect:
        raise HTTPException(400, "the form broke off") from None
    try:
        pairs = parse_qsl(read.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise HTTPException(400, f"the form cannot be read: {error}") from None
    return {name: value.replace("\r\n", "\n") for name, value in pairs}
