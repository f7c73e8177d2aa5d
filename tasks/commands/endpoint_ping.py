"""`dispatcher endpoint ping`: sends a signed test callback to an endpoint."""

from typing import Annotated, Any

import typer

from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import CallbackUrl, parse_callback_url
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.workspace import Workspace as WorkspaceFound
from tasks import console, wiring
from tasks.actions import endpoints
from tasks.commands.endpoint import Json, Workspace
from tasks.commands.ping import answered, ping_url


def ping(
    workspace: Workspace,
    url: Annotated[
        str,
        typer.Argument(
            help="Its URL: in full, or without a path if callbacks wait there or the workspace's callback URL is there.",
            metavar="URL",
            show_default=False,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Send a signed test callback to an endpoint, as its deliveries are sent, and show the result.

    It leaves no trace: it changes neither the breaker nor waiting callbacks. Exit code 1 if the answer is not 2xx.
    """
    settings = console.settings()
    given = parse_callback_url(url, allow_http=True)

    async def work() -> dict[str, Any]:
        async with wiring.store(settings) as store:
            found = await store.workspaces.require(workspace)
            to = await url_of(store, found, given)
            return await ping_url(settings, found, await store.installation.now_ms(), to)

    answered(console.run(work()), as_json)


async def url_of(store: wiring.Store, workspace: WorkspaceFound, given: CallbackUrl) -> str:
    """The full URL to ping: as given, from a waiting callback, or the workspace's own.

    Raises NotFound if the workspace has no such endpoint, InvalidInput if the path is unknown.
    """
    endpoint = await store.endpoints.get(EndpointName(workspace.id, given.origin))
    known = await store.endpoints.next_url(endpoint) if endpoint else None
    if not known and workspace.callback_url:
        own = parse_callback_url(workspace.callback_url, allow_http=True)
        known = own.url if own.origin == given.origin else None
    if not known and not endpoint:
        raise await endpoints.unknown(store, workspace.id, given.origin)
    if given.target:
        return given.url
    if not known:
        raise InvalidInput("nothing waits there, so the path is not known: give the URL in full")
    return known
