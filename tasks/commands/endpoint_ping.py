"""`dispatcher endpoint ping`: sends a signed test callback to an endpoint."""

from typing import Annotated, Any

import typer

from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.subscription import DEFAULT
from dispatcher.store.subscriptions import found as subscription
from tasks import terminal, wiring
from tasks.actions.ping import ping_url, url_of
from tasks.commands.endpoint import Json, Workspace
from tasks.commands.ping import answered


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
    settings = terminal.settings()
    given = parse_callback_url(url, allow_http=True)

    async def work() -> dict[str, Any]:
        async with wiring.store(settings) as store:
            name = EndpointName.parse(f"{workspace} {given.origin}")
            found = await store.workspaces.require(name.workspace)
            subscription(found, name.subscription or DEFAULT)  # raises NotFound
            to = await url_of(store, found, given, name)
            return await ping_url(settings, found, await store.installation.now_ms(), to, name.subscription)

    answered(terminal.run(work()), as_json)
