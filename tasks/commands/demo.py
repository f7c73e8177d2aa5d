"""`dispatcher demo`: shows the main job with a private Redis, a Celery worker and customers' receivers."""

import asyncio
import os
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from aiohttp import web
from rich.table import Table
from rich.text import Text

from config import logs
from config.environment import PREFIX
from config.settings import Settings
from dispatcher.errors import InvalidInput, visible
from tasks import demo_console, demo_file, terminal, wiring
from tasks.demo_account import Account, Queued, account_of
from tasks.demo_file import localised
from tasks.demo_process import Process, require_running, running
from tasks.receiver import Received, Receiver, port_of
from tasks.redis_server import RedisServer

SHORTENED = {
    "BACKOFF_BASE_SECONDS": "0.3",
    "BACKOFF_FACTOR": "2",
    "REQUEST_TIMEOUT_SECONDS": "3",
    "LEASE_SECONDS": "6",
}
SLOW_SECONDS = 1.5
DEADLINE_SECONDS = 90.0
PICTURE_COLUMNS, PICTURE_ROWS = 132, 14
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end the demo with clean-up. INT is among them so that Ctrl-C works even if the parent ignores it."""


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the folder with the logs of Redis and the worker.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(help="Write the output, abridged, to this SVG file.", show_default=False),
    ] = None,
    console: Annotated[
        bool,
        typer.Option("--console", help="Afterwards serve the console on all this until Ctrl-C."),
    ] = False,
) -> None:
    """Run the main job here, on a private Redis, worker and receivers.

    Starts a private Redis, a Celery worker and receivers, delivers the callbacks of an example
    file, and accounts for each of its lines. Takes under 30 seconds and leaves nothing behind.

    With --console it goes on until Ctrl-C: it prints a link to the console, and a status change
    comes every second.
    """
    logs.configure("WARNING", "console")
    if picture and console:
        raise InvalidInput("give either --picture or --console: a picture shows a run that ends")
    if picture:
        _require_place(picture)
        terminal.out.record, terminal.out.width = True, PICTURE_COLUMNS
    with _folder(keep) as folder:
        ok = terminal.run(_Demo(folder, short=picture is not None, console=console).run(), *INTERRUPTS)
    if picture:
        svg = terminal.out.export_svg(title="make demo")
        picture.write_text(
            re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
        )  # it would be fetched from another site
    raise typer.Exit(terminal.DONE if ok else terminal.NO)


def _require_place(picture: Path) -> None:
    """Raises InvalidInput if the picture could not be written at the end."""
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
    def __init__(self, folder: Path, *, short: bool, console: bool) -> None:
        self._folder = folder
        self._console = console
        self._short = short
        self._received: list[Received] = []
        self._posts: Counter[str] = Counter()
        self._secrets: list[str] = []
        self._unshown: OSError | None = None
        """The error because of which nothing more can be printed."""
        self._is_quiet = False
        """Whether callbacks are neither shown nor kept any more."""

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
        lines = demo_file.lines()
        ports = {host: await receiver.listen("127.0.0.1") for host in demo_file.hosts(lines)}
        self._names = {port: host for host, port in ports.items()}
        async with wiring.store(settings, keep=True) as store:
            for name, (dialect, url) in demo_file.WORKSPACES.items():
                address = localised(url.encode(), ports).decode()
                made = await store.workspaces.add(
                    name, dialect, address, now_ms=await store.installation.now_ms()
                )
                self._secrets.append(made.secrets[0].text)
            _say("a private Redis, a Celery worker and the customers' receivers are starting")
            _say(
                "the backoff is shortened by settings: "
                + " ".join(f"{PREFIX}{k}={v}" for k, v in SHORTENED.items())
            )
            with self._quiet_once_interrupted(), running(self._folder, "worker") as process:
                local = [localised(line, ports) for line in lines]
                queued = await _enqueue(store, local)
                _say(
                    f"{len(queued)} lines of {_shown_path(demo_file.FILE)} are on the queue; callbacks as they arrive:\n"
                )
                terminal.out.print(
                    _row("event type", "message", "attempt", "answer", "signature", "receiver"), style="bold"
                )
                await self._settled(store, len(queued), process)
                account = await account_of(store, queued, self._received)
                if self._console:
                    is_whole = _summary(account)
                    self._is_quiet = True
                    await demo_console.show(self._folder, store, local, process)
                    return is_whole
        if self._short:
            terminal.out.record = True
            terminal.out.print("  …")
        return _summary(account)

    @contextmanager
    def _quiet_once_interrupted(self) -> Iterator[None]:
        """Shows no more callbacks after Ctrl-C."""
        try:
            yield
        except asyncio.CancelledError:
            self._is_quiet = True
            raise

    async def _settled(self, store: wiring.Store, lines: int, process: Process) -> None:
        """Waits until every line has ended, or for DEADLINE_SECONDS."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if self._unshown:
                raise self._unshown
            c = await store.stats.day(await store.installation.now_ms())
            taken = c["accepted"] + c["duplicate"] + c["noCallback"] + c["rejected"]
            if taken >= lines and c["delivered"] + c["failed"] + c["expired"] >= c["accepted"]:
                return
            await asyncio.sleep(0.1)
        require_running(process, self._folder, "worker")

    async def _answer(self, request: web.Request, number: int) -> web.Response:
        """How each customer behaves, by host name."""
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
        if self._is_quiet:
            return
        self._received.append(received)
        if self._unshown:
            return
        if self._short:
            terminal.out.record = len(self._received) <= PICTURE_ROWS
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
            terminal.out.print(_row(*cells), style="" if received.status < 300 else "yellow")
        except OSError as error:  # must end the demo, not the worker's request
            self._unshown = self._unshown or error


def _row(event_type: str, message: str, number: str, answer: str, verdict: str, host: str) -> Text:
    """One line, or two if the terminal is too narrow."""
    first = f"  {event_type:<22} {message:<37} {number:>7}"
    apart = "  " if terminal.out.width >= PICTURE_COLUMNS else "\n      "
    return Text(f"{first}{apart}{answer:<25} {verdict:<13} {host}", no_wrap=True)


def _shown_path(path: Path) -> str:
    """A path that can be opened from here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _say(text: str) -> None:
    terminal.out.print(text, markup=False)


def _take_settings(redis_url: str) -> None:
    """Replaces the environment's settings, meant for a real installation, by the demo's own."""
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


async def _enqueue(store: wiring.Store, lines: Sequence[bytes]) -> Queued:
    """Enqueues as a backend in any language would: by XADD, without validation."""
    pipe = store.client.pipeline(transaction=False)
    for line in lines:
        pipe.xadd(store.ledger.keys.events, {"event": line})
    return [(entry.decode(), line) for entry, line in zip(await pipe.execute(), lines, strict=True)]


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
    terminal.out.print()
    rows = terminal.out.render_lines(_table(account, notes))  # wrapped to the width, and padded to it
    terminal.out.print("\n".join("".join(part.text for part in row).rstrip() for row in rows))
    problems = list(account.problems())
    for problem in problems:
        _say(f"does not add up: {problem}")
    if not problems:
        _say("it adds up: each line has one end, and each delivered callback was received once and verified")
    return not problems


def _table(account: Account, notes: Mapping[str, str]) -> Table:
    """How many lines ended in which way, with a note on each; every rejected line has its own row."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    for name, count in account.parts.items():
        table.add_row(str(count), name, Text(notes.get(name, "")))
        for entry in reversed(account.rejected) if name == "rejected" else ():
            why = visible(f"{entry.reason}: {entry.detail}")
            table.add_row("", "", Text(why))
    table.add_row(str(account.lines), "lines")
    return table
