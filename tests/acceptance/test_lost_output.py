"""What the API, the exporter and commands do where their output cannot be written."""

import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.acceptance.outputs import BAD_OUTPUTS, full_device, reader_gone
from tests.acceptance.stack import CLI, Stack, free_port, wait_until
from tests.acceptance.test_metrics import scrape

Output = Callable[[], AbstractContextManager[int]]
UVICORN = (sys.executable, "-m", "uvicorn", "tasks.asgi:app")


def answers(port: int) -> int:
    """The status that a wrong path gets; 0 while nobody listens."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/nothing?a=1", timeout=30)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
    return 200


@pytest.mark.parametrize("output", BAD_OUTPUTS)
@pytest.mark.parametrize(
    "command",
    [(*CLI, "api"), (*CLI, "api", "--workers", "2"), UVICORN],
    ids=["dispatcher api", "two processes", "uvicorn"],
)
def test_api(stack: Stack, output: Output, command: tuple[str, ...]) -> None:
    """The API answers, and ends when it is told to, though nothing it says can be written."""
    port = free_port()
    with output() as descriptor:
        server = stack.start_worker(*command, "--port", str(port), output=descriptor)
        wait_until(lambda: answers(port), what="API up")
        assert [404] * 20 == [answers(port) for _ in range(20)]
        assert server.terminate() in (0, -15)


@pytest.mark.parametrize("output", BAD_OUTPUTS)
def test_exporter_and_workers_metrics(stack: Stack, output: Output) -> None:
    """Figures are shown, though nothing can be written; a worker's say how many lines were lost."""
    port, worker_port = free_port(), free_port()
    with output() as descriptor:
        stack.start_worker(*CLI, "exporter", "--port", str(port), output=descriptor)
        stack.start_worker(output=descriptor, DISPATCHER_METRICS_PORT=str(worker_port))
        wait_until(lambda: up(port), what="the exporter")
        wait_until(lambda: up(worker_port), what="a worker's figures")
        assert 1 == scrape(port)["dispatcher_redis_up"]
        if output is full_device:
            assert scrape(worker_port)["dispatcher_log_lines_lost_total"] > 0


def up(port: int) -> bool:
    """Whether figures are shown there."""
    try:
        return bool(scrape(port))
    except OSError:
        return False


def run(stack: Stack, *command: str, **streams: int) -> "subprocess.CompletedProcess[str]":
    """A command of `dispatcher` with streams of its own."""
    kept = {name: subprocess.PIPE for name in ("stdout", "stderr") if name not in streams}
    return subprocess.run(
        [*CLI, *command],
        cwd=stack.folder,
        env=stack.environment,
        text=True,
        timeout=60,
        check=False,
        **streams,
        **kept,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("output", BAD_OUTPUTS)
def test_command_whose_errors_cannot_be_written(stack: Stack, output: Output) -> None:
    """A command does its work and shows its output, though its standard error cannot be written."""
    with output() as descriptor:
        made = run(stack, "workspace", "add", "acme", "--dialect", "qlara", "--json", stderr=descriptor)
        unknown = run(stack, "workspace", "show", "nobody", stderr=descriptor)
    assert (0, True) == (made.returncode, made.stdout.startswith("{"))
    assert (1, "") == (unknown.returncode, unknown.stdout)


@pytest.mark.parametrize("command", [("config",), ("check", "--json"), ("--version",), ()])
def test_command_whose_output_cannot_be_written(stack: Stack, command: tuple[str, ...]) -> None:
    """A command whose output meets a full disk says so in one line, and its exit code is 1."""
    with full_device() as descriptor:
        done = run(stack, *command, stdout=descriptor)
    assert (1, ["error: [Errno 28] No space left on device"]) == (done.returncode, done.stderr.splitlines())


STORED = "{0} is stored, but its secret could not be shown ({why}): `dispatcher {1} rotate-secret {2}` gives it another"
MADE = "API key … is made, but its secret could not be shown ({why}): `dispatcher {0} revoke {1}…` revokes it, then add another"
SHOWN_ONCE = {
    "workspace add acme --dialect qlara": STORED.format("workspace acme", "workspace", "acme", why="{why}"),
    "workspace rotate-secret acme --json": STORED.format("workspace acme", "workspace", "acme", why="{why}"),
    "subscription add acme crm --callback-url https://crm.example/": STORED.format(
        "subscription crm of workspace acme", "subscription", "acme crm", why="{why}"
    ),
    "workspace api-key add acme": MADE.format("workspace api-key", "acme ", why="{why}"),
    "producer-key add billing --json": MADE.format("producer-key", "", why="{why}"),
    "console-key add jane --role viewer": MADE.format("console-key", "", why="{why}"),
}
"""What makes a secret that is shown only once, and what is said where that cannot be."""


@pytest.mark.parametrize(
    ("output", "why"),
    [(full_device, "No space left on device"), (reader_gone, "Broken pipe")],
    ids=["full", "no reader"],
)
def test_a_secret_that_cannot_be_shown(stack: Stack, output: Output, why: str) -> None:
    """A command that has made something says so, and how to get another secret, where the secret could not be written."""
    for command, said in SHOWN_ONCE.items():
        with output() as descriptor:
            done = run(stack, *command.split(), stdout=descriptor)
        [line] = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        pattern = re.escape(f"error: {said.format(why=why)}").replace("…", ".*")
        assert (1, True) == (done.returncode, bool(re.fullmatch(pattern, line))), line


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_command_with_closed_streams(stack: Stack, closed: str) -> None:
    """A command that begins with its streams closed does its work."""
    line = f"{' '.join(CLI)} workspace add acme --dialect qlara {closed}"
    done = subprocess.run(
        ["sh", "-c", line], cwd=stack.folder, env=stack.environment, timeout=60, check=False
    )
    assert (0, True) == (done.returncode, bool(stack.redis.exists("dispatcher:workspace:acme")))
