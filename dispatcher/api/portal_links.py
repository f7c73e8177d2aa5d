"""Links to the customers' portal, for backends that show it to their customers."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError

from dispatcher.api.responses import ApiParts, Shape, answer, body_of, documented, parts_of
from dispatcher.api.status_changes import FAILURES, Caller, failure
from dispatcher.codec import decode_json, iso
from dispatcher.errors import InvalidInput, visible
from dispatcher.rules.frame_origin import frame_origin
from dispatcher.store.audit import LINK_ADDED, Who
from dispatcher.store.sessions import LINK_SECONDS, PORTAL_SECONDS, Session

PREFIX = "/v1/portal-links"
MAX_BYTES = 16_384
MOST_NAME = 200
NO_CONSOLE = "there is no portal here: DISPATCHER_CONSOLE_URL is not set (docs/portal.md)"

__all__ = ["PREFIX", "failure", "router"]


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable, without blanks at its ends")
    return text


def _origin(text: object) -> object:
    return frame_origin(text) if isinstance(text, str) else text


class Wanted(Shape):
    """What a backend asks for."""

    model_config = ConfigDict(extra="forbid")
    workspace: Annotated[str, Field(min_length=1, max_length=MOST_NAME, examples=["acme"])]
    name: Annotated[
        str | None,
        Field(min_length=1, max_length=MOST_NAME, description="Who opens it, for the log of actions."),
        AfterValidator(lambda text: text and _printable(text)),
    ] = None
    frame_origin: Annotated[
        str | None,
        Field(description="The only site whose pages may show the portal in a frame: https://HOST[:PORT]."),
        BeforeValidator(_origin),
    ] = None


class Link(Shape):
    """A link to the portal: the browser that opens it first has a session of one hour."""

    url: str
    expires_at: str


LINK = Link(
    url="https://callbacks.example.com/portal/enter?link=mN0q…", expires_at="2026-06-09T13:10:00.000Z"
)
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": Wanted.model_json_schema(by_alias=True),
                "example": {
                    "workspace": "acme",
                    "name": "jane@acme.example",
                    "frameOrigin": "https://app.acme.example",
                },
            }
        },
    }
}
router = APIRouter(tags=["Portal"])


@router.post(
    PREFIX,
    status_code=201,
    openapi_extra=BODY,
    responses={
        201: documented("The link, which opens the portal once.", LINK),
        **{number: FAILURES[number] for number in (400, 401, 415, 429)},
        404: documented("There is no such workspace.", failure(404, "there is no workspace 'acme'")),
        413: documented("The body is too long.", failure(413, f"the limit is {MAX_BYTES:,} bytes")),
        503: documented("Not available now, or no portal is set up.", failure(503, NO_CONSOLE)),
    },
)
async def add_link(request: Request, key: Caller) -> Response:
    """Makes a link that opens a workspace's portal: valid once, within five minutes."""
    parts = parts_of(request)
    wanted = _read(await body_of(request, MAX_BYTES))
    if not parts.console_url:
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, NO_CONSOLE)
    if await parts.workspaces.find(wanted.workspace) is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no workspace {wanted.workspace!r}")
    link = await _offered(parts, wanted)
    about = {"name": wanted.name, "frameOrigin": wanted.frame_origin}
    trail = parts.audit.by(Who("api", f"{key.id} ({key.name})"))
    await trail.add(LINK_ADDED, wanted.workspace, after={n: v for n, v in about.items() if v})
    return answer(request, link, HTTPStatus.CREATED)


async def _offered(parts: ApiParts, wanted: Wanted) -> Link:
    now_ms = await parts.sessions.now_ms()
    session = Session(
        f"portal:{wanted.workspace}" + (f":{wanted.name}" if wanted.name else ""),
        wanted.name or wanted.workspace,
        "customer",
        now_ms,
        now_ms + PORTAL_SECONDS * 1000,
        wanted.workspace,
        wanted.frame_origin or "",
    )
    text = await parts.sessions.offer(session, LINK_SECONDS * 1000)
    return Link(
        url=f"{parts.console_url}/portal/enter?link={text}", expires_at=iso(now_ms + LINK_SECONDS * 1000)
    )


_SAID = {
    "model_type": "must be a JSON object",
    "missing": "is required",
    "string_type": "must be text",
    "extra_forbidden": "there is no such field; known are workspace, name and frameOrigin",
}


def _read(body: bytes) -> Wanted:
    """Reads and checks a body. Raises InvalidInput."""
    try:
        return Wanted.model_validate(decode_json(body))
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)
        said = (
            ": ".join(
                (*map(_shown, one["loc"]), _SAID.get(one["type"], one["msg"].removeprefix("Value error, ")))
            )
            for one in wrong
        )
        raise InvalidInput("; ".join(said)) from None


def _shown(name: object) -> str:
    return visible(str(name))[:50]
