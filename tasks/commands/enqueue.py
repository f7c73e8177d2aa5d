"""`dispatcher enqueue`: puts status changes from a file on the queue."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dispatcher.codec import not_plain, timestamp_ms
from dispatcher.errors import EnqueueInterrupted, InvalidInput, visible
from dispatcher.model import StatusChange
from dispatcher.producer import BATCH, Dispatcher, Ready, ready, unknown_workspace
from tasks import tables, terminal, wiring

SHOWN = 20
"""Invalid lines that are printed; the rest are counted."""

Numbered = tuple[int, Ready]


@dataclass
class Lines:
    """A file's lines, parsed; numbers count from 1."""

    ready: list[Numbered] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)
    expired: set[int] = field(default_factory=set)
    """The numbers of valid ones that are too old to be sent."""


def enqueue(
    file: Annotated[
        str,
        typer.Argument(help="File of JSON lines; - is standard input.", metavar="FILE|-", show_default=False),
    ],
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Enqueue the valid lines nevertheless.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Ask Redis first, and treat an unknown workspace as invalid.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put status changes from a file on the queue.

    The file has one JSON document a line; order is kept. If a line is invalid nothing is enqueued, unless --skip-invalid is
    given. Enqueuing a file again is safe: an eventId is accepted once.
    """
    settings = terminal.settings()
    lines = _read(file, allow_http=settings.allow_http, expiry_ms=settings.expiry_seconds * 1000)
    url, prefix, partitions = wiring.redis_url(settings), settings.key_prefix, settings.partitions
    with Dispatcher.from_url(url, key_prefix=prefix, partitions=partitions) as dispatcher:
        if check:
            _take_out_unknown(dispatcher, lines)
        _show_problems(lines, skip_invalid)
        event_ids = _send(dispatcher, lines.ready)
    if as_json:
        wrong = [{"line": line, "problem": problem} for line, problem in lines.problems]
        terminal.print_json({"enqueued": len(event_ids), "eventIds": event_ids, "skipped": wrong})
    else:
        skipped = (
            f", {tables.counted(len(lines.problems), 'line', 'lines')} skipped" if lines.problems else ""
        )
        enqueued = tables.counted(len(event_ids), "status change", "status changes")
        terminal.out.print(f"{enqueued} enqueued{skipped}", markup=False)
    if expired := len(lines.expired.intersection(number for number, _ in lines.ready)):
        is_one = expired == 1
        terminal.err.print(
            f"{expired} of them {'is' if is_one else 'are'} older than {settings.expiry_seconds / 3600:g} hours, or than "
            f"{'its' if is_one else 'their'} ttlSeconds: {'it ends' if is_one else 'they end'} `expired`, unsent",
            markup=False,
        )


def _show_problems(lines: Lines, skip_invalid: bool) -> None:
    for line, problem in lines.problems[:SHOWN]:
        terminal.err.print(f"line {line}: {visible(problem)}", markup=False)
    count = len(lines.problems)
    if count and not skip_invalid:
        more = f" ({count - SHOWN} more than shown)" if count > SHOWN else ""
        terminal.fail(
            f"{count} of {len(lines.ready) + count} lines are invalid{more}; nothing was enqueued. "
            "Correct them, or give --skip-invalid",
            terminal.USAGE,
        )


def _read(file: str, *, allow_http: bool, expiry_ms: int) -> Lines:
    lines = Lines()
    now_ms = round(time.time() * 1000)
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            change = StatusChange.from_json(line.strip())
            lines.ready.append((number, ready(change, now_ms, allow_http=allow_http)))
        except InvalidInput as error:
            lines.problems.append((number, str(error)))
        else:
            ttl_ms = change.ttl_seconds * 1000 if change.ttl_seconds else expiry_ms
            if timestamp_ms(change.timestamp) + ttl_ms < now_ms:
                lines.expired.add(number)
    return lines


def _take_out_unknown(dispatcher: Dispatcher, lines: Lines) -> None:
    unknown = set(dispatcher.unknown_workspaces(one.workspace for _, one in lines.ready))
    wrong = [
        (line, unknown_workspace(one.workspace)) for line, one in lines.ready if one.workspace in unknown
    ]
    lines.problems = sorted(lines.problems + wrong)
    lines.ready = [(line, one) for line, one in lines.ready if one.workspace not in unknown]


def _lines(file: str) -> list[bytes]:
    if file == "-" and sys.stdin.isatty():
        terminal.err.print(
            "type status changes, one JSON document a line; Ctrl-D at the start of a line ends them"
        )
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        terminal.fail(f"cannot read {file}: {error.strerror}", terminal.USAGE)
    if problem := not_plain(raw):
        terminal.fail(f"{file} {problem}", terminal.USAGE)
    return raw.split(b"\n")


def _send(dispatcher: Dispatcher, changes: Sequence[Numbered]) -> list[str]:
    columns = (TextColumn("enqueuing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=terminal.err, transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        task = progress.add_task("", total=len(changes))

        def taken() -> Iterator[Ready]:
            """The changes; the producer takes them batch by batch, when the one before is enqueued."""
            for number, (_, one) in enumerate(changes):
                if number % BATCH == 0:
                    progress.update(task, completed=number)
                yield one

        try:
            return dispatcher.enqueue_ready(taken())
        except EnqueueInterrupted as error:
            line = _enqueued_up_to(changes, error.confirmed)
            what = f"the file is enqueued up to line {line}" if line else "its first line may be missing"
            text = f"{error}; {what}: enqueuing it all again is safe"
            raise EnqueueInterrupted(text, error.confirmed) from error


def _enqueued_up_to(changes: Sequence[Numbered], confirmed: Sequence[str]) -> int:
    """The line before the first one that is not confirmed; 0 if that is the first.

    Confirmed are those that Redis took, in order: it may have refused one between two others.
    """
    line, rest = 0, iter(confirmed)
    for number, one in changes:
        if one.event_id != next(rest, None):
            break
        line = number
    return line
