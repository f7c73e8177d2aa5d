"""Writes lines to a descriptor from a thread, so that a slow, full or missing reader costs lines and nothing else.

A log call neither blocks nor fails. O_NONBLOCK would do without a thread, but it is a flag of the open file,
which a worker shares with its supervisor and with other workers.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from io import UnsupportedOperation
from typing import TextIO

LIMIT = 8_000_000
"""Limit of characters waiting to be written, some 20,000 lines; further lines are lost."""
PIECE = 32_768
"""Bytes per write: half a pipe's buffer, so that lines of processes sharing a pipe mix only once it is full."""
LINGER_SECONDS = 0.05
"""Pause after a write, so that the next one takes many lines: each takes Python's lock from the loop that sends callbacks.

A process that is killed loses the lines of so long.
"""
FULL_SECONDS = 0.005
"""Pause before another try to write to a full non-blocking descriptor."""
FLUSH_SECONDS = 1.0
"""How long the process waits at its end for unwritten lines."""


class Lines:
    """Writes texts in order, and counts the lines that could not be written."""

    def __init__(self, descriptor: int | None) -> None:
        self.lost = 0
        """Lines lost since the start of the process."""
        self.lost_notice: Callable[[int], str] = lambda count: f"{count} log lines were lost\n"
        """Makes the notice of lost lines that is written once writing works again."""
        self.descriptor = descriptor
        self._changed = threading.Condition()  # reentrant: a signal handler may log while its thread does
        self._waiting: list[str] = []
        self._size = 0
        self._unsaid = 0
        self._is_writing = self._is_torn = False
        self._hurries = False
        """Whether `flush` waits."""
        self._thread: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._forked)

    def put(self, text: str) -> None:
        """Queues text for writing. Never raises, never blocks."""
        with self._changed:
            if self._size + len(text) > LIMIT:
                self.lose(max(1, text.count("\n")))
                return
            self._waiting.append(text)
            self._size += len(text)
            if not self._is_writing:
                self._is_writing = True
                self._wake()

    def lose(self, count: int = 1) -> None:
        """Counts lines that will not be written."""
        with self._changed:
            self.lost += count
            self._unsaid += count

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Waits until everything is written, for at most `seconds`."""
        with self._changed:
            self._hurries = True
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: not self._is_writing, seconds)
            finally:
                self._hurries = False

    def _wake(self) -> None:
        if self._thread:
            self._changed.notify_all()
            return
        if sys.is_finalizing():  # a new thread would never run, and starting it would wait for that
            self._write_or_lose("".join(self._waiting).encode(errors="backslashreplace"))
            self._waiting, self._size, self._is_writing = [], 0, False
            return
        self._thread = threading.Thread(target=self._write_forever, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no thread available: the next line tries again
            self._thread, self._is_writing = None, False

    def _forked(self) -> None:
        """Resets the child after a fork: it has no thread, and the waiting lines are the parent's to write."""
        self._changed, self._thread, self._hurries = threading.Condition(), None, False
        self._waiting, self._size, self._is_writing = [], 0, False

    def _write_forever(self) -> None:
        while True:
            for piece in _pieces("".join(self._next()).encode(errors="backslashreplace")):
                self._write_or_lose(piece)
            with self._changed:
                self._changed.wait_for(lambda: self._hurries, LINGER_SECONDS)

    def _next(self) -> list[str]:
        """Takes all waiting texts; blocks until there are some."""
        with self._changed:
            while not self._waiting:
                self._is_writing = False
                self._changed.notify_all()  # wakes `flush`
                self._changed.wait()
            batch, self._waiting, self._size = self._waiting, [], 0
            return batch

    def _write_or_lose(self, piece: bytes) -> None:
        self._say_lost()
        written = self._write(piece)
        if written < len(piece):
            self.lose(max(1, piece.count(b"\n", written)))

    def _say_lost(self) -> None:
        unsaid = self._unsaid
        if unsaid:
            notice = self.lost_notice(unsaid).encode(errors="backslashreplace")
            if self._write(notice) == len(notice):
                with self._changed:
                    self._unsaid -= unsaid

    def _write(self, data: bytes) -> int:
        """Writes data, on a new line if the last write broke off mid-line; returns how many of its bytes were written."""
        if self.descriptor is None:
            return 0
        torn = b"\n" if self._is_torn else b""
        written = max(0, _write(self.descriptor, torn + data) - len(torn))
        if written:
            self._is_torn = written < len(data)
        return written


def _pieces(data: bytes) -> list[bytes]:
    """Splits data into pieces of at most PIECE bytes, at line ends; only a longer line is cut."""
    pieces, start = [], 0
    while start < len(data):
        end = start + PIECE
        if end < len(data):
            end = data.rfind(b"\n", start, end) + 1 or end
        pieces.append(data[start:end])
        start = end
    return pieces


def _write(descriptor: int, data: bytes) -> int:
    """Writes data; returns how many bytes were written. Waits while a non-blocking descriptor is full."""
    written = 0
    while written < len(data):
        try:
            written += os.write(descriptor, data[written:])
        except BlockingIOError:  # another process set O_NONBLOCK
            time.sleep(FULL_SECONDS)
        except OSError:  # disk full, no reader, device gone
            break
    return written


class LinesStream:
    """Replaces a standard stream, for code that prints."""

    encoding, errors = "utf-8", "backslashreplace"

    def __init__(self, lines: Lines, replaced: TextIO | None) -> None:
        self._lines = lines
        self._is_terminal = replaced is not None and replaced.isatty()

    def write(self, text: str) -> int:
        """Queues text for writing."""
        self._lines.put(text)
        return len(text)

    def writelines(self, texts: list[str]) -> None:
        """Queues texts for writing."""
        self._lines.put("".join(texts))

    def flush(self) -> None:
        """Does nothing: `Lines.flush` waits."""

    def isatty(self) -> bool:
        """Whether the replaced stream is a terminal."""
        return self._is_terminal

    def fileno(self) -> int | None:
        """The descriptor, for a child process to inherit. Raises OSError if there is none."""
        if self._lines.descriptor is None:
            raise UnsupportedOperation("this process began with the stream closed")
        return self._lines.descriptor


def descriptor_of(stream: TextIO | None) -> int | None:
    """The descriptor of a standard stream; None if the process began with it closed."""
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None


errors = Lines(descriptor_of(sys.__stderr__))
"""Writes this process's standard error."""
atexit.register(errors.flush)


def guard_standard_error() -> None:
    """Makes writes to standard error neither block nor raise. For commands: standard output must still fail loudly."""
    if not isinstance(sys.stderr, LinesStream):
        sys.stderr = LinesStream(errors, sys.stderr)
