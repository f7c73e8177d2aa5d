"""Freezes a process of several threads."""

import os
import signal
import time
from pathlib import Path

SECONDS = 30.0


def freeze(pid: int) -> None:
    """SIGSTOP; returns when every thread has stopped, which SIGCONT ends.

    One thread takes the signal and stops the others: until it gets a core, they go on.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + SECONDS
    while not all(_is_stopped(task) for task in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline, f"process {pid} does not stop"
        time.sleep(0.001)


def _is_stopped(task: Path) -> bool:
    """By the state behind the name in /proc/…/stat (proc(5)); a thread that has ended is."""
    try:
        return (task / "stat").read_text().rpartition(") ")[2][0] in "TtZX"
    except FileNotFoundError:
        return True
