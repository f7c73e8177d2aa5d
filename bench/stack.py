"""A private Redis and worker processes, as an operator runs them, and their resource use."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from bench.load import Customer, Load
from bench.receiver import cpu_seconds
from dispatcher.rules.partitions import Partitioning
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import keys_of
from dispatcher.store.sealing import SecretBox
from dispatcher.store.workspaces import Workspaces
from tasks.redis_server import RedisServer

ROOT = Path(__file__).resolve().parent.parent
CELERY = (sys.executable, "-m", "celery")
AOF = {
    "off": (),
    "everysec": ("--appendonly", "yes"),
    "always": ("--appendonly", "yes", "--appendfsync", "always"),
}


class Stack:
    """Redis and worker processes; `running` makes it."""

    def __init__(self, folder: Path, server: RedisServer, settings: dict[str, str]) -> None:
        self.folder = folder
        self.server = server
        self.client = redis.Redis.from_url(server.url)
        partitions = int(settings.get("PARTITIONS", "1"))
        self.keys = keys_of("dispatcher", partitions)
        self._partitioning = Partitioning(partitions)
        self.load = Load(self.client, partitions)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.api = 0
        """Process id of the API, once it is started."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
        fixed = {"REDIS_URL": server.url, "ALLOW_HTTP": "true", "ALLOWED_NETWORKS": "127.0.0.0/8"}
        self.environment = own | {
            "PYTHONPATH": str(ROOT),
            "DISPATCHER_LOG_FORMAT": "json",
            **{f"DISPATCHER_{name}": value for name, value in (fixed | settings).items()},
        }

    def start(self, *command: str, ready: str = "ready.") -> None:
        """Starts a worker process (by default ours) and waits until its log contains `ready`."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command or (*CELERY, "-A", "tasks", "worker"),
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.workers.append(process)
        wait_until(
            lambda: ready in log.read_text(errors="replace") or process.poll() is not None, 60, "a worker"
        )
        if process.poll() is not None:
            raise SystemExit(f"error: a worker ended: {log.read_text(errors='replace')[-2000:]}")

    def command(self, *words: str) -> dict[str, Any]:
        """Runs one of our commands to its end; the JSON that it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "tasks", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"error: {' '.join(words)} ended: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def start_api(self) -> int:
        """Starts `dispatcher api` with one process; returns its port."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        self.start(sys.executable, "-m", "tasks", "api", "--port", str(port), ready="Uvicorn running")
        self.api = self.workers[-1].pid
        return port

    def logged(self, text: str) -> int:
        """How often a text occurs in the workers' logs."""
        return sum(log.read_text(errors="replace").count(text) for log in self.folder.glob("worker-*.log"))

    def customers(
        self, prefix: str, urls: Sequence[str], dialect: str = "zeckta", **limits: int | float | str
    ) -> list[Customer]:
        """Creates a workspace for each URL."""

        async def make() -> list[Customer]:
            client = connect_async(self.server.url)
            of = [Workspaces(client, keys, SecretBox([]), allow_http=True) for keys in self.keys]
            made = []
            for number, url in enumerate(urls):
                name = f"{prefix}{number}"
                workspaces = of[self._partitioning.home(name)]
                await workspaces.add(name, dialect, url, now_ms=round(time.time() * 1000), **limits)  # type: ignore[arg-type]
                made.append(Customer(name, url))
            await client.aclose()
            return made

        return asyncio.run(make())

    def waiting(self) -> int:
        """How many status changes and callbacks have not ended."""
        pipe = self.client.pipeline(transaction=False)
        for keys in self.keys:
            pipe.xlen(keys.events)
            pipe.zcard(keys.expiries)
        return sum(pipe.execute())

    def drained(self, seconds: float = 120) -> None:
        """Waits until all callbacks have ended."""
        wait_until(lambda: self.waiting() == 0, seconds, "everything to be delivered", every=0.05)

    def worker_cpu(self) -> float:
        """CPU seconds of all started processes and their children so far."""
        return sum(cpu_seconds(pid) for worker in self.workers for pid in processes(worker.pid))

    def api_cpu(self) -> float:
        """CPU seconds of the API so far, which `worker_cpu` includes."""
        return sum(cpu_seconds(pid) for pid in processes(self.api))

    def commands(self) -> tuple[int, int]:
        """Round trips so far (scripts, stream reads), and all commands that Redis ran, without the benchmark's own."""
        stats = self.client.info("commandstats")
        ours = {
            n: s["calls"]
            for n, s in stats.items()
            if n not in ("cmdstat_xadd", "cmdstat_info", "cmdstat_xlen")
        }
        trips = sum(ours.get(f"cmdstat_{name}", 0) for name in ("evalsha", "xreadgroup"))
        return trips, sum(ours.values())

    def redis_cpu(self) -> float:
        """CPU seconds of Redis so far."""
        info = self.client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def stop_all(self) -> None:
        """Kills the workers."""
        for worker in self.workers:
            for pid in processes(worker.pid):
                os.kill(pid, 9)
            worker.wait()
        self.workers.clear()

    def close(self) -> None:
        """Kills the workers and disconnects."""
        self.stop_all()
        self.client.close()


@contextmanager
def running(*, aof: str = "everysec", workers: int = 1, **settings: str) -> Iterator[Stack]:
    """A fresh Redis and workers, within `with`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with RedisServer(folder, *AOF[aof]) as server:
            stack = Stack(folder, server, settings)
            try:
                for _ in range(workers):
                    stack.start()
                yield stack
            finally:
                stack.close()


def wait_until(condition: Callable[[], object], seconds: float, what: str, *, every: float = 0.02) -> None:
    """Waits until a condition holds. Raises SystemExit after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"error: waited {seconds:.0f} s for {what}")
        time.sleep(every)


def processes(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in thread.read_text().split():
            found += processes(int(child))
    return found
