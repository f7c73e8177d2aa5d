"""`dispatcher listen`: a receiver that verifies and prints callbacks, for trying things out."""

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer
from aiohttp import web

from config.settings import Settings
from dispatcher.errors import visible
from dispatcher.signing import check_secret
from tasks import terminal, wiring
from tasks.receiver import Received, Receiver


def listen(
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="LISTEN_SECRET",
            help="The secret (whsec_…) or public key (whpk_…) to verify with.",
            show_default=False,
        ),
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(help="Instead: verify with this workspace's secrets.", show_default=False)
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    status: Annotated[int, typer.Option(min=200, max=599, help="What to answer.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line for each callback.")] = False,
) -> None:
    """Receive, verify and print callbacks, until Ctrl-C."""
    settings = terminal.settings()
    if (secret is None) == (workspace is None):
        terminal.fail("give either --secret or --workspace", terminal.USAGE)
    if secret:
        check_secret(secret)
    terminal.run(_listen(settings, secret, workspace, host, port, status, as_json))


async def _listen(
    settings: Settings,
    secret: str | None,
    workspace: str | None,
    host: str,
    port: int,
    status: int,
    as_json: bool,
) -> None:
    secrets, others = ([secret], {}) if secret else await _secrets(settings, workspace or "")

    async def answer(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=status, text="")

    receiver = Receiver(lambda _request: secrets, _print_json if as_json else _print, answer, others)
    try:
        port = await receiver.listen(host, port)
    except OSError as error:
        raise terminal.cannot_listen(host, port, error) from None
    url = f"http://{host}:{port}/"
    terminal.err.print(
        f"listening on {url} (workers need DISPATCHER_ALLOW_HTTP and DISPATCHER_ALLOWED_NETWORKS to reach it)"
    )
    try:
        await asyncio.Event().wait()
    finally:
        await receiver.close()


async def _secrets(settings: Settings, workspace: str) -> tuple[Sequence[str], dict[str, str]]:
    """The workspace's live secrets, and all other workspaces' secrets by a description for error texts."""
    async with wiring.store(settings) as store:
        now_ms = await store.installation.now_ms()
        live = (await store.workspaces.require(workspace)).live_secrets(now_ms)
        others: dict[str, str] = {}
        for found in await store.workspaces.all():
            if found.id != workspace:
                others |= {f"the secret of workspace {found.id}": secret.text for secret in found.secrets}
        return [secret.text for secret in live], others


def _print(received: Received) -> None:
    verdict = "verified" if received.problem is None else f"NOT VERIFIED: {received.problem}"
    time = datetime.now().astimezone().strftime("%H:%M:%S")
    line = f"{time}  {received.event_type}  {received.message}  {received.event_id}  post {received.number}"
    terminal.out.print(visible(f"{line}  answered {received.status}  {verdict}"), markup=False)
    terminal.out.print(visible(received.body.decode(errors="replace")), markup=False)


def _print_json(received: Received) -> None:
    document = {
        "eventId": received.event_id,
        "eventType": received.event_type,
        "messageId": received.message,
        "post": received.number,
        "answered": received.status,
        "verified": received.problem is None,
        "problem": received.problem,
        "body": received.body.decode(errors="replace"),
    }
    print(json.dumps(document), flush=True)  # noqa: T201  one line, for programs
