"""A server of a cluster: a process that tests start, kill and freeze."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from dispatcher.store.connection import connect
from tests.ports import hold

DEADLINE_SECONDS = 30.0
PORTS = range(11_000, 21_000)
"""Below those that the system gives to outgoing connections; a node's other port, for its cluster, is 10,000 higher."""


def wait(until: Callable[[], Any], what: str) -> Any:
    """What the condition gives once it holds. A Redis that cannot answer yet does not fulfil it."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        with contextlib.suppress(redis.RedisError):
            if found := until():
                return found
        assert time.monotonic() < deadline, f"not in {DEADLINE_SECONDS:g} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    """A port that is free, and whose other port is."""
    while True:
        port = random.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            if hold(port):
                return port


class ClusterNode:
    """One server."""

    def __init__(
        self,
        folder: Path,
        executable: str,
        options: dict[str, str],
        login: str = "",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """`port` 0: one that is free."""
        self.folder = folder
        self.port = port or free_port()
        self.address = f"{host}:{self.port}"
        """As the cluster writes it."""
        self.url = f"redis://{login}{self.address}"
        self.client: redis.Redis = connect(self.url)
        self._command = [executable, "--port", str(self.port), "--dir", str(folder)]
        for name, value in options.items():
            self._command += [f"--{name}", value]
        self._process: subprocess.Popen[bytes] | None = None
        self.id = ""

    def run(self, *command: Any) -> Any:
        """A command; texts in its reply are decoded."""
        return _decoded(self.client.execute_command(*command))

    def start(self) -> None:
        """Starts it, unless it runs, and does not wait until it answers."""
        if self._process:
            return
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        """Waits until it answers, and not another server at its port."""
        assert self._process
        found = wait(lambda: self.client.info("server")["process_id"], f"{self.url} answers")
        assert found == self._process.pid, f"another server has the port of {self.url}"

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        if self._process:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It stays, and does nothing."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        if self._process:
            self.signal(signal.SIGCONT)

    def open_slots(self) -> list[str]:
        """Slots that it gives away, or gets, key by key."""
        [own] = (line for line in self.nodes() if "myself" in line[2])
        return [field[1:].split("-")[0] for field in own[8:] if field.startswith("[")]

    def info(self, name: str) -> str:
        """A line of CLUSTER INFO."""
        lines = self.run("CLUSTER", "INFO").splitlines()
        return dict(line.split(":", 1) for line in lines)[name]

    def nodes(self) -> list[list[str]]:
        """The lines of CLUSTER NODES."""
        return [line.split() for line in self.run("CLUSTER", "NODES").splitlines()]

    @property
    def is_primary(self) -> bool:
        """Whether it takes itself for one."""
        return bool(self.run("ROLE")[0] == "master")


def _decoded(reply: Any) -> Any:
    if isinstance(reply, bytes):
        return reply.decode(errors="surrogateescape")
    return [_decoded(one) for one in reply] if isinstance(reply, list | tuple) else reply
