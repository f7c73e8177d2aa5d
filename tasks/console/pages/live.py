"""Attempts as they are made."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.subscription import DEFAULT
from tasks.console.asking import TEMPLATES, Ask
from tasks.console.live import Numbered, State, ViewersQueue
from tasks.console.site import page

BEAT_SECONDS = 5.0
"""How often an idle stream says something, so that a browser or a proxy that has gone is noticed."""
LOOK_SECONDS = 2.0
"""How often a stream looks whether its session has ended."""
TOGETHER_SECONDS = 0.2
"""Attempts of such a time are sent together: each would be a write to each viewer, thousands in a second."""
MOST_AT_ONCE = 50
"""Rows that are sent together, the latest: nobody reads 250 a second."""
LEAST_SECONDS, SPARE_SECONDS = 3.0, 2.0
"""A stream ends so long before the server would cut it; the browser opens the next one, and its session is looked at again."""


class Stream(StreamingResponse):
    """Server-sent events, of a viewer who `leave`s at their end, also where none was sent."""

    def __init__(self, events: AsyncIterator[str], leave: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


def _wants(ask: Ask, attempt: Mapping[str, Any]) -> bool:
    workspace = ask.workspace(ask.query.get("workspace"))
    if workspace and attempt["workspace"] != workspace:
        return False
    if ask.query.get("failed") and attempt["outcome"] == "delivered":
        return False
    text = ask.query.get("q", "")
    return not text or text in attempt["endpoint"] or text in (attempt["messageId"], attempt["eventId"])


def _owner(attempt: Mapping[str, Any]) -> str:
    of = attempt.get("subscription", DEFAULT)
    return EndpointName(attempt["workspace"], "", "" if of == DEFAULT else of).owner


def _rest(queue: ViewersQueue) -> Iterator[Numbered | None]:
    """What waits in a queue."""
    while not queue.empty():
        yield queue.get_nowait()


def _event(ask: Ask, number: int, attempt: Mapping[str, Any]) -> str:
    """A server-sent event with the row of an attempt, which is drawn once for all who see the same."""

    def draw() -> str:
        text = TEMPLATES.get_template("live_row.html").render(one=attempt, owner=_owner(attempt), ask=ask)
        return f"id: {number}\ndata: {json.dumps(text)}\n\n"

    return ask.parts.live.drawn((number, ask.base), draw)


def shown_state(state: State, *, in_portal: bool) -> str:
    """The state as the page's script has words for it: our Redis and workers do not concern a customer."""
    if not in_portal or state == "live":
        return state
    return "soon" if state == "waiting" else "unavailable"


@page("/live", customers=True)
async def live(ask: Ask) -> Response:
    """The latest attempts; the page's script adds those that follow. Raises NotFound for a workspace that there is not."""
    if workspace := ask.workspace(ask.query.get("workspace")):
        await (await ask.store()).workspaces.require(workspace)
    latest = ask.parts.live.latest()
    rows = [(one, _owner(one)) for _, one in latest if _wants(ask, one)]
    last = latest[0][0] if latest else ask.parts.live.last
    return ask.page("live.html", "Live", rows=rows, filters=ask.query, last=last)


@page("/live/events", customers=True)
async def events(ask: Ask) -> Response:
    """The attempts that follow those on the page, as server-sent events: each is a row of the page's table."""
    ask.workspace(ask.query.get("workspace"))
    last = ask.request.headers.get("last-event-id") or ask.query.get("after", "")
    after = int(last) if last.isascii() and last.isdigit() and len(last) < 20 else 0
    queue = ask.parts.live.join(after, ask.person.who)
    if queue is None:
        raise HTTPException(429, "too many live pages are open: close some")
    return Stream(_events(ask, queue), partial(ask.parts.live.leave, queue))


async def _events(ask: Ask, queue: ViewersQueue) -> AsyncIterator[str]:
    """What a viewer reads until the server would cut it, or the session has ended."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + max(LEAST_SECONDS, ask.settings.api_request_seconds - SPARE_SECONDS)
    yield "retry: 200\n\n"
    said, look_at = "", loop.time() + LOOK_SECONDS
    while (left := ends - loop.time()) > 0:
        if loop.time() >= look_at:
            if not await ask.is_still_allowed():
                return
            look_at = loop.time() + LOOK_SECONDS
        state = shown_state(ask.parts.live.state, in_portal=ask.is_portal)
        if said != state:
            said = state
            yield f"event: state\ndata: {said}\n\n"
        try:
            first = await asyncio.wait_for(queue.get(), min(BEAT_SECONDS, LOOK_SECONDS, left))
        except TimeoutError:
            yield ": still here\n\n"
            continue
        if first is None:  # another state
            continue
        await asyncio.sleep(TOGETHER_SECONDS)
        wanted = [one for one in (first, *_rest(queue)) if one and _wants(ask, one[1])]
        if texts := [_event(ask, *one) for one in wanted[-MOST_AT_ONCE:]]:
            yield "".join(texts)
