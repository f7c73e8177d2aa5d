"""One size of `bench.growth`: fills the ledger, times the commands, has one worker deliver."""

import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.fill import fill
from bench.load import Customer
from bench.receiver import Receiver
from bench.report import Progress
from bench.stack import Stack, processes, running, wait_until
from dispatcher.store.script_text import NAMES, sha
from tests.acceptance.stack import free_port

COMMANDS = ("check", "stats", "stats --by endpoint", "endpoint list", "workspace list")
EXPORT, WORKER = "Prometheus export", "worker"
LONG_US = 1_000
"""Commands that a worker sends to Redis are looked at from this duration on, in microseconds."""
OFF = {"STATUS_RETENTION_SECONDS": "0"}


@dataclass(frozen=True)
class Size:
    """How many there are of what."""

    waiting: int
    endpoints: int
    workspaces: int


@dataclass(frozen=True)
class Timed:
    """A command, or a worker: how long it ran, and the longest command that it sent to Redis."""

    seconds: float
    longest_ms: float
    longest: str = ""


@dataclass(frozen=True)
class Found:
    """What was measured at one size."""

    size: Size
    figures: dict[str, float] = field(default_factory=dict)
    commands: dict[str, Timed] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """The document that `--json` prints."""
        commands = {name: asdict(one) for name, one in self.commands.items()}
        return asdict(self.size) | self.figures | {"commands": commands}


class Watched:
    """The commands that Redis ran, from its slow log: those that took at least `slower_than_us`.

    0 logs all of them, with those inside of scripts, which costs Redis half as much again.
    """

    LENGTH = 50_000

    def __init__(self, stack: Stack, slower_than_us: int) -> None:
        self.count: Counter[str] = Counter()
        self.longest_ms, self.longest = 0.0, ""
        self._client = stack.client
        self._names = {sha(name): name for name in NAMES}
        self._client.config_set("slowlog-max-len", self.LENGTH)
        self._client.config_set("slowlog-log-slower-than", slower_than_us)
        self._client.slowlog_reset()

    def look(self) -> None:
        """Adds what ran since."""
        entries: list[dict[str, Any]] = self._client.slowlog_get(self.LENGTH)
        self._client.slowlog_reset()
        for entry in entries:
            name = self._name(entry["command"])
            if name == "slowlog":
                continue
            self.count[name] += 1
            if entry["duration"] / 1000 > self.longest_ms:
                self.longest_ms, self.longest = entry["duration"] / 1000, name

    def end(self) -> None:
        """Adds what ran since, and logs no more."""
        self.look()
        self._client.config_set("slowlog-log-slower-than", -1)

    def _name(self, command: bytes) -> str:
        """A command's name; of one that runs a script, the script's."""
        words = command.decode(errors="replace").split(" ", 2)
        return self._names.get(words[1], words[0].lower()) if len(words) > 1 else words[0].lower()


class Run:
    """Measures sizes, with one receiver.

    A worker delivers for `seconds`, and `loops_seconds` more while its loops are timed; it then has nothing to do for
    `idle_seconds`, longer than it keeps connections, before its memory is measured.
    """

    STEPS = 4

    def __init__(
        self,
        receiver: Receiver,
        progress: Progress,
        seconds: float,
        loops_seconds: float,
        idle_seconds: float,
    ) -> None:
        self._receiver = receiver
        self._progress = progress
        self.seconds = seconds
        self._loops_seconds = loops_seconds
        self._idle_seconds = idle_seconds

    def measure(self, size: Size, *, idle: bool) -> Found:
        """All figures of one size, on a Redis of its own."""
        found = Found(size)
        with running(workers=0, aof="off", **OFF) as stack:
            self._fill(stack, found)
            self._time_commands(stack, found)
            self._deliver(stack, found)
            self._time_loops(stack, found)
            self._progress.start(f"{_named(size)}: idle")
            if idle:
                stack.drained(600)
                time.sleep(self._idle_seconds)
                found.figures["idle_mb"] = worker_mb(stack)
        return found

    def _fill(self, stack: Stack, found: Found) -> None:
        size = found.size
        self._progress.start(f"{_named(size)}: workspaces and callbacks are made")
        urls = [self._receiver.url(number + 1) for number in range(size.endpoints)]
        made = stack.customers("w", urls[: size.workspaces])
        customers = [Customer(made[n % len(made)].workspace, url) for n, url in enumerate(urls)]
        before = used(stack)
        began = time.monotonic()
        fill(stack.server.url, "b", customers, size.waiting, self._progress.part)
        found.figures["accepted_per_s"] = size.waiting / (time.monotonic() - began)
        found.figures["redis_bytes_each"] = (used(stack) - before) / size.waiting

    def _time_commands(self, stack: Stack, found: Found) -> None:
        self._progress.start(f"{_named(found.size)}: commands")
        for name in COMMANDS:
            watched, began = Watched(stack, 0), time.monotonic()
            command = [sys.executable, "-m", "tasks", *name.split(), "--json"]
            done = subprocess.run(command, env=stack.environment, cwd=stack.folder, capture_output=True)
            if done.returncode > 1:  # 1: `check` found no worker
                raise SystemExit(f"error: {name}: {done.stderr.decode()[-500:]}")
            found.commands[name] = _timed(watched, began)
        port = free_port()
        exporter = (sys.executable, "-m", "tasks", "exporter", "--port", str(port), "--host", "127.0.0.1")
        stack.start(*exporter, ready="metrics at")
        watched, began = Watched(stack, 0), time.monotonic()
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=300).read()
        found.commands[EXPORT] = _timed(watched, began)
        stack.stop_all()

    def _deliver(self, stack: Stack, found: Found) -> None:
        """Has one worker deliver for `seconds`, from its first POST on, or until nothing waits."""
        self._progress.start(f"{_named(found.size)}: goes out")
        receiver, watched = self._receiver, Watched(stack, LONG_US)
        receiver.take()  # what the worker of the size before sent until it was killed
        stack.start()
        wait_until(lambda: receiver.count("b") > 0, 60, "the first callback", every=0.005)
        started_mb = worker_mb(stack)
        worker, server, before = stack.worker_cpu(), stack.redis_cpu(), receiver.count("b")
        heartbeats = self._watch(stack, self.seconds)
        worker, server = stack.worker_cpu() - worker, stack.redis_cpu() - server
        posts = receiver.count("b") - before
        group = receiver.take()["b"]
        watched.end()
        found.figures.update(
            delivered_per_s=group.distinct / max(group.last_at - group.first_at, 0.001),
            worker_ms_each=worker / posts * 1000,
            redis_ms_each=server / posts * 1000,
            started_mb=started_mb,
            worker_mb=worker_mb(stack),
        )
        found.commands[WORKER] = Timed(self.seconds, watched.longest_ms, watched.longest)
        if gaps := _gaps_seconds(heartbeats):
            found.figures["heartbeat_s"] = max(gaps)

    def _watch(self, stack: Stack, seconds: float) -> set[float]:
        """Waits until nothing waits, or for `seconds`; returns when there was a heartbeat, in ms."""
        heartbeats, began = set[float](), time.monotonic()

        def is_over() -> bool:
            beats: Any = stack.client.zrange("dispatcher:workers", 0, -1, withscores=True)
            heartbeats.update(at for _, at in beats)
            self._progress.part(min(1.0, (time.monotonic() - began) / seconds))
            return stack.waiting() == 0 or time.monotonic() - began > seconds

        wait_until(is_over, seconds + 60, "callbacks", every=0.1)
        return heartbeats

    def _time_loops(self, stack: Stack, found: Found) -> None:
        """The mean time between two wakes and two sweeps, while the worker goes on."""
        watched, began = Watched(stack, 0), time.monotonic()
        while time.monotonic() - began < self._loops_seconds:
            time.sleep(0.1)
            watched.look()
        seconds = time.monotonic() - began
        watched.end()
        if count := watched.count["wake"]:
            found.figures["wake_ms"] = seconds / count * 1000
        if count := watched.count["sweep"]:
            found.figures["sweep_s"] = seconds / count


def _named(size: Size) -> str:
    return f"{size.waiting:,} to {size.endpoints:,} of {size.workspaces:,}"


def _timed(watched: Watched, began: float) -> Timed:
    seconds = time.monotonic() - began
    watched.end()
    return Timed(seconds, watched.longest_ms, watched.longest)


def _gaps_seconds(times_ms: set[float]) -> list[float]:
    ordered = sorted(times_ms)
    return [(after - before) / 1000 for before, after in pairwise(ordered)]


def used(stack: Stack) -> int:
    """Bytes that Redis uses for data."""
    info = stack.client.info("memory")
    return int(info["used_memory"] - info["used_memory_lua"] - info["mem_clients_normal"])


def worker_mb(stack: Stack) -> float:
    """Resident memory of the workers and their children, in MB."""
    return sum(resident_bytes(pid) for worker in stack.workers for pid in processes(worker.pid)) / 1e6


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, from /proc (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
