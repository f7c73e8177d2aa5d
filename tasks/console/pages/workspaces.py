"""Workspaces: who the customers are, and how well it goes for each."""

from starlette.responses import Response

from dispatcher.errors import InvalidInput
from tasks.actions import subscriptions
from tasks.console import plots
from tasks.console.asking import Ask
from tasks.console.pages.subscriptions import damage
from tasks.console.site import page

PAGE = 100
SPANS = {"day": 24, "week": 168}


@page("/workspaces")
async def listed(ask: Ask) -> Response:
    """All workspaces by name, with what waits for each."""
    now, store = await ask.now(), await ask.store()
    text, after = ask.query.get("q", ""), ask.query.get("after", "")
    names = [name for name in sorted(await store.workspaces.names()) if text in name and name > after]
    shown = names[:PAGE]
    there = {one.id: one for one in await store.workspaces.some(shown)}
    return ask.page(
        "workspaces.html",
        "Workspaces",
        found=[(name, there.get(name), now.waiting_of(name).total()) for name in shown],
        text=text,
        following=shown[-1] if len(names) > PAGE else "",
    )


@page("/workspace", customers=True)
async def shown(ask: Ask) -> Response:
    """One workspace: its figures, its subscriptions, its endpoints."""
    store = await ask.store()
    workspace = ask.workspace(ask.query.get("id"))
    if not workspace:
        raise InvalidInput("say which workspace")
    known = await store.workspaces.require(workspace)
    now_ms = await store.installation.now_ms()
    span = ask.query.get("span", "day")
    hours = SPANS.get(span, 24)
    figures = await ask.parts.figures.of_workspace(workspace, now_ms, hours)
    rows: list[dict[str, object]] = []
    if not known.is_damaged:
        waiting = (await ask.now()).waiting_of(workspace)
        allow_http = ask.settings.allow_http
        rows = [
            subscriptions.document(known, name, waiting[name], allow_http=allow_http)
            for name in subscriptions.names(known)
        ]
    return ask.page(
        "workspace.html",
        workspace,
        workspace=known,
        subscriptions=rows,
        plots=[*plots.hours(figures, now_ms), plots.messages(figures, now_ms)],
        span=span if span in SPANS else "day",
        spans=list(SPANS),
        damaged=damage(ask, known) if known.is_damaged else "",
    )
