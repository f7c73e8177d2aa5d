"""`dispatcher history`: exports what is in the archive."""

import csv
import json
import sys
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from config.settings import Settings
from dispatcher.errors import InvalidInput
from dispatcher.rules.outcomes import ENDS, State
from dispatcher.store.archive.history import archived
from dispatcher.store.stored_callback import StoredCallback
from tasks import console, wiring
from tasks.actions import workspaces
from tasks.actions.events import Filter, span
from tasks.commands.filters import Since, Until, Workspace

ENDED = sorted(ENDS - {State.ERASED})
"""How what is in the archive may have ended."""
SHOWN_EVERY = 1000
"""Callbacks between two changes of the progress."""
COLUMNS = (
    "workspace", "eventId", "messageId", "status", "eventType", "endpoint", "state", "acceptedAt", "endedAt", "attempts",
    "httpStatus", "error",
)  # fmt: skip


class Form(StrEnum):
    """What is printed."""

    JSONL = "jsonl"
    CSV = "csv"


def history(
    workspace: Workspace = None,
    state: Annotated[
        str | None,
        typer.Option(help=f"Ended in this state only: {', '.join(ENDED)}.", show_default=False),
    ] = None,
    since: Since = None,
    until: Until = None,
    form: Annotated[
        Form, typer.Option("--format", help="JSON lines, each as `event show --json`, or CSV.")
    ] = Form.JSONL,
) -> None:
    """Export what is in the archive, as JSON lines or CSV.

    To standard output, latest end first. What ended within the last seconds may not be there yet.

    Examples:

      dispatcher history --workspace acme --since 30d > acme.jsonl

      dispatcher history --state failed --since 2026-06-01T00:00 --until 2026-07-01T00:00 --format csv > june.csv
    """
    settings = console.settings()
    if state is not None and state not in ENDED:
        console.fail(f"a state is one of {', '.join(ENDED)}, not {state!r}", console.USAGE)
    write = _csv() if form is Form.CSV else _json_line
    count = console.run(
        _export(settings, workspace, state or "", Filter("failed", since=since, until=until), write)
    )
    console.note(f"{count:,} callbacks")


async def _export(
    settings: Settings,
    workspace: str | None,
    state: str,
    asked: Filter,
    write: Callable[[StoredCallback], None],
) -> int:
    """Writes the callbacks; returns how many."""
    count = 0
    async with wiring.store(settings) as store:
        if store.archive is None:
            raise InvalidInput("there is no archive: DISPATCHER_ARCHIVE_URL names it (docs/archive.md)")
        since_ms, until_ms = span(asked, await store.installation.now_ms())
        names = [workspace] if workspace else None
        console.note(await workspaces.unknown(store, workspace))
        with console.err.status("exporting") as status:
            found: AsyncIterator[StoredCallback] = archived(store.archive, names, state, since_ms, until_ms)
            async for one in found:
                write(one)
                count += 1
                if count % SHOWN_EVERY == 0:
                    status.update(f"exporting: {count:,} callbacks")
    return count


def _json_line(one: StoredCallback) -> None:
    sys.stdout.write(json.dumps(one.as_json(), ensure_ascii=False) + "\n")


def _csv() -> Callable[[StoredCallback], None]:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)

    def write(one: StoredCallback) -> None:
        shown: dict[str, Any] = one.as_json()
        last = shown["attempts"][-1] if shown["attempts"] else {}
        shown |= {
            "attempts": len(shown["attempts"]),
            "httpStatus": last.get("httpStatus"),
            "error": last.get("error"),
        }
        writer.writerow([shown[name] for name in COLUMNS])

    return write
