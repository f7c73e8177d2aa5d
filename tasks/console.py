"""What the command line has in common: tables for people, JSON for programs, one line for an error."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from config import logs
from config.settings import Settings, load
from dispatcher.errors import DispatcherError, InvalidInput, RedisUnavailable, visible

DONE, NO, USAGE, REDIS_AWAY = 0, 1, 2, 3
"""Exit codes: done; the answer is no; wrong usage; Redis not reachable."""

CANCEL_AGAIN_SECONDS = 1.0
"""So long a command has for what it does at its end, before it is told once more."""

T = TypeVar("T")

WIDE = 250
"""Columns where standard output is no terminal: lines stay whole for grep."""

out = Console(highlight=False, width=None if sys.stdout and sys.stdout.isatty() else WIDE)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def settings() -> Settings:
    """The settings of this process, with logs set up by them. Raises InvalidInput."""
    found = load()
    logs.configure(found.log_level, found.log_format)
    return found


def run(coroutine: Coroutine[Any, Any, T], *others: signal.Signals) -> T:
    """Runs a command's coroutine to its end, or until Ctrl-C or one of the other signals: KeyboardInterrupt."""
    return asyncio.run(_interruptible(coroutine, others))


async def _interruptible(coroutine: Coroutine[Any, Any, T], others: Sequence[signal.Signals]) -> T:
    """The loop takes the signals: an exception out of a signal handler may strike where it is swallowed.

    A cancellation can get lost too: redis-py sends within `asyncio.wait_for`, which before Python 3.12
    takes a result that came at the same moment for the better news. So it is repeated.
    """
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as a shell does for what runs behind it
    for number in others if ignored else (signal.SIGINT, *others):
        loop.add_signal_handler(number, told.set)
    task, interrupted = asyncio.ensure_future(coroutine), asyncio.ensure_future(told.wait())
    await asyncio.wait({task, interrupted}, return_when=asyncio.FIRST_COMPLETED)
    while told.is_set() and not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_SECONDS)
    interrupted.cancel()
    if told.is_set() and (task.cancelled() or not task.exception()):
        raise KeyboardInterrupt
    return task.result()


def fail(text: str, code: int = NO) -> NoReturn:
    """Ends the command with one line on standard error."""
    err.print(f"error: {visible(text)}", markup=False)
    raise typer.Exit(code)


def code_of(error: DispatcherError) -> int:
    """The exit code that tells a program what went wrong."""
    match error:
        case RedisUnavailable():
            return REDIS_AWAY
        case InvalidInput():
            return USAGE
        case _:
            return NO


def progress(steps: Sequence[T], what: str) -> Iterable[T]:
    """The steps one by one, with a bar on a terminal that shows how many are done."""
    return track(steps, what, console=err, transient=True, disable=not sys.stderr.isatty())


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """A table for people, or `empty` where there is nothing to show."""
    if not rows:
        out.print(empty, markup=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if cell is None else visible(cell)) for cell in row))
    out.print(table)


_AGO = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def time_ms(text: str | None, now_ms: int) -> int | None:
    """A time as people say it (`90m`: so long ago; else ISO 8601, UTC where it names no zone), in ms since 1970."""
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return now_ms - int(ago[1]) * _UNITS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{text!r} is no time: say 2026-06-09T13:00, or 90m, 6h, 2d for so long ago", USAGE)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
