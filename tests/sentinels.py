"""A primary, its replica and two sentinels as real processes on TCP ports."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from tests.ports import free_port as free_port

NAME = "main"
PASSWORD, SENTINEL_PASSWORD = "server,hush", "sentinel,hush"
START_SECONDS = 60


def wait_until(condition: Callable[[], Any], seconds: float = START_SECONDS, what: str = "") -> Any:
    """The condition's first true value, asked without an error; fails the test if there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if value := condition():
                return value
        except redis.RedisError:
            pass
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


class Sentinels:
    """Runs within `with`. Servers and sentinels have a password each, which are not the same."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        self.servers = [free_port(), free_port()]
        self.sentinels = [free_port(), free_port()]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """As DISPATCHER_REDIS_URL has it."""
        return self.url_of()

    def url_of(
        self, name: str = NAME, password: str = PASSWORD, sentinel_password: str = SENTINEL_PASSWORD
    ) -> str:
        """The URL with something else in it."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        own = f"?sentinel_password={sentinel_password}" if sentinel_password else ""
        return f"redis+sentinel://:{password}@{hosts}/{name}/0{own}"

    def server(self, port: int) -> "redis.Redis":
        """A client of one server."""
        return redis.Redis(port=port, password=PASSWORD, decode_responses=True)

    def sentinel(self, port: int) -> "redis.Redis":
        """A client of one sentinel."""
        return redis.Redis(port=port, password=SENTINEL_PASSWORD, decode_responses=True)

    def primary(self) -> int:
        """The port of the primary that the first sentinel names."""
        with self.sentinel(self.sentinels[0]) as client:
            return int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1])

    def fail_over(self) -> None:
        """Has the sentinels make the replica the primary, and waits until it is done."""
        old = self.primary()
        with self.sentinel(self.sentinels[0]) as client:
            client.execute_command("SENTINEL", "FAILOVER", NAME)
        wait_until(lambda: self.primary() != old, what="another primary")
        self.wait_whole()

    def kill(self, port: int) -> None:
        """SIGKILL."""
        process = self._processes.pop(port)
        process.kill()
        process.wait()

    def signal(self, port: int, number: signal.Signals) -> None:
        """SIGSTOP freezes a server: its connections stay open, and it answers nothing."""
        self._processes[port].send_signal(number)

    def start_server(self, port: int, *options: str) -> None:
        """Starts one server again."""
        self._start(
            port,
            *("--save", "", "--appendonly", "yes", "--dir", str(self._folder / str(port)), "--requirepass"),
            *(PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0", *options),
        )
        wait_until(lambda: self._role(port), what="server started")

    def start_sentinel(self, port: int) -> None:
        """Starts one sentinel."""
        primary, file = self.servers[0], self._folder / f"{port}.conf"
        lines = (
            f'dir "{self._folder}"',
            f'requirepass "{SENTINEL_PASSWORD}"',
            f"sentinel monitor {NAME} 127.0.0.1 {primary} 1",
            f"sentinel auth-pass {NAME} {PASSWORD}",
            f"sentinel down-after-milliseconds {NAME} 500",
            f"sentinel failover-timeout {NAME} 2000",
        )
        file.write_text("\n".join(lines) + "\n")
        self._start(port, file=file)

    def wait_whole(self) -> None:
        """Waits until one server is the primary, the other follows it, and the sentinels know both and each other."""
        wait_until(self._is_whole, what="primary, replica and sentinels")

    def _is_whole(self) -> bool:
        primary = self.primary()
        (replica,) = set(self.servers) - {primary}
        if self._role(primary)[0] != "master" or self._role(replica)[2:4] != [str(primary), "connected"]:
            return False
        return all(self._knows_all(port) for port in self.sentinels)

    def _knows_all(self, port: int) -> bool:
        with self.sentinel(port) as client:
            words = client.execute_command("SENTINEL", "MASTER", NAME)
            state = words if isinstance(words, dict) else dict(zip(words[::2], words[1::2], strict=True))
            (replica,) = client.execute_command("SENTINEL", "REPLICAS", NAME) or [{}]
            text = str(replica)
        known = (int(state["num-slaves"]), int(state["num-other-sentinels"]), int(state["port"]))
        return (
            known == (1, 1, self.primary())
            and "down" not in str(state["flags"]) + text.partition("flags")[2][:40]
        )

    def _role(self, port: int) -> list[str]:
        with self.server(port) as client:
            return [str(one) for one in client.execute_command("ROLE")]

    def _start(self, port: int, *options: str, file: Path | None = None) -> None:
        (self._folder / str(port)).mkdir(exist_ok=True)
        command = [self._program, *([str(file), "--sentinel"] if file else []), "--port", str(port)]
        with (self._folder / f"{port}.log").open("ab") as log:
            self._processes[port] = subprocess.Popen(
                [*command, "--bind", "127.0.0.1", *options], stdout=log, stderr=log, start_new_session=True
            )

    def __enter__(self) -> Self:
        try:
            self.start_server(self.servers[0])
            self.start_server(self.servers[1], "--replicaof", "127.0.0.1", str(self.servers[0]))
            wait_until(lambda: self._role(self.servers[1])[3] == "connected", what="a replica")
            for port in self.sentinels:
                self.start_sentinel(port)
            self.wait_whole()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for port in list(self._processes):
            self.kill(port)
