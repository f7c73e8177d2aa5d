"""`dispatcher workspace ping`: sends a signed test callback. `dispatcher endpoint ping` shares the code."""

from typing import Annotated, Any

import typer

from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.store.workspaces import why_damaged
from tasks import terminal, wiring
from tasks.actions.ping import ping_url


def ping(
    workspace: Annotated[str, typer.Argument(help="The workspace's name.", metavar="ID", show_default=False)],
    url: Annotated[
        str | None,
        typer.Option(
            help="Send it to this URL instead of the workspace's callback URL.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Send a signed test callback from here, now, and show the result.

    It is the dialect's callback for a delivered message that does not exist; its eventId starts with
    `ping_`. It is sent as a delivery is, with this process's settings for networks, proxy, TLS and headers. It is tried
    once and not kept in the ledger. Exit code 1 if the answer is not 2xx.
    """
    settings = terminal.settings()

    async def work() -> dict[str, Any]:
        async with wiring.store(settings) as store:
            found, now_ms = await store.workspaces.require(workspace), await store.installation.now_ms()
            if found.is_damaged:
                raise InvalidInput(why_damaged(found))
            to = url or found.callback_url
            if not to:
                raise InvalidInput(
                    f"workspace {workspace} has no callback URL: --url says where to send it, "
                    "`dispatcher workspace update --callback-url` sets one"
                )
            parse_callback_url(to, allow_http=settings.allow_http)
            return await ping_url(settings, found, now_ms, to)

    answered(terminal.run(work()), as_json)


def answered(document: dict[str, Any], as_json: bool) -> None:
    """Prints the result of a test callback. Raises typer.Exit with code 1 if the answer is not 2xx."""
    if as_json:
        terminal.print_json(document)
    else:
        terminal.print_table(("field", "value"), list(document.items()), "")
    if not document["taken"]:
        raise typer.Exit(terminal.NO)
