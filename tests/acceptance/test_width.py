"""Every command on a terminal of 80 columns: no line is longer, and no id and no URL is broken."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tasks import cli, lazy, tables
from tests.acceptance.stack import Stack, change, running_stack, wait_until
from tests.acceptance.terminal import COLUMNS, Terminal

LONG = "acme-telecommunications-of-the-gold-coast-and-beyond-2026"
EVENT = "evt_9f1c2b7e-4d5a-4b7e-9a39-0d7a2a1f8f11-delivered-1781010297123"
MESSAGE = "77aa0c4e-6f2d-4d3a-9a39-0d7a2a1f8f11-0b6b0c4e-6f2d-4d3a"
URL = "https://callbacks.the-gold-coast-telecommunications-company.example:8443/hooks/v2/messages"
SUBSCRIPTION = "customer-relations-management"
ORIGIN = URL.partition("/hooks")[0]
COMMANDS = dict(lazy.commands())
GROUPS = sorted({path.rpartition(" ")[0] for path in COMMANDS})
SERVICES = {
    "worker": "ready.",
    "api --port 0": "",
    "console --port 0 --link": "",
    "exporter --port 0": "metrics at",
    f"listen --workspace {LONG} --port 0": "listening on",
    "tail": "watching",
}
"""What runs until Ctrl-C, and what it says once it runs."""
RUNS = {
    "demo": ["demo"],
    "enqueue": ["enqueue {file}", "enqueue /no/such/folder/with/a/rather/long/name/status-changes.jsonl"],
    "partition": [
        f"partition {LONG} --width 4",
        f"partition {LONG} --message {MESSAGE}",
        "partition --all",
        "partition",
    ],
    "workspace add": [
        f"workspace add {LONG}-new --dialect zeckta --callback-url {URL}",
        f"workspace add {LONG} --dialect zeckta --callback-url {URL}",
        f"workspace add {LONG}-2 --dialect zeckta --callback-url ftp://a.example/",
    ],
    "grow": ["grow", "grow --end --force"],
    "workspace list": ["workspace list"],
    "workspace show": [f"workspace show {LONG}", f"workspace show {LONG} --reveal"],
    "workspace update": [f"workspace update {LONG} --max-concurrency 7", f"workspace update {LONG}"],
    "workspace rotate-secret": [f"workspace rotate-secret {LONG}-new"],
    "workspace rotate-encryption": ["workspace rotate-encryption"],
    "workspace remove": [f"workspace remove {LONG}-new", f"workspace remove {LONG}"],
    "workspace ping": [f"workspace ping {LONG}"],
    "workspace api-key add": [f"workspace api-key add {LONG}"],
    "workspace api-key list": [f"workspace api-key list {LONG}"],
    "workspace api-key revoke": [f"workspace api-key revoke {LONG} key_nosuchkey"],
    "subscription add": [
        f"subscription add {LONG} {SUBSCRIPTION} --callback-url {URL}",
        f"subscription add {LONG} {SUBSCRIPTION} --callback-url {URL}",
        f"subscription add {LONG} new --callback-url {URL} --events DELIVERED",
    ],
    "subscription list": [f"subscription list {LONG}"],
    "subscription show": [f"subscription show {LONG} {SUBSCRIPTION}", f"subscription show {LONG} none"],
    "subscription update": [
        f"subscription update {LONG} {SUBSCRIPTION} --max-concurrency 7",
        f"subscription update {LONG} default",
    ],
    "subscription rotate-secret": [f"subscription rotate-secret {LONG} {SUBSCRIPTION}"],
    "subscription pause": [f"subscription pause {LONG} {SUBSCRIPTION}"],
    "subscription resume": [f"subscription resume {LONG} {SUBSCRIPTION}"],
    "subscription ping": [f"subscription ping {LONG} {SUBSCRIPTION}"],
    "subscription remove": [
        f"subscription remove {LONG} {SUBSCRIPTION}",
        f"subscription remove {LONG} default",
    ],
    "producer-key add": ["producer-key add billing-and-reconciliation-service"],
    "producer-key list": ["producer-key list"],
    "producer-key revoke": ["producer-key revoke key_nosuchkey"],
    "console-key add": [
        "console-key add jane-of-the-night-shift --role operator",
        "console-key add jane --role boss",
    ],
    "console-key list": ["console-key list"],
    "console-key revoke": ["console-key revoke key_nosuchkey"],
    "event show": [f"event show {EVENT} --workspace {LONG}", f"event show {EVENT}-none --workspace {LONG}"],
    "event list": [
        f"event list --message {MESSAGE}",
        "event list --state failed",
        "event list --state waiting",
    ],
    "event replay": [
        "event replay --state failed",
        "event replay --state failed --yes --rate 2",
        f"event replay {EVENT} --workspace {LONG}",
    ],
    "endpoint list": ["endpoint list"],
    "endpoint show": [f"endpoint show {LONG} {ORIGIN}"],
    "endpoint stop": [f"endpoint stop {LONG} {ORIGIN}", f"endpoint stop {LONG} https://nobody.example"],
    "endpoint retry": [
        f"endpoint retry {LONG} {ORIGIN}",
        f"endpoint retry {LONG}",
        "endpoint retry --state paused --yes",
    ],
    "endpoint ping": [f"endpoint ping {LONG} {ORIGIN}", f"endpoint ping {LONG} {URL}"],
    "endpoint resume": [f"endpoint resume {LONG} {ORIGIN}"],
    "endpoint pause": [f"endpoint pause {LONG} {ORIGIN}"],
    "rejected list": ["rejected list"],
    "rejected show": ["rejected show {entry}"],
    "rejected requeue": ["rejected requeue --all", "rejected requeue {entry}"],
    "purge waiting": [f"purge waiting --workspace {LONG} --endpoint {ORIGIN} --yes"],
    "purge ended": [f"purge ended --workspace {LONG} --state failed --yes"],
    "purge rejected": ["purge rejected --yes"],
    "erase phone": [f"erase phone {LONG} +233200000001 --dry-run"],
    "erase message": [
        f"erase message {LONG} {MESSAGE}-x --yes",
        f"erase message {LONG} {MESSAGE}-none --yes",
    ],
    "erase workspace": [f"erase workspace {LONG} --dry-run", f"erase workspace {LONG}-none"],
    "audit list": ["audit list"],
    "archive migrate": ["archive migrate"],
    "archive end": ["archive end"],
    "archiver": ["archiver"],
    "history": ["history --since 1h", "history --state arrived"],
    "stats": ["stats", "stats --by workspace", "stats --by endpoint", f"stats --workspace {LONG}"],
    "check": ["check", "check --live"],
    "config": ["config"],
}
"""Of each command, in the order in which they are run, at least one run; services are above."""


@pytest.fixture(scope="module")
def stand(server_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An installation with long names: callbacks that wait, that failed, and entries that were rejected."""

    async def answer(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=410, text="this customer moved away, and left no address behind " * 3)

    with running_stack(tmp_path_factory.mktemp("stand")) as stack:
        stack.answer = answer
        stack.add_workspace(LONG, "zeckta", URL)
        stack.cli("workspace", "api-key", "add", LONG)
        local = stack.listen()
        worker = stack.start_worker(DISPATCHER_BACKOFF_BASE_SECONDS="3600")
        worker.wait_ready()
        stack.enqueue(workspace=LONG, eventId=EVENT, message=_message(MESSAGE))
        stack.enqueue(
            workspace=LONG, eventId=f"{EVENT}-x", message=_message(f"{MESSAGE}-x"), callbackUrl=f"{local}/x"
        )
        stack.redis.xadd(
            "dispatcher:events", {"event": json.dumps(change(1, workspace=LONG, status="ARRIVED"))}
        )
        stack.redis.xadd("dispatcher:events", {"event": json.dumps(change(1, workspace=f"{LONG}-none"))})
        wait_until(lambda: stack.redis.xlen("dispatcher:rejected") == 2)
        wait_until(lambda: '"callback.attempted"' in worker.log)
        (stack.folder / "changes.jsonl").write_text(json.dumps(change(2, workspace=LONG)) + "\n")
        yield stack


def _message(uuid: str) -> dict[str, str]:
    return {"uuid": uuid, "src": "ACME", "dest": "+233200000001"}


def test_no_command_is_forgotten() -> None:
    """Every command that there is runs here: a new one fails this until it does."""
    services = {service.split()[0] for service in SERVICES}
    shown = {path for path, command in COMMANDS.items() if not command.hidden}
    assert set() == shown - set(RUNS) - services


def check(terminal: Terminal) -> None:
    """No line is wider than the terminal, unless it is one word; nothing that people copy is broken."""
    lines = terminal.lines
    assert [] == [line for line in lines if tables.width_of(line) > COLUMNS and len(line.split()) > 1]
    for whole in (LONG, EVENT, MESSAGE, ORIGIN):
        begun = [line for line in lines if whole[:24] in line]
        assert [] == [line for line in begun if whole not in line]
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize("path", ["", *GROUPS, *COMMANDS])
def test_help(stand: Stack, path: str) -> None:
    """Help fits, of every group and every command, hidden ones too."""
    terminal = Terminal(stand, *path.split(), "--help")
    assert 0 == terminal.wait()
    assert "Usage:" in terminal.text
    check(terminal)


@pytest.mark.parametrize("args", ["", "event", "worksp", "event shwo", "enqueue"])
def test_wrong_usage(stand: Stack, args: str) -> None:
    """What is wrong with a command is said in lines that fit."""
    terminal = Terminal(stand, *args.split())
    terminal.wait()
    check(terminal)


def test_times_have_their_distance(stand: Stack) -> None:
    """On a terminal times have their distance from now beside them; elsewhere, and with --json, they are as they are."""
    shown = ("event", "show", EVENT, "--workspace", LONG)
    terminal = Terminal(stand, *shown)
    terminal.wait()
    assert re.search(r"\d\d:\d\d:\d\dZ, (\d+ (s|min) ago|now)", terminal.text)
    assert " ago" not in stand.cli(*shown).stdout
    assert stand.cli_json(*shown)["acceptedAt"] in stand.cli(*shown).stdout


def test_wide(stand: Stack) -> None:
    """--wide, and an output that is no terminal, have a line for each row, however long."""
    terminal = Terminal(stand, "endpoint", "list", "--wide")
    terminal.wait()
    (line,) = [line for line in terminal.lines if ORIGIN in line]
    assert (True, True) == (LONG in line, len(line) > COLUMNS)
    (line,) = [line for line in stand.cli("endpoint", "list").stdout.splitlines() if ORIGIN in line]
    assert LONG in line


@pytest.mark.parametrize("args", [run for runs in RUNS.values() for run in runs])
def test_command(stand: Stack, args: str) -> None:
    """What a command shows of long names fits, and what people copy is whole."""
    entries = [fields[b"entry"].decode() for _, fields in stand.redis.xrange("dispatcher:rejected")]
    entry = entries[0] if entries else "0-0"
    terminal = Terminal(stand, *args.format(file=stand.folder / "changes.jsonl", entry=entry).split())
    assert terminal.wait() in (0, 1, 2)
    assert terminal.text.strip()
    check(terminal)


@pytest.mark.parametrize(
    "args",
    ["check", "check --live", "config", "stats", "partition --all", f"partition {LONG} --width 16", "grow"],
)
def test_many_partitions(stand: Stack, args: str) -> None:
    """With several servers, long URLs and 256 partitions all fits too."""
    links = [stand.folder / f"a-socket-with-a-long-name-beside-which-little-fits-{n}" for n in (1, 2)]
    for link in links:
        if not link.is_symlink():
            link.symlink_to(stand.server.url.removeprefix("unix://"))
    settings = {
        "DISPATCHER_REDIS_URL": " ".join(f"unix://{link}?db=3" for link in links),
        "DISPATCHER_PARTITIONS": "256",
        "DISPATCHER_BROKER_URL": f"unix://{links[0]}?db=5",
    }
    if args in ("config", "grow"):
        settings["DISPATCHER_PREVIOUS_REDIS_URL"] = f"unix://{links[0]}?db=6"
    terminal = Terminal(stand, *args.split(), **settings)
    assert terminal.wait() in (0, 1, 2)
    check(terminal)
    said = " ".join(terminal.text.split())
    if args == "stats":
        assert "256 without an owner: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 244 more" in said


@pytest.mark.parametrize("args", SERVICES)
def test_service(stand: Stack, args: str) -> None:
    """What runs until Ctrl-C fits too, and ends by it with exit code 130."""
    terminal = Terminal(stand, *args.split())
    wait_until(lambda: SERVICES[args] in terminal.text.replace("\n", " "), what=args)
    if args.startswith(("api", "console")):
        wait_until(lambda: "running on" in terminal.text, what=f"the server of {args}")
    terminal.process.send_signal(signal.SIGINT)
    assert 130 == terminal.wait()
    assert "Traceback" not in terminal.text
    if args.split()[0] not in ("worker", "api", "console"):  # their output is log lines
        check(terminal)


def test_the_demo_shows_whole_reasons(stand: Stack) -> None:
    """Why entries of the demo were rejected is shown to its end, however narrow the terminal is."""
    terminal = Terminal(stand, "demo")
    assert 0 == terminal.wait()
    assert "…" not in terminal.text
    assert "make it with" in " ".join(terminal.text.split())


@pytest.mark.parametrize("no_color", ["", "1"])
@pytest.mark.parametrize("args", ["api --port 0", "worker"])
def test_no_color(stand: Stack, args: str, no_color: str) -> None:
    """With NO_COLOR, unless it is empty, a service's log lines on a terminal are text alone; without it they are coloured."""
    says = {"worker": "ready.", "api --port 0": "running on"}[args]
    terminal = Terminal(stand, *args.split(), NO_COLOR=no_color)
    wait_until(lambda: says in terminal.text, what=args)
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait()
    assert bool(no_color) != terminal.has_escapes


@pytest.mark.parametrize("args", ["demo", "stats", "endpoint list", "config", "--help"])
def test_no_color_of_commands(stand: Stack, args: str) -> None:
    """With NO_COLOR a command's output has no colour; heads may be bold."""
    terminal = Terminal(stand, *args.split(), NO_COLOR="1")
    terminal.wait()
    assert not terminal.has_colors


def test_the_table_of_commands_is_complete() -> None:
    """Every file of tasks/commands is reached from the table of the command line, or by a command of it."""
    folder = Path(cli.__file__).parent / "commands"
    modules = {entry.where.partition(":")[0].rpartition(".")[2] for entry in cli.COMMANDS}
    assert {"__init__", "filters", "look_up", "moving", "subscription_certificate", "subscription_proof"} == {
        path.stem for path in folder.glob("*.py")
    } - modules


def test_enqueue_from_a_terminal(stand: Stack) -> None:
    """`dispatcher enqueue -` on a terminal says what it waits for."""
    terminal = Terminal(stand, "enqueue", "-")
    wait_until(lambda: "Ctrl-D" in terminal.text, what="what it waits for")
    terminal.process.send_signal(signal.SIGINT)
    assert 130 == terminal.wait()
