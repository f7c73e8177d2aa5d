"""`dispatcher workspace ping`: a signed test callback."""

import secrets
from typing import Annotated

import typer

from config.settings import Settings
from dispatcher.addresses import without_query
from dispatcher.callback import Callback
from dispatcher.errors import InvalidInput
from dispatcher.model import StatusChange, iso
from dispatcher.outcomes import ERRORS, Attempt
from dispatcher.render import NoCallback, RenderOptions, render
from dispatcher.replies import Claimed
from dispatcher.sender import Sender
from dispatcher.workspaces import Workspace
from tasks import console, wiring


def ping(
    workspace: Annotated[str, typer.Argument(help="The workspace's name.", metavar="ID", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Send a signed test callback from here, now, and show what came back.

    It is the dialect's callback of a delivered message that does not exist; its eventId starts with
    `ping_`. It is tried once and not kept in the ledger. Exit code 1 if it was not taken.
    """
    settings = console.settings()

    async def work() -> tuple[Callback, Attempt]:
        async with wiring.store(settings) as store:
            found, now_ms = await store.workspaces.require(workspace), await store.lookup.now_ms()
            return await _ping(settings, found, now_ms)

    callback, attempt = console.run(work())
    taken = attempt.http_status is not None and 200 <= attempt.http_status < 300
    error = attempt.own_fault or attempt.error
    document = {
        "eventId": callback.event_id,
        "eventType": callback.event_type,
        "url": without_query(callback.url),
        "taken": taken,
        "httpStatus": attempt.http_status,
        "error": error,
        "detail": attempt.detail or ERRORS.get(error or "") or None,
        "durationMs": attempt.duration_ms,
        "answer": attempt.answer.decode(errors="replace") or None,
    }
    if as_json:
        console.print_json(document)
    else:
        console.print_table(("field", "value"), list(document.items()), "")
    if not taken:
        raise typer.Exit(console.NO)


async def _ping(settings: Settings, workspace: Workspace, now_ms: int) -> tuple[Callback, Attempt]:
    uuid = secrets.token_hex(8)
    change = StatusChange.from_dict(
        {
            "eventId": f"ping_{uuid}",
            "workspace": workspace.id,
            "status": "DELIVERED",
            "timestamp": iso(now_ms),
            "message": {"uuid": f"ping-{uuid}", "src": "PING", "dest": "+10000000000", "channel": "SMS"},
        }
    )
    options = RenderOptions(settings.allow_http, settings.expiry_seconds * 1000)
    callback = render(change, workspace, now_ms, options)
    if isinstance(callback, NoCallback):
        raise InvalidInput(
            f"workspace {workspace.id} has no callback URL; `dispatcher workspace update --callback-url` sets one"
        )
    claimed = Claimed(
        callback.event_id,
        1,
        1,
        now_ms + callback.ttl_ms,
        callback.event_type,
        callback.status,
        callback.message_uuid,
        callback.url,
        callback.body,
    )
    transport = wiring.transport(settings)
    try:
        return callback, await Sender(transport, wiring.USER_AGENT).send(claimed, workspace, now_ms)
    finally:
        await transport.aclose()
