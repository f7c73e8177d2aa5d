"""A process of the demo's own: a command of `dispatcher` that runs for as long as a block."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dispatcher.__main__ import COMMAND
from dispatcher.errors import DispatcherError

STOP_SECONDS = 15.0
SHOWN = 2000
"""Characters of a log's end that an error shows."""

Process = subprocess.Popen[bytes]


@contextmanager
def running(folder: Path, *command: str) -> Iterator[Process]:
    """Runs a command, whose output goes to a log in the folder; it ends with the block."""
    with log_of(folder, command[0]).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            [*COMMAND, *command], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    except BaseException:  # of an interrupted demo nothing is needed any more, not even a process's clean end
        process.kill()
        raise
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def log_of(folder: Path, name: str) -> Path:
    """The file with a process's output."""
    return folder / f"{name}.log"


def require_running(process: Process, folder: Path, name: str) -> None:
    """Raises DispatcherError, with the end of its log, if a process has ended."""
    if process.poll() is not None:
        said = log_of(folder, name).read_text(errors="replace").strip()[-SHOWN:]
        raise DispatcherError(f"the {name} ended with exit code {process.returncode}; its log ends: {said}")
