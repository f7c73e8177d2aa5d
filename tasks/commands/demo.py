"""`dispatcher demo`: the main job on real parts, in private: Redis, a Celery worker, customers' receivers."""

import asyncio
import os
import re
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from aiohttp import web
from rich.table import Table
from rich.text import Text

from config import logs
from config.environment import PREFIX
from config.settings import Settings
from dispatcher.__main__ import COMMAND
from dispatcher.errors import DispatcherError, InvalidInput, visible
from dispatcher.model import StatusChange
from dispatcher.store.callbacks import Event
from dispatcher.store.lookup import RejectedEntry
from tasks import console, wiring
from tasks.receiver import Received, Receiver, port_of
from tasks.redis_server import RedisServer

FILE = Path(__file__).with_name("demo.jsonl")
"""Some of its lines are broken, to show what is rejected."""
FILE_PRESENT = datetime(2026, 6, 9, 13, 5, tzinfo=UTC)
"""The moment the file's timestamps lead up to; the demo moves them so that it is now."""

WORKSPACES = {
    "acme": ("zeckta", "https://hooks.acme.example/messages"),
    "bluefin": ("sendexa", "https://api.bluefin.example/sms"),
    "cedar": ("zeckta", "https://hooks.cedar.example/callbacks"),
}
SHORTENED = {
    "BACKOFF_BASE_SECONDS": "0.3",
    "BACKOFF_FACTOR": "2",
    "REQUEST_TIMEOUT_SECONDS": "3",
    "LEASE_SECONDS": "6",
}
SLOW_SECONDS = 1.5
DEADLINE_SECONDS = 25.0
STOP_SECONDS = 15.0
PICTURE_COLUMNS, PICTURE_ROWS = 132, 14
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""TERM and a closed terminal clean up as Ctrl-C does, which works even where a parent ignores it."""

_HOST = re.compile(rb"https://([a-z.]+\.example)")
_STAMP = re.compile(rb'"(timestamp|acceptedAt)":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)((?:\.\d+)?Z?)"')

Queued = list[tuple[str, bytes]]
"""The queue entry of each line, and the line."""


@dataclass
class Account:
    """What is known at the end, from three sides: queue and counters, ledger, receivers."""

    lines: int
    events: list[Event]
    counters: Mapping[str, int]
    rejected: list[RejectedEntry]
    received: list[Received] = field(default_factory=list)

    @property
    def parts(self) -> dict[str, int]:
        """What became of the lines."""
        states = Counter(event.state.value for event in self.events)
        ends = {state: states[state] for state in ("delivered", "failed", "expired")}
        return ends | {
            "duplicate": self.counters["duplicate"],
            "no callback": self.counters["noCallback"],
            "rejected": len(self.rejected),
        }

    def problems(self) -> Iterator[str]:
        """Everything that does not add up; nothing if all does."""
        total = sum(self.parts.values())
        if total != self.lines:
            yield f"{self.lines} lines went in, {total} are accounted for"
        open_ = [event.event_id for event in self.events if not event.ended]
        if open_:
            yield f"{len(open_)} callbacks have not ended: {', '.join(open_)}"
        taken = Counter(r.event_id for r in self.received if r.problem is None and r.status < 300)
        delivered = {event.event_id for event in self.events if event.state == "delivered"}
        if set(taken) != delivered:
            yield f"the receivers took {len(taken)} callbacks, the ledger says {len(delivered)}"
        if any(count > 1 for count in taken.values()):
            yield "a receiver took a callback twice"
        unverified = sum(r.problem is not None for r in self.received)
        if unverified:
            yield f"{unverified} callbacks did not verify"


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the folder with the logs of Redis and the worker.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Write a picture of what is printed, in short, to this SVG file.", show_default=False
        ),
    ] = None,
) -> None:
    """See the main job done here, on real parts.

    Starts a private Redis, a Celery worker and receivers, delivers the callbacks of an example
    file, and accounts for every line of it. Takes under 30 seconds and leaves nothing behind.
    """
    logs.configure("WARNING", "console")
    if picture:
        _require_place(picture)
        console.out.record, console.out.width = True, PICTURE_COLUMNS
    with _folder(keep) as folder:
        ok = console.run(_Demo(folder, short=picture is not None).run(), *INTERRUPTS)
    if picture:
        svg = console.out.export_svg(title="make demo")
        picture.write_text(
            re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
        )  # fetched from elsewhere
    raise typer.Exit(console.DONE if ok else console.NO)


def _require_place(picture: Path) -> None:
    """Raises InvalidInput where the picture could not be written at the end."""
    folder = picture.parent
    if picture.is_dir() or not os.access(picture if picture.exists() else folder, os.W_OK):
        raise InvalidInput(
            f"cannot write {picture}: "
            + (
                "it is a folder"
                if picture.is_dir()
                else "no such folder"
                if not folder.is_dir()
                else "not allowed"
            )
        )


class _Demo:
    def __init__(self, folder: Path, *, short: bool) -> None:
        self._folder = folder
        self._short = short
        self._received: list[Received] = []
        self._posts: Counter[str] = Counter()
        self._secrets: list[str] = []
        self._unshown: OSError | None = None
        """Why nothing more can be printed."""

    async def run(self) -> bool:
        with RedisServer(self._folder) as server:
            _take_settings(server.url)
            settings = Settings(_env_file=None)
            receiver = Receiver(lambda _: self._secrets, self._show, self._answer)
            try:
                return await self._with_receiver(receiver, settings)
            finally:
                await receiver.close()

    async def _with_receiver(self, receiver: Receiver, settings: Settings) -> bool:
        lines = FILE.read_bytes().splitlines()
        ports = await _ports(receiver, lines)
        self._names = {port: host for host, port in ports.items()}
        async with wiring.store(settings) as store:
            for name, (dialect, url) in WORKSPACES.items():
                local = _localised(url.encode(), ports).decode()
                made = await store.workspaces.add(name, dialect, local, now_ms=await store.lookup.now_ms())
                self._secrets.append(made.secrets[0].text)
            _say("a private Redis, a Celery worker and the customers' receivers are starting")
            _say(
                "the backoff is shortened by settings: "
                + " ".join(f"{PREFIX}{k}={v}" for k, v in SHORTENED.items())
            )
            with _worker(self._folder) as process:
                queued = await _enqueue(store, [_localised(_brought_to_now(line), ports) for line in lines])
                _say(f"{len(queued)} lines of {FILE.name} are on the queue; callbacks as they arrive:\n")
                console.out.print(
                    _row("event type", "message", "attempt", "answer", "signature", "receiver"), style="bold"
                )
                await self._settled(store, len(queued), process)
                account = await _account(store, queued, self._received)
        if self._short:
            console.out.record = True
            console.out.print("  …")
        return _summary(account)

    async def _settled(self, store: wiring.Store, lines: int, process: "subprocess.Popen[bytes]") -> None:
        """Waits until every line has come to its end, or the deadline."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if self._unshown:
                raise self._unshown
            c = await store.stats.day(await store.lookup.now_ms())
            taken = c["accepted"] + c["duplicate"] + c["noCallback"] + c["rejected"]
            if taken >= lines and c["delivered"] + c["failed"] + c["expired"] >= c["accepted"]:
                return
            await asyncio.sleep(0.1)
        if process.poll() is not None:
            said = (self._folder / "worker.log").read_text(errors="replace").strip()[-2000:]
            raise DispatcherError(f"the worker ended with exit code {process.returncode}, saying: {said}")

    async def _answer(self, request: web.Request, number: int) -> web.Response:
        """How the customers behave, by host."""
        host = self._names[port_of(request)]
        self._posts[host] += 1
        if host.startswith("slow"):
            await asyncio.sleep(SLOW_SECONDS)
        if host.startswith("restarting") and self._posts[host] <= 2:
            return web.Response(status=503, text="starting")
        if host.startswith("old"):
            return web.Response(status=410, text="this customer moved away")
        if host.startswith("broken"):
            return web.Response(status=500, text="database is gone")
        return web.Response(text="ok")

    def _show(self, received: Received) -> None:
        self._received.append(received)
        if self._unshown:
            return
        if self._short:
            console.out.record = len(self._received) <= PICTURE_ROWS
        verdict = "verified" if received.problem is None else "NOT VERIFIED"
        answer = f"{received.status} {web.Response(status=received.status).reason}"
        cells = (
            received.event_type,
            received.message,
            str(received.number),
            answer,
            verdict,
            self._names[received.port],
        )
        try:
            console.out.print(_row(*cells), style="" if received.status < 300 else "yellow")
        except OSError as error:  # the demo ends with it, and not the request of the worker
            self._unshown = self._unshown or error


def _row(event_type: str, message: str, number: str, answer: str, verdict: str, host: str) -> Text:
    """One line, or two where the terminal is too narrow for it."""
    first = f"  {event_type:<22} {message:<37} {number:>7}"
    apart = "  " if console.out.width >= PICTURE_COLUMNS else "\n      "
    return Text(f"{first}{apart}{answer:<25} {verdict:<13} {host}", no_wrap=True)


def _say(text: str) -> None:
    console.out.print(text, markup=False)


async def _ports(receiver: Receiver, lines: Sequence[bytes]) -> dict[str, int]:
    """A port of its own for each host of the file: an endpoint each."""
    urls = list(lines) + [url.encode() for _, url in WORKSPACES.values()]
    hosts = sorted({host.decode() for url in urls for host in _HOST.findall(url)})
    return {host: await receiver.listen("127.0.0.1") for host in hosts}


def _localised(text: bytes, ports: Mapping[str, int]) -> bytes:
    return _HOST.sub(lambda m: b"http://127.0.0.1:%d" % ports[m.group(1).decode()], text)


def _brought_to_now(line: bytes) -> bytes:
    """Moves a line's timestamps by as much as lies between the file's present and now."""
    shift = datetime.now(UTC) - FILE_PRESENT

    def moved(match: re.Match[bytes]) -> bytes:
        old = datetime.fromisoformat(match.group(2).decode()).replace(tzinfo=UTC)
        new = (old + timedelta(seconds=int(shift.total_seconds()))).strftime("%Y-%m-%dT%H:%M:%S")
        return b'"%b":"%b%b"' % (match.group(1), new.encode(), match.group(3))

    return _STAMP.sub(moved, line)


def _take_settings(redis_url: str) -> None:
    """Settings for this process and the worker, in place of those meant for a real installation."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    settings = {"REDIS_URL": redis_url, "ALLOW_HTTP": "true", "ALLOWED_NETWORKS": "127.0.0.0/8", **SHORTENED}
    os.environ.update({PREFIX + name: value for name, value in settings.items()})


@contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    if keep:
        folder = Path(tempfile.mkdtemp(prefix="dispatcher-demo-"))
        yield folder
        _say(f"logs are in {folder}")
        return
    with tempfile.TemporaryDirectory(prefix="dispatcher-demo-") as name:
        yield Path(name)


@contextmanager
def _worker(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A Celery worker in a process of its own; ends with the block."""
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            [*COMMAND, "worker"], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _enqueue(store: wiring.Store, lines: Sequence[bytes]) -> Queued:
    """As a backend in any language would: XADD, without looking at what it sends."""
    pipe = store.client.pipeline(transaction=False)
    for line in lines:
        pipe.xadd(store.ledger.keys.events, {"event": line})
    return [(entry.decode(), line) for entry, line in zip(await pipe.execute(), lines, strict=True)]


async def _account(store: wiring.Store, queued: Queued, received: list[Received]) -> Account:
    """Looks every line up: in the ledger by its eventId, in `rejected` by its entry."""
    entries = dict(queued)
    rejected = [entry for entry in await store.lookup.rejected(10_000) if entry.entry in entries]
    refused = {entry.entry for entry in rejected}
    ids: dict[tuple[str, str], None] = {}
    for entry, line in queued:
        if entry not in refused:
            try:
                change = StatusChange.from_json(line)
            except InvalidInput:
                continue  # shows up as a line that is not accounted for
            ids[change.workspace, change.event_id] = None
    events = [await store.events.get(*key) for key in ids]
    counters = await store.stats.day(await store.lookup.now_ms())
    return Account(len(queued), [event for event in events if event], counters, rejected, received)


def _summary(account: Account) -> bool:
    errors = Counter(event.attempts[-1].error for event in account.events if event.state == "failed")
    retried = sum(len(event.attempts) > 1 for event in account.events if event.state == "delivered")
    notes = {
        "delivered": f"{retried} of them after a retry",
        "failed": ", ".join(f"{count} × {error}" for error, count in sorted(errors.items(), key=str)),
        "expired": "older than 48 hours",
        "duplicate": "same eventId, same content: ignored",
        "no callback": "the platform sends none for this status",
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    for name, count in account.parts.items():
        table.add_row(str(count), name, Text(notes.get(name, "")))
        for entry in reversed(account.rejected) if name == "rejected" else ():
            table.add_row(
                "",
                "",
                Text(visible(f"{entry.reason}: {entry.detail}")),
            )
    table.add_row(str(account.lines), "lines")
    console.out.print()
    console.out.print(table, soft_wrap=False)
    problems = list(account.problems())
    for problem in problems:
        _say(f"does not add up: {problem}")
    if not problems:
        _say("it adds up: each line has one end, and each delivered callback was received once and verified")
    return not problems
