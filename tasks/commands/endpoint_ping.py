"""`dispatcher endpoint ping`: sends a signed test callback to an endpoint."""

from typing import Annotated, Any

import typer

from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import CallbackUrl, parse_callback_url
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.subscription import DEFAULT
from dispatcher.rules.workspace import Workspace as WorkspaceFound
from dispatcher.store.subscriptions import found as subscription
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
            name = EndpointName.parse(f"{workspace} {given.origin}")
            found = await store.workspaces.require(name.workspace)
            subscription(found, name.subscription or DEFAULT)  # raises NotFound
            to = await url_of(store, found, given, name)
            return await ping_url(settings, found, await store.installation.now_ms(), to, name.subscription)

    answered(console.run(work()), as_json)


async def url_of(
    store: wiring.Store, workspace: WorkspaceFound, given: CallbackUrl, name: EndpointName
) -> str:
    """The full URL to ping: as given, from a waiting callback, or the subscription's own.

    Raises NotFound if there is no such endpoint, InvalidInput if the path is unknown.
    """
    endpoint = await store.endpoints.get(name)
    known = await store.endpoints.next_url(endpoint) if endpoint else None
    registered = subscription(workspace, name.subscription or DEFAULT).callback_url
    if not known and registered:
        own = parse_callback_url(registered, allow_http=True)
        known = own.url if own.origin == given.origin else None
    if not known and not endpoint:
        raise await endpoints.unknown(store, name.owner, given.origin)
    if given.target:
        return given.url
    if not known:
        raise InvalidInput("nothing waits there, so the path is not known: give the URL in full")
    return known
