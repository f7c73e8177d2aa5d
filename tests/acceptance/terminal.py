"""A command on a terminal of 80 columns, and what it shows there."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

from tests.acceptance.stack import CLI, Stack

COLUMNS = 80
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A process of `dispatcher` on a terminal of its own."""

    def __init__(self, stack: Stack, *args: str, command: Sequence[str] = CLI, **settings: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        env = {name: value for name, value in stack.environment.items() if name not in ("COLUMNS", "LINES")}
        env |= {"TERM": "xterm", "DISPATCHER_LOG_FORMAT": "console", "TMPDIR": str(stack.folder)} | settings
        self.process = subprocess.Popen(
            [*command, *args],
            cwd=Path(__file__).parents[2],
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._shown = b""
        self._reader = Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # its last process has ended
                return
            if not data:
                return
            self._shown += data

    def type(self, text: str) -> None:
        """Types something."""
        os.write(self._ours, text.encode())

    @property
    def text(self) -> str:
        """All it has shown, without colours and movements."""
        shown = (
            self._shown.decode(errors="replace").replace("\r\n", "\n").replace("\x1b[2K", "\r")
        )  # erases a line
        return _ESCAPES.sub("", shown)

    @property
    def has_colors(self) -> bool:
        """Whether it has shown any colour."""
        return re.search(rb"\x1b\[[0-9;]*[34][0-9]", self._shown) is not None

    @property
    def has_escapes(self) -> bool:
        """Whether it has shown anything but text."""
        return b"\x1b" in self._shown

    @property
    def lines(self) -> list[str]:
        """The same in lines; what a progress bar wrote over is gone."""
        return [line.rpartition("\r")[2].rstrip() for line in self.text.splitlines()]

    def wait(self, seconds: float = 60) -> int:
        """Waits for its end; its exit code."""
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        os.close(self._ours)
        return code
