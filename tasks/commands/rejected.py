"""`dispatcher rejected`: queue entries that could not be used."""

from typing import Annotated

import typer

from dispatcher.lookup import RejectedEntry
from dispatcher.model import iso
from tasks import console, wiring

commands = typer.Typer(help="Queue entries that could not be used, and why.", no_args_is_help=True)


@commands.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 20,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="With --json: the entries themselves, URLs and all.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the newest rejected entries."""
    settings = console.settings()

    async def work() -> tuple[list[RejectedEntry], dict[str, int]]:
        async with wiring.store(settings) as store:
            return await store.lookup.rejected(limit), await store.lookup.rejected_counts()

    entries, counts = console.run(work())
    if as_json:
        console.print_json([entry.as_json(reveal=reveal) for entry in entries])
        return
    rows = [(e.entry, iso(e.at_ms), e.reason, e.workspace, e.event_id, e.detail) for e in entries]
    console.print_table(
        ("entry", "at", "reason", "workspace", "eventId", "detail"), rows, "nothing was rejected"
    )
    if counts:
        console.out.print(
            "ever rejected: " + ", ".join(f"{count} {reason}" for reason, count in counts.items())
        )
