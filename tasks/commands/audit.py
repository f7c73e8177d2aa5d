"""`dispatcher audit`: who changed what, by the API or by a command, on any host."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from dispatcher.model import iso
from dispatcher.store.audit import KEPT, AuditEntry
from tasks import terminal, wiring
from tasks.actions import workspaces

commands = typer.Typer(help="Who changed what, by the API or by a command.", no_args_is_help=True)


@commands.command("list")
def list_(
    workspace: Annotated[str | None, typer.Option(help="Of this workspace only.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=KEPT, help="How many, newest first.")] = 50,
    no_portal: Annotated[
        bool,
        typer.Option("--no-portal", help="Leave out what customers do in the portal, and links to it."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the newest changes: of workspaces, keys, endpoints and webhooks, and what was replayed, moved or removed.

    Some 10,000 are kept, for DISPATCHER_LEDGER_RETENTION_SECONDS after the last one, and as many of what customers did in the portal and of links to it. None contains secrets, header values or URL queries.

    Examples:

      dispatcher audit list --workspace acme

      dispatcher audit list --limit 1000 --json
    """
    settings = terminal.settings()

    async def work() -> list[AuditEntry]:
        async with wiring.store(settings) as store:
            terminal.note(await workspaces.unknown(store, workspace))
            return await store.audit.latest(limit, workspace, portal=not no_portal)

    entries = terminal.run(work())
    if as_json:
        terminal.print_json([entry.as_json() for entry in entries])
        return
    rows = [
        (iso(e.at_ms), e.who.via, e.who.name, e.what, e.workspace or None, _shown(e.before), _shown(e.after))
        for e in entries
    ]
    columns = ("at", "via", "who", "what", "workspace", "from", "to")
    terminal.print_table(
        columns,
        rows,
        f"nothing was changed of workspace {workspace}" if workspace else "nothing was changed yet",
    )


def _shown(facts: Mapping[str, Any]) -> str | None:
    """Facts as one line."""
    told = (
        f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in facts.items()
        if value is not None
    )
    return ", ".join(told) or None
