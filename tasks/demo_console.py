"""The demo's console: its process, the link that opens it, and a little traffic, so that its live pages show something."""

import asyncio
import itertools
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dispatcher.errors import DispatcherError, InvalidInput
from dispatcher.model import StatusChange
from tasks import demo_file, terminal, wiring
from tasks.demo_process import Process, log_of, require_running, running

HOST, PORT = "127.0.0.1", 8090
"""Where the console listens, if nothing else does."""
START_SECONDS = 60.0
TRAFFIC_SECONDS = 1.0
"""How often a status change is enqueued."""
STATUSES = frozenset({"SUBMITTED", "SENT", "DELIVERED"})
"""Of which every workspace of the demo gets callbacks."""

_RUNNING = re.compile(r"running on (http://[^\s\"]+)")
_TOKEN = re.compile(r"#token=(\S+)")


async def show(folder: Path, store: wiring.Store, lines: Sequence[bytes], worker: Process) -> None:
    """Serves the console until it is interrupted, or its terminal is closed. Raises DispatcherError if a process ends by itself."""
    is_on_terminal = os.isatty(0)
    with running(folder, "console", "--link", "--host", HOST, "--port", str(free_port())) as console:
        url, token = await _started(folder, console)
        terminal.out.print(f"\nthe console is at {url}; open it with this link, which logs you in:\n")
        terminal.out.print(f"{url}/login#token={token}", style="bold")
        terminal.out.print("\na status change comes every second; Ctrl-C ends all and removes it")
        for change in traffic(lines):
            if is_on_terminal and not os.isatty(0):  # hung up; below `make` no signal says so
                return
            require_running(console, folder, "console")
            require_running(worker, folder, "worker")
            await store.client.xadd(store.ledger.keys.events, {"event": change})
            await asyncio.sleep(TRAFFIC_SECONDS)


def free_port() -> int:
    """The console's usual port; 0, for any that is free, where it is taken."""
    try:
        socket.create_server((HOST, PORT)).close()
    except OSError:
        return 0
    return PORT


async def _started(folder: Path, console: Process) -> tuple[str, str]:
    """URL and token of the console, once it answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        require_running(console, folder, "console")
        said = log_of(folder, "console").read_text(errors="replace")
        url, token = _RUNNING.search(said), _TOKEN.search(said)
        if url and token:
            return url[1], token[1]
        await asyncio.sleep(0.1)
    raise DispatcherError(f"the console does not start within {START_SECONDS:.0f} s")


def traffic(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Status changes without end, as messages of now; every other one goes to a URL of its own, where receivers fail."""
    usable = [change for change in map(_usable, lines) if change]
    plain = [one for one in usable if "callbackUrl" not in one]
    own = [one for one in usable if "callbackUrl" in one]
    for number in itertools.count():
        of = own if number % 2 else plain
        yield _now(of[number // 2 % len(of)])


def _usable(line: bytes) -> dict[str, Any] | None:
    """A line's status change; None for one that is rejected on purpose, or of which no callback comes."""
    try:
        change = StatusChange.from_json(line)
    except InvalidInput:
        return None
    allowed = change.callback_url is None or change.callback_url.startswith("http:")
    is_sent = change.workspace in demo_file.WORKSPACES and change.status in STATUSES and allowed
    return dict(json.loads(line)) if is_sent else None


def _now(change: dict[str, Any]) -> bytes:
    """The same status of another message, at this moment."""
    kept = {name: value for name, value in change.items() if name in ("workspace", "status", "callbackUrl")}
    message = change["message"] | {"uuid": str(uuid.uuid4())}
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps(kept | {"timestamp": moment, "message": message}).encode()
