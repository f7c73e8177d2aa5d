"""Options shared by commands that select many events, and what they say where the archive does not answer."""

from typing import Annotated

import typer

from dispatcher.errors import ArchiveUnavailable, visible
from tasks import incomplete

Workspace = Annotated[str | None, typer.Option(help="Of this workspace only.", show_default=False)]
Subscription = Annotated[
    str | None,
    typer.Option(help="Of this subscription only (default: the workspace's own).", show_default=False),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--endpoint", help="To this endpoint only (its URL); needs --workspace.", show_default=False
    ),
]
Error = Annotated[
    str | None,
    typer.Option(help="Only with this error of the last attempt: timeout, http_500, …", show_default=False),
]
Since = Annotated[
    str | None,
    typer.Option(help="Ended since: 2026-06-09T13:00, or 90m, 6h, 2d for that long ago.", show_default=False),
]
Until = Annotated[str | None, typer.Option(help="Ended until; as --since.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def archive_is_away(error: ArchiveUnavailable) -> None:
    """Has the command say at its end that something may be missing, and why; its exit code is 1 then."""
    incomplete.note_archive(visible(error))
