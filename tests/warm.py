"""Runs commands of `dispatcher` as forks of a process that has imported what they all need.

Imports are most of what a command costs, and tests run thousands of them. A fork has the environment, the folder, the
standard streams and the exit of a process of its own; the command's module itself is imported in the fork. Variables that
Python itself reads when it starts have no effect. What a test says about how a command starts, or about signals, is
tested with a process from the beginning (`stack.CLI`).
"""

import atexit
import functools
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

IMPORTED = (
    "tasks.lazy",
    "tasks.tables",
    "tasks.wiring",
    "tasks.terminal",
    "config.settings",
)
LOOKS_SECONDS = 1.0
"""How often the process looks whether its tests are over."""
TIMEOUT_SECONDS = 60


def run(
    args: Sequence[str], environment: Mapping[str, str], folder: Path | None = None, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """A command as it ended, as `subprocess.run` with text. Raises subprocess.TimeoutExpired."""
    with (
        socket.socket(socket.AF_UNIX) as asked,
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(stdin.encode())
        given.seek(0)
        asked.connect(_address())
        request = {
            "args": [*args],
            "environment": {**environment},
            "folder": str(folder or Path.cwd()),
        }
        socket.send_fds(asked, [b"\n"], [file.fileno() for file in (given, out, err)])
        asked.sendall(json.dumps(request).encode() + b"\n")
        with asked.makefile("r") as answers:
            asked.settimeout(TIMEOUT_SECONDS)
            pid = int(answers.readline())
            try:
                code = int(answers.readline())
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(
                    [*args], TIMEOUT_SECONDS, _text(out).encode(), _text(err).encode()
                ) from None
        return subprocess.CompletedProcess(["dispatcher", *args], code, _text(out), _text(err))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n")


@functools.cache
def _address() -> str:
    """Starts the process that forks; where it listens."""
    folder = tempfile.TemporaryDirectory()
    address = f"{folder.name}/commands"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.warm", address],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    atexit.register(folder.cleanup)
    atexit.register(process.kill)
    return address


def serve(address: str) -> None:
    """Forks for each command until the process that started it has gone. Ends in a fork by what the command raises."""
    sys.modules.setdefault("rich.traceback", None)  # type: ignore[arg-type]  # as tasks/lazy.py has it
    for name in IMPORTED:
        import_module(name)
    gc.collect()
    gc.freeze()
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        os.write(1, b"ready\n")
        while os.getppid() == parent:
            _reap()
            if not select.select([listener], [], [], LOOKS_SECONDS)[0]:
                continue
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                command(connection)
            connection.close()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def command(connection: socket.socket) -> None:
    """Runs one command in a fork of its own, and tells how it ended; in that fork it ends by what the command raises."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as asked:
        request: dict[str, Any] = json.loads(asked.readline())
    pid = os.fork()
    if pid:
        connection.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        with suppress(BrokenPipeError):  # it took too long, and was killed
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[:1] = [request["folder"], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["tasks", *request["args"]]
    runpy.run_module("tasks", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(sys.argv[1])
