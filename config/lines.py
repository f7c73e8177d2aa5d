"""Lines to a descriptor, by a thread of its own: a reader that is away, slow or full costs lines and nothing else.

A log call neither waits nor fails. O_NONBLOCK would do it without a thread, but it belongs to the open file,
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
"""Characters that wait to be written, some 20,000 lines; further lines are lost."""
PIECE = 32_768
"""Bytes of one write. Half of what a pipe holds: where several processes share one, their lines mix only once it is full."""
LINGER_SECONDS = 0.005
"""After a write, so that many lines go out in one turn of the thread."""
FLUSH_SECONDS = 1.0
"""How long an end waits for what is not written yet."""


class Lines:
    """Writes what it is given in order; counts the lines that could not be written."""

    def __init__(self, descriptor: int | None) -> None:
        self.lost = 0
        """Lines, since the start of the process."""
        self.lost_notice: Callable[[int], str] = lambda count: f"{count} log lines were lost\n"
        """Makes the text that says, once writing works again, how many lines were lost."""
        self.descriptor = descriptor
        self._changed = threading.Condition()  # reentrant: a signal handler may log while its thread does
        self._waiting: list[str] = []
        self._size = 0
        self._unsaid = 0
        self._is_writing = self._is_torn = False
        self._thread: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._forked)

    def put(self, text: str) -> None:
        """Has text written soon. Never raises, never waits."""
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
        """Waits until everything is written, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_writing, seconds)

    def _wake(self) -> None:
        if self._thread:
            self._changed.notify_all()
            return
        if sys.is_finalizing():  # a thread would never begin, and whoever starts it would wait for that
            self._write_or_lose("".join(self._waiting).encode(errors="backslashreplace"))
            self._waiting, self._size, self._is_writing = [], 0, False
            return
        self._thread = threading.Thread(target=self._write_forever, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads can be had: the next line tries again
            self._thread, self._is_writing = None, False

    def _forked(self) -> None:
        """A child has no thread yet, and what the parent had waiting is the parent's."""
        self._changed, self._thread = threading.Condition(), None
        self._waiting, self._size, self._is_writing = [], 0, False

    def _write_forever(self) -> None:
        while True:
            for piece in _pieces("".join(self._next()).encode(errors="backslashreplace")):
                self._write_or_lose(piece)
            time.sleep(LINGER_SECONDS)

    def _next(self) -> list[str]:
        """All that waits; waits until there is something."""
        with self._changed:
            while not self._waiting:
                self._is_writing = False
                self._changed.notify_all()  # whoever flushes
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
        """Writes after a line that was torn on a line of its own; returns how many bytes could be written."""
        if self.descriptor is None:
            return 0
        torn = b"\n" if self._is_torn else b""
        written = max(0, _write(self.descriptor, torn + data) - len(torn))
        if written:
            self._is_torn = written < len(data)
        return written


def _pieces(data: bytes) -> list[bytes]:
    """Whole lines, in pieces of PIECE bytes at most; a longer line is cut."""
    pieces, start = [], 0
    while start < len(data):
        end = start + PIECE
        if end < len(data):
            end = data.rfind(b"\n", start, end) + 1 or end
        pieces.append(data[start:end])
        start = end
    return pieces


def _write(descriptor: int, data: bytes) -> int:
    """How many bytes could be written; waits where the descriptor takes none for now."""
    written = 0
    while written < len(data):
        try:
            written += os.write(descriptor, data[written:])
        except BlockingIOError:  # somebody else's O_NONBLOCK
            time.sleep(LINGER_SECONDS)
        except OSError:  # no room, no reader, no such device any more
            break
    return written


class LinesStream:
    """In place of a standard stream, for whatever prints."""

    encoding, errors = "utf-8", "backslashreplace"

    def __init__(self, lines: Lines, replaced: TextIO | None) -> None:
        self._lines = lines
        self._is_terminal = replaced is not None and replaced.isatty()

    def write(self, text: str) -> int:
        """Has text written soon."""
        self._lines.put(text)
        return len(text)

    def writelines(self, texts: list[str]) -> None:
        """Has texts written soon."""
        self._lines.put("".join(texts))

    def flush(self) -> None:
        """Nothing to wait for."""

    def isatty(self) -> bool:
        """Whether people read it."""
        return self._is_terminal

    def fileno(self) -> int | None:
        """The descriptor, for a child process to inherit. Raises OSError where there is none."""
        if self._lines.descriptor is None:
            raise UnsupportedOperation("this process began with the stream closed")
        return self._lines.descriptor


def descriptor_of(stream: TextIO | None) -> int | None:
    """Where a standard stream writes; None where there is none (the process began with it closed)."""
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None


errors = Lines(descriptor_of(sys.__stderr__))
"""Standard error of this process."""
atexit.register(errors.flush)


def guard_standard_error() -> None:
    """Has whatever goes to standard error neither wait nor raise: for commands, whose output must not be lost in silence."""
    if not isinstance(sys.stderr, LinesStream):
        sys.stderr = LinesStream(errors, sys.stderr)
