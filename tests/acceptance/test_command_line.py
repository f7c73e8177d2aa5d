"""The command line as people and programs use it."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
from aiohttp import web

from tests.acceptance.stack import CLI, Stack, change, wait_until


def run(*args: str, stdin: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    """A command without any Redis."""
    env = os.environ | {"DISPATCHER_REDIS_URL": "redis://user:hush@127.0.0.1:1/0"} | environment
    return subprocess.run(
        [*CLI, *args], env=env, input=stdin, capture_output=True, text=True, timeout=180, check=False
    )


def test_bare_command() -> None:
    """`dispatcher` alone shows its commands and examples."""
    done = run()
    assert 0 == done.returncode
    assert all(word in done.stdout for word in ("demo", "worker", "enqueue", "Examples:", "Exit codes"))


@pytest.mark.parametrize("group", ["workspace", "event", "endpoint", "rejected", "purge", "producer-key"])
def test_bare_group(group: str) -> None:
    """A group of commands without one shows what there is, as no error."""
    done = run(group)
    assert (2, "Usage:") == (done.returncode, done.stderr.split()[0])
    assert "Commands:" in done.stderr


STARTS = [
    [*CLI, "config"],
    [*CLI, "worker"],
    [*CLI, "api"],
    [*CLI, "exporter"],
    [*CLI, "check"],
    [CLI[0], "-m", "celery", "-A", "tasks", "worker"],
    [CLI[0], "-m", "uvicorn", "tasks.asgi:app"],
]


@pytest.mark.parametrize("command", STARTS, ids=[" ".join(command[1:]) for command in STARTS])
def test_a_wrong_url_is_one_line_for_whatever_starts(command: list[str]) -> None:
    """A password that is not percent-encoded ends each of our programs with one line, which has no part of it."""
    env = os.environ | {"DISPATCHER_REDIS_URL": "redis://user:hush/hush@127.0.0.1:1/0"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)
    assert (True, 1, "") == (done.returncode > 0, len(done.stderr.splitlines()), done.stdout)
    assert "DISPATCHER_REDIS_URL: is no URL; write user name and password percent-encoded" in done.stderr
    assert "hush" not in done.stderr


@pytest.mark.parametrize(
    ("code", "args", "says"),
    [
        (2, ["worksp"], "Did you mean"),
        (2, ["enqueue"], "Missing argument"),
        (2, ["enqueue", "/nowhere.jsonl"], "No such file"),
        (2, ["listen"], "--secret or --workspace"),
        (2, ["listen", "--secret", "hush-hush"], "starts with whsec_"),
        (2, ["workspace", "update", "acme"], "say what to change"),
        (2, ["event", "show", "e1"], "--workspace"),
        (3, ["workspace", "list"], "redis://127.0.0.1:1/0 is not reachable"),
        (3, ["event", "show", "e1", "--workspace", "acme"], "Is it running"),
        (3, ["check"], "not reachable"),
        (3, ["check", "--live"], "not reachable"),
    ],
)
def test_errors_are_one_line(code: int, args: list[str], says: str) -> None:
    """An error is one line on standard error with an exit code of its own, and holds no secret."""
    done = run(*args)
    assert (code, 1, "") == (done.returncode, len(done.stderr.splitlines()), done.stdout)
    assert says in done.stderr
    assert "hush" not in done.stderr


def test_an_output_that_cannot_show_it() -> None:
    """A character that the encoding of standard output does not have is written as its number."""
    done = run(
        "config",
        DISPATCHER_DNS_SERVERS="",
        PYTHONIOENCODING="ascii:strict",
        DISPATCHER_CONSOLE_OIDC_CLIENT_ID="ä",
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert "\\xe4" in done.stdout


def test_enqueue_without_redis() -> None:
    """Enqueuing without Redis is an error of exit code 3 that says what is on the queue for certain."""
    done = run("enqueue", "-", stdin=json.dumps(change(1)))
    assert (3, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert "none is confirmed" in done.stderr


def test_wrong_settings() -> None:
    """A setting that cannot be is named in one line, for the command line and for Celery."""
    done = run("config", DISPATCHER_MAX_ATTEMPTS="0")
    assert (2, 1, True) == (
        done.returncode,
        len(done.stderr.splitlines()),
        "DISPATCHER_MAX_ATTEMPTS" in done.stderr,
    )
    done = run("worker", CELERY_BROKER_URL="redis://elsewhere", DISPATCHER_LOG_FORMAT="json")
    told = json.loads(done.stderr)
    assert (2, "error") == (done.returncode, told["level"])
    assert told["event"].startswith("error: CELERY_BROKER_URL")


def test_config() -> None:
    """`config` shows every setting without its secrets."""
    shown = json.loads(
        run("config", "--json", DISPATCHER_SECRET_KEYS="aHVzaGh1c2hodXNoaHVzaGh1c2hodXNoaHVzaGh1c2g=").stdout
    )
    assert ("redis://127.0.0.1:1/0", "********", 5) == (
        shown["DISPATCHER_REDIS_URL"],
        shown["DISPATCHER_SECRET_KEYS"],
        shown["DISPATCHER_MAX_ATTEMPTS"],
    )


def test_invalid_lines(stack: Stack) -> None:
    """Wrong lines are named by number and nothing is enqueued, unless they are to be skipped."""
    lines = "\n".join([json.dumps(change(1)), "", "{", json.dumps(change(2, status="ARRIVED"))])
    refused = stack.cli("enqueue", "-", stdin=lines)
    assert (2, 0) == (refused.returncode, stack.redis.xlen("dispatcher:events"))
    assert "line 3: not valid JSON" in refused.stderr
    assert "line 4: status: must be one of" in refused.stderr
    done = stack.cli_json("enqueue", "-", "--skip-invalid", stdin=lines)
    assert (1, [3, 4]) == (done["enqueued"], [skipped["line"] for skipped in done["skipped"]])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--dialect", "twilio", "--callback-url", "https://a.example/"], "unknown dialect 'twilio'"),
        (["--dialect", "zeckta", "--callback-url", "ftp://a.example/"], "must start with https://"),
        (["--dialect", "zeckta", "--callback-url", "https://u:p@a.example/"], "user name or password"),
        (
            ["--dialect", "zeckta", "--callback-url", "https://a.example/", "--secret", "x"],
            "starts with whsec_",
        ),
    ],
)
def test_wrong_workspaces(stack: Stack, options: list[str], says: str) -> None:
    """A workspace that cannot be is refused in one line, exit code 2, and not made."""
    done = stack.cli("workspace", "add", "acme", *options)
    assert (2, 1, True) == (done.returncode, len(done.stderr.splitlines()), says in done.stderr)
    assert [] == stack.cli_json("workspace", "list")


def test_workspace_commands(stack: Stack) -> None:
    """A workspace is made, shown without its secret, changed and removed."""
    stack.add_workspace("acme", "sendexa", "https://a.example/x")
    assert (
        1
        == stack.cli(
            "workspace", "add", "acme", "--dialect", "zeckta", "--callback-url", "https://a.b/"
        ).returncode
    )
    changed = stack.cli(
        "workspace", "update", "acme", "--callback-url", "https://b.example/", "--max-concurrency", "5"
    )
    assert 0 == changed.returncode
    shown = stack.cli("workspace", "show", "acme", "--json").stdout
    assert stack.secrets["acme"] not in shown
    document = json.loads(shown)
    assert ("https://b.example/", 5, "sendexa", 0) == (
        document["callbackUrl"],
        document["maxConcurrency"],
        document["dialect"],
        document["waiting"],
    )
    assert 0 == stack.cli("workspace", "remove", "acme").returncode
    assert 1 == stack.cli("workspace", "show", "acme").returncode


def test_unknown_event(stack: Stack) -> None:
    """An eventId the ledger does not have: exit code 1, and the two possible reasons."""
    stack.add_workspace()
    done = stack.cli("event", "show", "e1", "--workspace", "acme", "--json")
    assert (1, "") == (done.returncode, done.stdout)
    assert "never accepted" in done.stderr
    assert "retention is over" in done.stderr


def test_listen(stack: Stack) -> None:
    """`listen` verifies and prints what comes, one JSON document a line."""
    secret = "whsec_" + "QUJD" * 10
    log = stack.folder / "listen.log"
    command = [*CLI, "listen", "--port", "0", "--json"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=stack.folder,
            env=stack.environment | {"LISTEN_SECRET": secret},
            stdout=file,
            stderr=file,
        )
    try:
        line = wait_until(lambda: [x for x in log.read_text().splitlines() if "listening on" in x])[0]
        url = line.split()[2]
        stack.add_workspace("acme", "zeckta", url, "--secret", secret)
        stack.start_worker().wait_ready()
        (event_id,) = stack.enqueue()
        stack.wait_ended([event_id])
        (document,) = [json.loads(x) for x in log.read_text().splitlines() if x.startswith("{")]
        assert (event_id, True, 200) == (document["eventId"], document["verified"], document["answered"])
    finally:
        process.terminate()
        process.wait(30)


def test_demo(tmp_path: Path) -> None:
    """The demo adds up, and leaves nothing behind."""
    done = run("demo", TMPDIR=str(tmp_path))
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "it adds up" in done.stdout
    assert [] == [line for line in done.stdout.splitlines() if line != line.rstrip()]
    (named,) = re.findall(r"lines of (\S+) are on the queue", done.stdout)
    assert Path(named).is_file()
    assert [] == list(tmp_path.iterdir())
    assert [] == processes_in(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_interrupted(tmp_path: Path, number: int) -> None:
    """Ctrl-C in the middle of the demo stops and removes everything."""
    env = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with (tmp_path / "out").open("w+b") as out:
        process = subprocess.Popen([*CLI, "demo"], env=env, stdout=out, stderr=out)
        wait_until(lambda: b"MESSAGE_" in (tmp_path / "out").read_bytes(), 120)
        process.send_signal(number)
        assert 130 == process.wait(30)
    assert ["out"] == [path.name for path in tmp_path.iterdir()]
    wait_until(lambda: not processes_in(tmp_path))


def processes_in(folder: Path) -> list[str]:
    """Command lines of processes that mention a folder or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if str(folder) in command or str(folder) in os.readlink(process / "cwd"):
                found.append(command)
        except OSError:
            continue
    return found


def test_terminal_is_safe(stack: Stack) -> None:
    """What a customer's server or a status change says cannot play with the operator's terminal."""

    async def answer(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=410, text="\x1b[2Jgone")

    stack.answer = answer
    stack.add_workspace()
    stack.start_worker().wait_ready()
    stack.redis.xadd("dispatcher:events", {"event": json.dumps(change(1) | {"\x1b[31m": 1})})
    (event_id,) = stack.enqueue()
    stack.wait_ended([event_id])
    shown = stack.cli("event", "show", event_id, "--workspace", "acme").stdout
    shown += stack.cli("rejected", "list").stdout
    assert ("\\x1b[2Jgone" in shown, "\\x1b[31m" in shown, "\x1b" in shown) == (True, True, False)


def test_check_without_a_worker(stack: Stack) -> None:
    """Without a worker `check` is bad, exit code 1; whatever is not well says what to do."""
    done = stack.cli("check", "--json")
    found = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert (1, "bad", "start one: dispatcher worker") == (
        done.returncode,
        found["workers"]["verdict"],
        found["workers"]["advice"],
    )
    assert [] == [one for one in found.values() if one["verdict"] != "ok" and not one["advice"]]
    stack.start_worker().wait_ready()
    wait_until(lambda: stack.cli("check").returncode == 0, what="the worker's heartbeat")


@pytest.mark.parametrize(
    "command", ["config", "check", "worker", "api", "exporter", "event list --message m1", "tail"]
)
def test_a_misspelt_setting(tmp_path: Path, command: str) -> None:
    """A setting that nobody reads stops every command, in the environment and in .env, with the name that was meant."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for where, changed in (("the environment", {"DISPATCHER_MAX_ATEMPTS": "3"}), (".env", {})):
        (tmp_path / ".env").write_text("" if changed else "DISPATCHER_MAX_ATEMPTS=3\n")
        done = subprocess.run(
            [*CLI, *command.split()],
            env=env | changed,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (2, "") == (done.returncode, done.stdout)
        says = f"DISPATCHER_MAX_ATEMPTS in {where} is no setting: did you mean DISPATCHER_MAX_ATTEMPTS?"
        assert f"error: {says}\n" == done.stderr


def test_exporter_at_any_port(stack: Stack) -> None:
    """With --port 0 the exporter says which port it has."""
    exporter = stack.start_worker(
        *CLI, "exporter", "--port", "0", "--host", "127.0.0.1", DISPATCHER_LOG_FORMAT="console"
    )
    line = wait_until(
        lambda: [x for x in exporter.log.splitlines() if "metrics at" in x], what="the exporter"
    )[0]
    url = line.partition("metrics at ")[2].partition(";")[0]
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert b"dispatcher_redis_up 1" in answer.read()


@pytest.mark.parametrize("picture", ["/no/such/folder/x.svg", "/"])
def test_demo_that_could_not_be_drawn(picture: str) -> None:
    """A picture that could not be written at the end is refused at the start."""
    done = run("demo", "--picture", picture)
    assert (2, 1, "") == (done.returncode, len(done.stderr.splitlines()), done.stdout)
    assert f"cannot write {picture}" in done.stderr


def test_rotate_secret_says_how_long(stack: Stack) -> None:
    """How long the old secret goes on signing is said as people say it."""
    stack.add_workspace()
    assert "signs for 1 day more" in stack.cli("workspace", "rotate-secret", "acme").stdout
    assert (
        "signs for 1 h 30 min more"
        in stack.cli("workspace", "rotate-secret", "acme", "--grace-seconds", "5400").stdout
    )


def test_replay_says_when(stack: Stack) -> None:
    """Replaying many says what will happen, and over how long, before and afterwards."""

    async def answer(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=410)

    stack.answer = answer
    stack.add_workspace()
    stack.start_worker().wait_ready()
    assert {"failed": 5} == stack.wait_ended(stack.enqueue(5))
    many = ("event", "replay", "--state", "failed", "--rate", "0.1")
    assert (
        "nothing was done; with --yes 5 events are scheduled over 40 s, 0.1 a second"
        in stack.cli(*many).stdout
    )
    assert "5 events replayed: they are scheduled over 40 s, 0.1 a second" in stack.cli(*many, "--yes").stdout


def test_demo_whose_reader_has_enough(tmp_path: Path) -> None:
    """`dispatcher demo | head -1` ends by itself, and leaves nothing behind."""
    command = f"{shlex.join(CLI)} demo | head -1"
    done = subprocess.run(
        ["bash", "-c", command],
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert (1, "") == (len(done.stdout.splitlines()), done.stderr)
    assert [] == list(tmp_path.iterdir())
    assert [] == processes_in(tmp_path)


def test_what_is_not_accepted_yet(stack: Stack) -> None:
    """A search for a message says what is still on the queue; a tail of a workspace that is not there ends."""
    stack.add_workspace()
    stack.enqueue()
    shown = stack.cli("event", "list", "--message", "m0")
    assert (0, True) == (shown.returncode, "still on the queue: 1" in shown.stdout)
    assert 1 == stack.cli("tail", "--workspace", "nobody").returncode


@pytest.mark.parametrize(
    "command", ["api", "exporter", "listen --secret whsec_QUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJD"]
)
def test_a_port_that_is_taken(command: str) -> None:
    """Whatever listens says in one line that its port is taken, with the same exit code, at 127.0.0.1 unless told otherwise."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(*command.split(), "--port", str(port), DISPATCHER_LOG_FORMAT="console")
    assert 2 == done.returncode
    assert f"error: cannot listen at 127.0.0.1:{port}: Address already in use" == done.stderr.splitlines()[-1]
