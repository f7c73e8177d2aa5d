"""How the command line starts: what it loads, and what Ctrl-C does meanwhile."""

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import cli, lazy

NOWHERE = {"DISPATCHER_REDIS_URL": "redis://127.0.0.1:1/0"}
ALL_BUT_TYPER = {
    *(
        "rich",
        "redis",
        "structlog",
        "celery",
        "kombu",
        "aiohttp",
        "httpx",
        "fastapi",
        "uvicorn",
        "uvloop",
    ),
    *("cryptography", "dispatcher", "prometheus_client", "asyncio", "msgspec", "tenacity", "config.settings"),
}
SENDING = {
    *(
        "celery",
        "aiohttp",
        "aiodns",
        "httpx",
        "fastapi",
        "starlette",
        "uvicorn",
        "uvloop",
        "prometheus_client",
    ),
    *("tenacity", "dispatcher.worker.engine", "dispatcher.sending.transport", "tasks.worker"),
}


def loaded_by(folder: Path, *args: str) -> set[str]:
    """The modules that are loaded when a command has ended."""
    path = folder / "modules"
    code = (
        f"import atexit, sys; atexit.register(lambda: open({str(path)!r}, 'w').write(' '.join(sys.modules))); "
        f"sys.argv = ['dispatcher', *{args!r}]; from tasks.__main__ import main; main()"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ | NOWHERE, capture_output=True, check=False)
    return set(path.read_text().split())


@pytest.mark.parametrize("args", [["--help"], [], ["event"], ["even"], ["--no-such-option"]])
def test_help_loads_nothing_but_typer(tmp_path: Path, args: list[str]) -> None:
    """Help, and what is wrong with what was said, need the names of commands alone."""
    forbidden = SENDING if args == ["event"] else ALL_BUT_TYPER
    assert set() == forbidden & loaded_by(tmp_path, *args)


@pytest.mark.parametrize(
    ("args", "forbidden"),
    [
        (["event", "show", "e1", "--workspace", "acme"], SENDING | {"kombu", "cryptography.fernet"}),
        (["event", "list", "--message", "m1"], SENDING | {"kombu"}),
        (["stats"], SENDING | {"kombu"}),
        (["workspace", "list"], SENDING | {"kombu"}),
        (["audit", "list"], SENDING | {"kombu"}),
        (["rejected", "list"], SENDING | {"kombu"}),
        (["config"], SENDING | {"kombu"}),
        (["check"], SENDING),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_asks_redis_loads_nothing_that_sends(
    tmp_path: Path, args: list[str], forbidden: set[str]
) -> None:
    """What a short command loads is what it needs: neither Celery, nor HTTP, nor the engine."""
    loaded = loaded_by(tmp_path, *args)
    assert "config.settings" in loaded
    assert set() == forbidden & loaded


@pytest.mark.parametrize("entry", cli.COMMANDS, ids=[entry.path for entry in cli.COMMANDS])
def test_the_table_says_what_the_help_says(entry: cli.Entry) -> None:
    """The one line of the table is the first line of the command's own help."""
    command = lazy.NotLoaded(entry.path)
    command.entry = entry
    assert entry.help == inspect.cleandoc(lazy.loaded(command).help or "").splitlines()[0]


def complete(words: str) -> list[str]:
    """What the shell would be offered behind these words."""
    env = os.environ | NOWHERE | {"_DISPATCHER_COMPLETE": "complete_bash", "COMP_WORDS": words}
    env["COMP_CWORD"] = str(len(words.split(" ")) - 1)
    code = "import sys; sys.argv = ['dispatcher']; from tasks.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("dispatcher ev", ["event"]),
        ("dispatcher event re", ["replay"]),
        ("dispatcher workspace api-key re", ["revoke"]),
        ("dispatcher event replay --ra", ["--rate"]),
        ("dispatcher event show --wi", ["--wide"]),
    ],
)
def test_completion(words: str, offered: list[str]) -> None:
    """Tab completes commands that are not loaded, those within groups, and options."""
    assert offered == complete(words)


@pytest.mark.parametrize(
    ("words", "near"), [("worksp", "workspace"), ("event replya", "replay"), ("sats", "stats")]
)
def test_typo(words: str, near: str) -> None:
    """A command that there is not is told with the nearest one, loaded or not."""
    done = subprocess.run(
        [sys.executable, "-m", "tasks", *words.split()],
        env=os.environ | NOWHERE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (2, 1, True) == (done.returncode, len(done.stderr.splitlines()), f"'{near}'" in done.stderr)


INTERRUPT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("--help", "typer"),
        ("event show e1 --workspace acme", "typer"),
        ("event show e1 --workspace acme", "dispatcher"),
        ("event show e1 --workspace acme", "redis.asyncio"),
        ("event show e1 --workspace acme", "structlog"),
        ("event show e1 --workspace acme", "tasks.wiring"),
        ("check", "kombu.connection"),
        ("tail", "dispatcher.worker.tail"),
        ("listen --workspace acme", "aiohttp"),
        ("demo", "tasks.redis_server"),
        ("worker", "config.settings"),
        ("worker", "celery"),
        ("worker", "tasks.app"),
        ("worker", "dispatcher.worker.engine"),
        ("exporter --port 0", "prometheus_client"),
        ("api --port 0", "rich.console"),
        ("api --port 0", "fastapi"),
        ("api --port 0", "uvicorn.supervisors"),
        ("api --port 0", "tasks.asgi"),
    ],
)
def test_ctrl_c_while_it_starts(tmp_path: Path, command: str, module: str) -> None:
    """Ctrl-C while a module is imported ends every command in silence, with exit code 130."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT)
    env = os.environ | NOWHERE | {"INTERRUPT_AT": module}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-m", "tasks", *command.split()],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (130, "") == (done.returncode, done.stdout)
    if module == "tasks.asgi":  # by then its server has begun, and says how it ends
        assert {"info", "warning"} >= {json.loads(line)["level"] for line in done.stderr.splitlines()}
    else:
        assert "" == done.stderr


def test_ctrl_c_that_is_ignored(tmp_path: Path) -> None:
    """What runs behind a shell ignores Ctrl-C, also while it starts."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT)
    env = os.environ | NOWHERE | {"INTERRUPT_AT": "structlog"}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-m", "tasks", "config", "--json"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert 0 == done.returncode
