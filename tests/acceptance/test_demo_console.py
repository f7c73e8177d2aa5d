"""`dispatcher demo --console`: the console on the demo's data, until Ctrl-C."""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from dispatcher import StatusChange
from tasks import demo_console, demo_file
from tests.acceptance.stack import CLI, wait_until
from tests.acceptance.test_command_line import processes_in, run
from tests.console.world import ask, get

LINK = re.compile(r"(http://127\.0\.0\.1:(\d+))/login#token=(\S+)")


class Demo:
    """A demo that runs, and what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        env = os.environ | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
        with self.out.open("wb") as out:
            self.process = subprocess.Popen([*CLI, "demo", "--console"], env=env, stdout=out, stderr=out)

    def link(self) -> re.Match[str]:
        """The link, once it is printed."""
        wait_until(lambda: "Ctrl-C ends all" in self.said or self.process.poll() is not None, 90, "the link")
        found = LINK.search(self.said)
        assert found, self.said
        return found

    @property
    def said(self) -> str:
        """All its output."""
        return self.out.read_text()

    def is_gone(self) -> bool:
        """Whether it left neither a file nor a process."""
        return ["out"] == [path.name for path in self.folder.iterdir()] and not processes_in(self.folder)


BELOW = """import signal, subprocess, sys
signal.signal(signal.SIGHUP, lambda *_: None)
sys.exit(subprocess.Popen(sys.argv[1:]).wait())"""
"""Leads the terminal's session and waits for its child, as `make` does: it alone gets the signal of a hang-up."""


def test_it_ends_with_its_terminal(tmp_path: Path) -> None:
    """Also where the signal goes to the program that started it; nothing is left."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ["TMPDIR"] = str(tmp_path)
        os.execv(sys.executable, [sys.executable, "-c", BELOW, *CLI, "demo", "--console"])
    said = b""
    while b"Ctrl-C ends all" not in said:
        said += os.read(terminal, 4096)
    os.close(terminal)
    wait_until(lambda: not list(tmp_path.iterdir()) and not processes_in(tmp_path), 60, "nothing is left")
    os.waitpid(process, 0)


@contextmanager
def running(folder: Path) -> Iterator[Demo]:
    """A demo with its console, which is ended at the latest with the block."""
    demo = Demo(folder)
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.process.send_signal(signal.SIGTERM)
        demo.process.wait(30)


def test_the_console_shows_the_demo(tmp_path: Path) -> None:
    """Its link logs in, its traffic is accepted and partly fails, and Ctrl-C ends and removes everything."""
    with running(tmp_path) as demo:
        url, _port, token = demo.link().groups()
        assert "it adds up" in demo.said
        status, headers, _text = ask("POST", f"{url}/login", {"key": token})
        assert 303 == status
        cookie = headers["set-cookie"].partition(";")[0]
        before = len(failed(url, cookie))
        wait_until(lambda: len(failed(url, cookie)) > before, 60, "a callback of the traffic failed")
        lines = demo.said
        demo.process.send_signal(signal.SIGINT)
        assert 130 == demo.process.wait(30)
        assert lines == demo.said, "the traffic is not printed, and the end says nothing"
    wait_until(demo.is_gone)


def failed(url: str, cookie: str) -> set[str]:
    """The callbacks that the console shows as failed."""
    status, _headers, text = get(f"{url}/callbacks?state=failed", Cookie=cookie)
    assert 200 == status
    return set(re.findall(r"/callback\?[^\"]+", text))


def test_two_interrupts(tmp_path: Path) -> None:
    """A second Ctrl-C while it ends changes nothing: everything is ended and removed."""
    with running(tmp_path) as demo:
        demo.link()
        demo.process.send_signal(signal.SIGINT)
        demo.process.send_signal(signal.SIGINT)
        assert 130 == demo.process.wait(30)
    wait_until(demo.is_gone)


def taken() -> socket.socket:
    """The console's usual port, taken as soon as nothing else on this machine has it."""
    found: list[socket.socket] = []

    def take() -> bool:
        with suppress(OSError):
            found.append(socket.create_server((demo_console.HOST, demo_console.PORT)))
        return bool(found)

    wait_until(take, 60, "the usual port is ours")
    return found[0]


def test_the_usual_port_is_taken(tmp_path: Path) -> None:
    """It takes another one, and its link has that."""
    with taken(), running(tmp_path) as demo:
        url, port, _token = demo.link().groups()
        assert str(demo_console.PORT) != port
        assert 200 == get(f"{url}/healthz")[0]
    wait_until(demo.is_gone)


def test_a_console_that_ends(tmp_path: Path) -> None:
    """The demo then ends too, with the end of the console's log, and leaves nothing."""
    with running(tmp_path) as demo:
        demo.link()
        (console,) = [one for one in children(demo.process.pid) if b"console" in command(one).split(b"\0")]
        os.kill(console, signal.SIGTERM)
        assert 1 == demo.process.wait(30)
        assert "error: the console ended with exit code" in demo.said
    wait_until(demo.is_gone)


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command(pid: int) -> bytes:
    """The arguments of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_picture_of_it(tmp_path: Path) -> None:
    """A picture shows a run that ends, so both together are refused before anything starts."""
    done = run("demo", "--console", "--picture", str(tmp_path / "demo.svg"))
    assert (2, True) == (done.returncode, "give either --picture or --console" in done.stderr)


def test_traffic_is_what_intake_takes() -> None:
    """Each status change of it is valid and of another message; some go to receivers that fail."""
    count = 48
    lines = demo_file.lines()
    ports = {host: number for number, host in enumerate(demo_file.hosts(lines), 1)}
    local = [demo_file.localised(line, ports) for line in lines]
    changes = [StatusChange.from_json(one) for one in islice(demo_console.traffic(local), count)]
    assert count == len({change.message.uuid for change in changes})
    old = ports["old.acme.example"]
    assert 0 < sum(f":{old}/" in (change.callback_url or "") for change in changes) < count / 4
