"""Output shared by all commands: tables for people, JSON for programs, one line for an error."""

import asyncio
import errno
import json
import os
import signal
import sys
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import typer
from redis.exceptions import RedisError
from rich.console import Console
from rich.text import Text

from config import logs
from config.log_lines import errors
from config.settings import Settings, load, wants_json
from dispatcher.errors import DispatcherError, InvalidInput, RedisUnavailable, visible
from dispatcher.store.connection import without_script
from tasks import incomplete, interrupt, tables

DONE, NO, USAGE, REDIS_AWAY = 0, 1, 2, 3
"""Exit codes: done; the answer is no; wrong usage; Redis not reachable. Ctrl-C exits with 130."""

CANCEL_AGAIN_SECONDS = 1.0
"""How long a cancelled command may clean up before it is cancelled again."""

T = TypeVar("T")


class Output(Console):
    """Wraps lines between words on a terminal, so that ids and URLs stay whole; elsewhere never wraps, for grep."""

    def on_broken_pipe(self) -> None:
        """The reader closed the pipe: raises BrokenPipeError, so that the command cleans up and ends."""
        self.quiet = True
        raise BrokenPipeError

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's `print`, without markup. Never breaks a word, even one wider than the terminal."""
        if not self.stderr:
            let_errors_go_first()
        if self.is_terminal:
            objects = tuple(self._wrapped(one) if isinstance(one, str) else one for one in objects)
        super().print(*objects, **{"markup": False, "soft_wrap": True} | options)

    def _wrapped(self, text: str) -> str:
        return "\n".join(line for whole in text.split("\n") for line in tables.wrapped(whole, self.width))


def let_errors_go_first() -> None:
    """Flushes standard error, which a thread writes: on a terminal, earlier output (a progress bar) must come first."""
    if sys.stderr.isatty():
        errors.flush(FLUSH_SECONDS)


FLUSH_SECONDS = 0.2
WIDE = 250
"""Width in columns if standard output is not a terminal."""

out = Output(highlight=False, width=None if sys.stdout and sys.stdout.isatty() else WIDE)
err = Output(stderr=True, highlight=False)


def settings() -> Settings:
    """The settings of this process; also configures logging from them. Raises InvalidInput."""
    interrupt.started()
    found = load()
    logs.configure(found.log_level, found.log_format)
    return found


def service_settings() -> Settings:
    """As `settings`, for a service: everything it prints becomes a log line. Raises InvalidInput."""
    interrupt.end_service_at_once()
    incomplete.is_service = True
    if wants_json():  # so that an error in another setting is reported as JSON too
        logs.configure("INFO", "json")
        logs.guard_standard_streams()
    found = settings()
    logs.guard_standard_streams()
    return found


def run(coroutine: Coroutine[Any, Any, T], *others: signal.Signals) -> T:
    """Runs a command's coroutine. Raises KeyboardInterrupt at Ctrl-C or one of the other signals."""
    return asyncio.run(_interruptible(coroutine, others))


def run_service(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a service until a signal. Ctrl-C raises KeyboardInterrupt (exit code 130); TERM returns (exit code 0)."""
    ended: list[signal.Signals] = []
    try:
        asyncio.run(_interruptible(coroutine, (signal.SIGTERM,), ended))
    except KeyboardInterrupt:  # `ended` is empty if Ctrl-C came before the loop handled signals
        if not ended or signal.SIGINT in ended:
            raise


async def _interruptible(
    coroutine: Coroutine[Any, Any, T],
    others: Sequence[signal.Signals],
    came: list[signal.Signals] | None = None,
) -> T:
    """Runs a coroutine and cancels it at a signal; appends the signals that came to `came`.

    The event loop handles the signals, because an exception from a plain signal handler may strike where it is swallowed.
    A cancellation can get lost too: redis-py sends within `asyncio.wait_for`, which before Python 3.12 drops the
    cancellation if a result arrives at the same moment. So it is repeated.
    """
    interrupt.started()
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as a shell sets it for a background job

    def tell(number: signal.Signals) -> None:
        told.set()
        if came is not None:
            came.append(number)

    for number in others if ignored else (signal.SIGINT, *others):
        loop.add_signal_handler(number, tell, number)
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


def require_one_of(what: str, value: str | None, known: Sequence[str]) -> None:
    """Ends the command if an option's value is not among the known ones; None means the option was not given."""
    if value is not None and value not in known:
        fail(f"{what} is one of {', '.join(known)}, not {value!r}", USAGE)


def note(text: str) -> None:
    """Prints a line on standard error about what was found; nothing if it is empty."""
    if text:
        err.print(f"note: {visible(text)}", markup=False)


def cannot_listen(host: str, port: int, error: OSError) -> InvalidInput:
    """The error for an address that cannot be listened at, in the system's words: its callers add their own."""
    number = error.errno or 0  # those of a look-up are negative
    why = os.strerror(number) if number > 0 else error.strerror
    return InvalidInput(f"cannot listen at {host}:{port}: {why}")


def code_of(error: DispatcherError) -> int:
    """The exit code for an error."""
    match error:
        case RedisUnavailable():
            return REDIS_AWAY
        case InvalidInput():
            return USAGE
        case _:
            return NO


def report(error: Exception) -> int:
    """Prints an expected error as one line and returns its exit code. Raises any other error again: it is a bug."""
    match error:
        case DispatcherError():
            text, code = str(error), code_of(error)
        case OSError():
            text, code = str(error), NO
        case RedisError():  # e.g. a key that was overwritten by hand
            hint = "WRONGTYPE" in str(error)
            more = "; see docs/operations.md, A key was written over by hand" if hint else ""
            text, code = f"Redis: {without_script(str(error))}{more}", NO
        case _:
            raise error
    err.print(f"error: {visible(text)}", markup=False)
    return code


def say(text: str) -> None:
    """Prints a line on standard output, unwrapped."""
    out.print(text, markup=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Prints one JSON document on standard output; an object also names the partitions that did not answer, if any."""
    if isinstance(value, dict) and incomplete.partitions:
        value = value | {"absent": sorted(incomplete.partitions)}
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


@contextmanager
def only_now(made: str, again: str) -> Iterator[None]:
    """For output that is shown only once. If it cannot be written, the error says what was made, and how to get another secret."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:  # also a reader that closed the pipe
        why = error.strerror or os.strerror(errno.EPIPE)  # rich's
        raise OSError(f"{made}, but its secret could not be shown ({why}): {again}") from None


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Prints a table for people, or `empty` if it has no rows.

    On a terminal it fits the width: if rows are too long, each becomes a group of lines, unless --wide is given.
    On a terminal, ISO 8601 times also show how far they are from now.
    """
    if not rows:
        out.print(visible(empty), markup=False)
        return
    terminal = columns_of_terminal()
    cells = [[_cell(cell, terminal is not None) for cell in row] for row in rows]
    found = tables.lines(columns, cells, None if tables.is_wide() else terminal)
    head = tables.has_head(columns, found)
    for number, line in enumerate(found):
        print_line(line, "bold" if head and number == 0 else "")


def _cell(value: object, is_terminal: bool) -> str | None:
    if value is None:
        return None
    text = "yes" if value is True else "no" if value is False else visible(value)
    return tables.with_distances(text) if is_terminal else text


def columns_of_terminal() -> int | None:
    """The width of the terminal; None if standard output is not a terminal."""
    return out.width if sys.stdout.isatty() else None


def print_line(line: str, style: str = "") -> None:
    """Prints a line unwrapped."""
    let_errors_go_first()
    Console.print(out, Text(line), style=style, soft_wrap=True)


def print_text(text: str) -> None:
    """Prints a line of untrusted text; on a terminal its times also show how far they are from now."""
    text = visible(text)
    out.print(tables.with_distances(text) if sys.stdout.isatty() else text, markup=False)
