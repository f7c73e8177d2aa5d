"""One box for everything: an eventId, a message, a phone number, a reference, a workspace, an endpoint."""

from starlette.responses import Response

from tasks.console.asking import Ask
from tasks.console.finding import WHERE, find
from tasks.console.site import page


@page("/search", customers=True)
async def search(ask: Ask) -> Response:
    """What a text may mean. If it can only mean one thing, goes there."""
    text = ask.query.get("q", "")
    if not text:
        return ask.page("search.html", "Search", text="", hits=[], limits=[])
    workspace = ask.workspace(ask.query.get("workspace"))
    now = await ask.now()
    hits, limits = await find(await ask.store(), text, workspace, now.of(workspace), ask.away)
    if len(hits) == 1 and not ask.missing:
        return ask.go(hits[0].path, **hits[0].query)
    if ask.is_portal:  # which dialects there are does not concern a customer
        limits = [one for one in limits if one != WHERE]
    return ask.page("search.html", "Search", text=text, hits=hits, limits=limits)
