"""Which events a command is about: the options, and what they choose."""

from collections.abc import AsyncIterator
from typing import Annotated

import typer

from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import State
from dispatcher.store.callbacks import LISTED
from dispatcher.store.keys import endpoint_id
from dispatcher.store.stored_callback import StoredCallback
from tasks import console, wiring

WAITING = "waiting"
STATES = (WAITING, *(state.value for state in LISTED))

Workspace = Annotated[str | None, typer.Option(help="Of this workspace only.", show_default=False)]
Url = Annotated[
    str | None,
    typer.Option(
        "--endpoint", help="To this endpoint only (its URL); needs --workspace.", show_default=False
    ),
]
Error = Annotated[
    str | None,
    typer.Option(help="Whose last attempt said this only: timeout, http_500, …", show_default=False),
]
Since = Annotated[
    str | None, typer.Option(help="Ended since: 2026-06-09T13:00, or 90m, 6h, 2d ago.", show_default=False)
]
Until = Annotated[str | None, typer.Option(help="Ended until: as --since.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


async def chosen(
    store: wiring.Store,
    state: str,
    workspace: str | None,
    url: str | None,
    error: str | None,
    since: str | None,
    until: str | None,
) -> AsyncIterator[StoredCallback]:
    """The events of a filter. Fails where the filter cannot be."""
    if state not in STATES:
        console.fail(f"a state is one of {', '.join(STATES)}, not {state!r}", console.USAGE)
    if url and not workspace:
        console.fail("--endpoint needs --workspace: an endpoint is one workspace's", console.USAGE)
    if workspace:
        await store.workspaces.require(workspace)
    origin = parse_callback_url(url, allow_http=True).origin if url else None
    now_ms = await store.installation.now_ms()
    if state == WAITING:
        endpoint = endpoint_id(EndpointName(workspace, origin)) if workspace and origin else None
        found = store.callbacks.waiting(workspace, endpoint)
    else:
        names = [workspace] if workspace else await store.workspaces.names()
        since_ms, until_ms = console.time_ms(since, now_ms) or 0, console.time_ms(until, now_ms) or now_ms
        found = store.callbacks.ended(names, State(state), since_ms, until_ms)
    async for event in found:
        if origin in (None, event.endpoint) and error in (None, event.error):
            yield event
