"""Everything real: a Redis of its own, Celery workers as processes, a receiver on sockets."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from aiohttp import web

from dispatcher import Dispatcher
from dispatcher.rules.partitions import Partitioning
from dispatcher.store.entry import read_entry
from dispatcher.store.keys import keys_of
from tasks.receiver import Answer, Received, Receiver, answer_ok
from tasks.redis_server import RedisServer
from tests import warm
from tests.ports import free_port as free_port

CELERY = (sys.executable, "-m", "celery", "-A", "tasks", "worker")
CLI = (sys.executable, "-m", "tasks")
QUICK = {
    "BACKOFF_BASE_SECONDS": "0.02",
    "BACKOFF_FACTOR": "2",
    "REQUEST_TIMEOUT_SECONDS": "2",
    "LEASE_SECONDS": "4",
}


def wait_until(condition: Callable[[], Any], seconds: float = 30, what: str = "") -> Any:
    """The condition's first true value; fails the test if there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.02)
    return value


class Worker:
    """One worker process."""

    def __init__(
        self,
        stack: "Stack",
        command: Sequence[str],
        environment: dict[str, str],
        log: Path,
        output: int | None = None,
    ) -> None:
        self.log_path = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                cwd=stack.folder,
                env=environment,
                stdout=file if output is None else output,
                stderr=file if output is None else output,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """All it has said so far."""
        return self.log_path.read_text(errors="replace")

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Its log lines of one event that are written by now; a thread of the worker writes them."""
        whole = self.log.rpartition("\n")[0]
        found = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    def wait_ready(self) -> "Worker":
        """Waits until it takes hints."""
        wait_until(lambda: "ready." in self.log or self.process.poll() is not None, 90, "worker ready")
        assert self.process.poll() is None, self.log
        return self

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """TERM; its exit code."""
        self.process.terminate()
        return self.process.wait(30)


class Stack:
    """Redis, receiver and a folder; workers are started by the test."""

    def __init__(self, folder: Path, server: RedisServer) -> None:
        self.folder = folder
        self.server = server
        self.received: list[Received] = []
        self.answer: Answer = answer_ok
        self.secrets: dict[str, str] = {}
        self.workers: list[Worker] = []
        self._bound: list[socket.socket] = []
        self.redis = redis.Redis.from_url(server.url)
        self._loop = asyncio.new_event_loop()
        self._receiver = Receiver(lambda _: list(self.secrets.values()), self.received.append, self._answer)
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        own = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
        self.environment = own | {
            "DISPATCHER_REDIS_URL": server.url,
            "DISPATCHER_ALLOW_HTTP": "true",
            "DISPATCHER_ALLOWED_NETWORKS": "127.0.0.0/8",
            "DISPATCHER_LOG_FORMAT": "json",
            **{f"DISPATCHER_{name}": value for name, value in QUICK.items()},
        }

    @property
    def partitions(self) -> int:
        """The number of partitions; a test that wants several sets it before it starts anything."""
        return int(self.environment.get("DISPATCHER_PARTITIONS", "1"))

    async def _answer(self, request: web.Request, number: int) -> web.Response:
        return await self.answer(request, number)

    def listen(self, host: str = "127.0.0.1") -> str:
        """A new port of the receiver: the URL of a new endpoint."""
        port = asyncio.run_coroutine_threadsafe(self._receiver.listen(host), self._loop).result(10)
        return f"http://127.0.0.1:{port}"

    def refusing_url(self) -> str:
        """The URL of a new endpoint that refuses connections; nothing else gets its port."""
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        self._bound.append(bound)
        return f"http://127.0.0.1:{bound.getsockname()[1]}/"

    def cli(self, *args: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Runs a command of `dispatcher`."""
        return warm.run(args, self.environment, self.folder, stdin)

    def cli_json(self, *args: str, stdin: str = "") -> Any:
        """The JSON document of a command that must succeed."""
        done = self.cli(*args, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def add_workspace(self, name: str = "acme", dialect: str = "zeckta", url: str = "", *options: str) -> str:
        """Makes a workspace by the command line; its callback URL."""
        url = url or f"{self.listen()}/hooks"
        made = self.cli_json("workspace", "add", name, "--dialect", dialect, "--callback-url", url, *options)
        self.secrets[name] = made["secret"]
        return url

    def start_worker(self, *command: str, output: int | None = None, **settings: str) -> Worker:
        """Starts a worker; by default as `celery -A tasks worker`, with no more flags.

        `output`: what it writes to in place of its log file.
        """
        environment = self.environment | settings
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = Worker(self, command or CELERY, environment, log, output)
        self.workers.append(worker)
        return worker

    def enqueue(self, count: int = 1, *, first: int = 0, **fields: Any) -> list[str]:
        """Enqueues changes of as many messages; their eventIds."""
        with Dispatcher.from_url(self.server.url, partitions=self.partitions) as dispatcher:
            return dispatcher.enqueue_many(change(first + number, **fields) for number in range(count))

    def event(self, event_id: str, workspace: str = "acme") -> dict[str, Any]:
        """`event show --json`."""
        found: dict[str, Any] = self.cli_json("event", "show", event_id, "--workspace", workspace)
        return found

    def state(self, event_id: str, workspace: str = "acme") -> str:
        """The ledger's word, read directly."""
        keys = keys_of("dispatcher", self.partitions)[Partitioning(self.partitions).home(workspace)]
        raw = self.redis.get(keys.event(workspace, event_id))
        return "" if raw is None else read_entry(raw).state.value

    def wait_ended(
        self, event_ids: Sequence[str], workspace: str = "acme", seconds: float = 30
    ) -> Counter[str]:
        """Waits until all have come to an end; how many to which."""
        ends = {"delivered", "failed", "expired"}
        wait_until(lambda: all(self.state(e, workspace) in ends for e in event_ids), seconds, "all ended")
        return Counter(self.state(event_id, workspace) for event_id in event_ids)

    @property
    def redis_pid(self) -> int:
        """The process of Redis; ask before you stop it."""
        return int(self.redis.info("server")["process_id"])

    def close(self) -> None:
        """Ends everything."""
        for worker in self.workers:
            worker.kill()
        asyncio.run_coroutine_threadsafe(self._receiver.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        for bound in self._bound:
            bound.close()
        self.redis.close()


def change(number: int, **fields: Any) -> dict[str, Any]:
    """A status change of message `number`."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    message = {"uuid": f"m{number}", "src": "ACME", "dest": "+233200000001"}
    return {"workspace": "acme", "status": "SENT", "timestamp": stamp, "message": message, **fields}


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """A stack on a Redis with an append-only file."""
    with RedisServer(folder, "--appendonly", "yes") as server:
        stack = Stack(folder, server)
        try:
            yield stack
        finally:
            stack.close()
