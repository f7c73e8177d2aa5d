"""The log of every action: who did what, when, to how many."""

from starlette.responses import Response

from dispatcher.store.audit import AuditEntry
from tasks.console.asking import Ask
from tasks.console.site import page

PAGE = 100
LOOKED_AT = 2500
"""Changes that the page of one workspace looks at, unless it is asked for all: some 10,000 of all workspaces are kept."""


@page("/log", customers=True)
async def log(ask: Ask) -> Response:
    """The latest actions, by the console, by commands and by the API."""
    store = await ask.store()
    workspace = ask.workspace(ask.query.get("workspace"))
    most = None if ask.query.get("all") else LOOKED_AT
    portal = ask.is_portal or ask.query.get("portal") != "out"
    found = await store.audit.latest(PAGE, workspace or None, most, portal=portal)
    found = [
        one for one in found if one.at_ms >= ask.person.since_ms
    ]  # not what one of the same name did before
    is_unknown = bool(workspace) and not found and await store.workspaces.find(workspace) is None
    return ask.page(
        "log.html",
        "Log of actions",
        found=found,
        workspace=workspace,
        is_unknown=is_unknown,
        size=PAGE,
        most=most,
        portal=portal,
        is_customers=_is_customers,
    )


def _is_customers(one: AuditEntry) -> bool:
    """Whether a customer did it, in the portal or by their own API key; a backend's key is the operator's."""
    return one.who.via == "portal" or (one.who.via == "api" and one.what.startswith("webhook."))
