"""What `make bench-tls` compares: a worker, and a bare aiohttp loop, each with the same endpoints by name."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from bench.bare_loop import Setup
from bench.load import Customer, Load
from bench.named_receivers import NamedReceivers
from bench.names import NameServer
from bench.receiver import cpu_seconds
from bench.stack import ROOT, Stack, running, wait_until

GROUP = "b"
PATIENCE_SECONDS = 300
"""How long to wait for what was sent to arrive."""


@dataclass(frozen=True)
class Place:
    """Where a sender posts to."""

    receivers: NamedReceivers
    names: NameServer
    authority: Path | None
    """PEM file of the authority to trust, with https."""
    bare_keeps_seconds: float
    """How long the bare loop keeps idle connections."""


class Sender(Protocol):
    """Something that delivers what is enqueued with `load`."""

    load: Load
    customers: Sequence[Customer]

    def cpu(self) -> float:
        """Its CPU seconds so far."""

    def retries(self) -> int:
        """How many of its attempts so far failed and are made again."""

    def finish(self, count: int) -> None:
        """Waits until it has delivered `count` status changes, and has nothing left to do."""


class Worker:
    """One worker, with a workspace for each endpoint."""

    def __init__(self, stack: Stack, place: Place, endpoints: int) -> None:
        self._stack = stack
        self._receivers = place.receivers
        self.load = stack.load
        self.customers: Sequence[Customer] = stack.customers("w", place.receivers.urls(endpoints))

    def cpu(self) -> float:
        return self._stack.worker_cpu()

    def retries(self) -> int:
        return self._stack.logged('"outcome":"retry"')

    def finish(self, count: int) -> None:
        _arrive(self._receivers, count)
        self._stack.drained(PATIENCE_SECONDS)


class Bare:
    """The bare loop, which is written to as Redis is by producers: `load` takes it for a client of Redis."""

    def __init__(self, process: "subprocess.Popen[bytes]", place: Place, endpoints: int) -> None:
        self._process = process
        self._receivers = place.receivers
        self.load = Load(self)
        self.customers: Sequence[Customer] = [Customer("w", url) for url in place.receivers.urls(endpoints)]
        self._lines: list[bytes] = []

    def cpu(self) -> float:
        return cpu_seconds(self._process.pid)

    def retries(self) -> int:
        return 0

    def finish(self, count: int) -> None:
        _arrive(self._receivers, count, self._process)

    # What `load` calls.

    def pipeline(self, transaction: bool) -> Self:
        return self

    def xadd(self, stream: str, fields: dict[str, bytes]) -> None:
        self._lines.append(fields["event"] + b"\n")

    def execute(self) -> None:
        assert self._process.stdin
        self._process.stdin.write(b"".join(self._lines))
        self._process.stdin.flush()
        self._lines.clear()


@contextmanager
def worker(place: Place, endpoints: int) -> Iterator[Worker]:
    """A worker that runs, within `with`."""
    with running(workers=0, **_settings(place)) as stack:
        made = Worker(stack, place, endpoints)
        stack.start()
        yield made


@contextmanager
def bare(place: Place, endpoints: int) -> Iterator[Bare]:
    """A bare loop that runs, within `with`."""
    with _process("bench.bare_steady", json.dumps(dataclasses.asdict(_setup(place)))) as process:
        yield Bare(process, place, endpoints)


def worker_burst(place: Place, endpoints: int, count: int) -> float:
    """Lets a worker deliver what waits when it starts; returns its CPU seconds from when it is ready."""
    with running(workers=0, **_settings(place)) as stack:
        made = Worker(stack, place, endpoints)
        stack.load.burst(GROUP, made.customers, count)
        stack.start()
        before = made.cpu()
        made.finish(count)
        return made.cpu() - before


def bare_burst(place: Place, endpoints: int, count: int, concurrency: int = 100) -> float:
    """Lets a bare loop post as many; returns its CPU seconds from when the bodies are made."""
    urls = place.receivers.urls(endpoints)
    task: dict[str, Any] = {"urls": urls, "count": count, "concurrency": concurrency, "note": 0}
    task |= dataclasses.asdict(_setup(place))
    with _process("bench.bare_loop", given=json.dumps(task).encode()) as process:
        before = cpu_seconds(process.pid)
        _arrive(place.receivers, count, process)
        return cpu_seconds(process.pid) - before


def _arrive(receivers: NamedReceivers, count: int, process: "subprocess.Popen[bytes] | None" = None) -> None:
    """Waits until so many status changes have arrived. Raises SystemExit if not, also if the process ended before."""

    def arrived() -> bool:
        ended = process is not None and _ended(process)
        if receivers.count(GROUP) >= count:
            return True
        if ended:
            raise SystemExit(f"error: the bare loop ended before {count:,} callbacks arrived")
        return False

    what = f"{count:,} callbacks over {receivers.scheme} to arrive"
    wait_until(arrived, PATIENCE_SECONDS, what, every=0.05)


def _ended(process: "subprocess.Popen[bytes]") -> bool:
    """Whether a process has ended; unlike `poll`, it leaves /proc's entry, which has the CPU seconds."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _settings(place: Place) -> dict[str, str]:
    return {"DNS_SERVERS": place.names.address, "CA_FILE": str(place.authority or "")}


def _setup(place: Place) -> Setup:
    return Setup(place.bare_keeps_seconds, [place.names.address], str(place.authority or ""))


@contextmanager
def _process(module: str, *arguments: str, given: bytes = b"") -> "Iterator[subprocess.Popen[bytes]]":
    """A process of this benchmark, within `with`, once it is ready; `given` is all its input, if there is any."""
    with tempfile.NamedTemporaryFile() as log:
        command = [sys.executable, "-m", module, *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, cwd=ROOT)
        assert process.stdin
        try:
            if given:
                process.stdin.write(given)
                process.stdin.close()
            said = Path(log.name)
            wait_until(lambda: "ready." in said.read_text() or _ended(process), 60, module)
            if "ready." not in said.read_text():
                raise SystemExit(f"error: {module} ended: {said.read_text()[-2000:]}")
            yield process
        finally:
            process.kill()
            process.stdin.close()
            process.wait()
