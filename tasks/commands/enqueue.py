"""`dispatcher enqueue`: status changes from a file onto the queue."""

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dispatcher.errors import EnqueueInterrupted, InvalidInput, visible
from dispatcher.model import StatusChange
from dispatcher.producer import BATCH, Dispatcher
from tasks import console, wiring

SHOWN = 20
"""Wrong lines that are printed; the rest is counted."""

Numbered = tuple[int, StatusChange]


def enqueue(
    file: Annotated[
        str,
        typer.Argument(help="File of JSON lines; - is standard input.", metavar="FILE|-", show_default=False),
    ],
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Enqueue the valid lines all the same.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put status changes from a file on the queue.

    The file has one JSON document a line; order is kept. Where a line is invalid nothing is enqueued, unless told to skip it. Enqueuing a file again is
    safe: an eventId happens once.
    """
    settings = console.settings()
    changes, problems = _read(file)
    for line, problem in problems[:SHOWN]:
        console.err.print(f"line {line}: {visible(problem)}", markup=False)
    if problems and not skip_invalid:
        more = f" ({len(problems) - SHOWN} more than shown)" if len(problems) > SHOWN else ""
        console.fail(
            f"{len(problems)} of {len(changes) + len(problems)} lines are invalid{more}; nothing was enqueued. "
            "Correct them, or say --skip-invalid",
            console.USAGE,
        )
    with Dispatcher.from_url(wiring.redis_url(settings), key_prefix=settings.key_prefix) as dispatcher:
        event_ids = _send(dispatcher, changes)
    if as_json:
        wrong = [{"line": line, "problem": problem} for line, problem in problems]
        console.print_json({"enqueued": len(event_ids), "eventIds": event_ids, "skipped": wrong})
    else:
        skipped = f", {len(problems)} lines skipped" if problems else ""
        console.out.print(f"{len(event_ids)} status changes enqueued{skipped}", markup=False)


def _read(file: str) -> tuple[list[Numbered], list[tuple[int, str]]]:
    changes: list[Numbered] = []
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            change = StatusChange.from_json(line.strip())
            change.to_json()
        except InvalidInput as error:
            problems.append((number, str(error)))
        else:
            changes.append((number, change))
    return changes, problems


def _lines(file: str) -> list[bytes]:
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        console.fail(f"cannot read {file}: {error.strerror}", console.USAGE)
    return raw.split(b"\n")


def _send(dispatcher: Dispatcher, changes: Sequence[Numbered]) -> list[str]:
    event_ids: list[str] = []
    columns = (TextColumn("enqueuing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.err, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=len(changes))
        for batch in _batches(changes):
            try:
                event_ids += dispatcher.enqueue_many(change for _, change in batch)
            except EnqueueInterrupted as error:
                after = (batch[len(error.confirmed) - 1] if error.confirmed else _before(changes, batch))[0]
                raise EnqueueInterrupted(
                    f"{error}; the file is enqueued up to line {after}: enqueuing it all again is safe",
                    error.confirmed,
                ) from error
            progress.advance(task, len(batch))
    return event_ids


def _before(changes: Sequence[Numbered], batch: Sequence[Numbered]) -> tuple[int, object]:
    position = changes.index(batch[0])
    return changes[position - 1] if position else (0, None)


def _batches(changes: Sequence[Numbered]) -> Iterator[Sequence[Numbered]]:
    rest = iter(changes)
    while batch := list(islice(rest, BATCH)):
        yield batch
