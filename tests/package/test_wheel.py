"""What is in the wheel, and how it lives beside other people's modules."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.stack import wait_until
from tests.package.conftest import ROOT, run, succeed

OTHERS = ("tasks", "config", "celery", "redis", "typer", "dispatcher", "secrets", "json")
SAY_WHERE = "import sys, {0}; print({0}.__file__)"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working directory whose modules have the names of ours, and of what we use."""
    for name in OTHERS:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the {name}.py of somebody else')\n")
    return tmp_path


def contents(wheel: Path) -> dict[str, bytes]:
    """Its files but the list of them."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def test_one_name_at_the_top(wheel: Path) -> None:
    """The wheel brings `dispatcher` and its own description, and nothing else."""
    name, version = wheel.name.split("-")[:2]
    assert {"dispatcher", f"{name}-{version}.dist-info"} == {
        path.partition("/")[0] for path in contents(wheel)
    }


def test_every_file_is_in_the_wheel(wheel: Path, checkout: Path) -> None:
    """Python, Lua and data of the three packages are in the wheel, each in its place; Prometheus's and Grafana's files are not."""
    listed = succeed("git", "ls-files", "dispatcher", "tasks", "config", cwd=checkout).split()
    wanted = {
        name if name.startswith("dispatcher/") else f"dispatcher/_worker/{name}"
        for name in listed
        if not name.startswith(("config/grafana/", "config/prometheus/"))
    }
    assert wanted == {name for name in contents(wheel) if name.startswith("dispatcher/")}


def test_the_sdist_builds_the_same_wheel(built: Path, wheel: Path, tmp_path: Path) -> None:
    """Who builds from the sdist gets the wheel that the checkout gives."""
    (sdist,) = built.glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    succeed(*pip, "--wheel-dir", tmp_path, sdist, cwd=tmp_path)
    assert contents(wheel) == contents(tmp_path / wheel.name)


@pytest.mark.parametrize("how", [(), ("--editable",)], ids=["copied", "editable"])
def test_pip_leaves_nothing_in_the_checkout(checkout: Path, builder: Path, how: tuple[str, ...]) -> None:
    """`pip install .` writes nothing into the checkout, ignored files included."""
    status = ("git", "status", "--porcelain", "--ignored")
    assert "" == succeed(*status, cwd=checkout)
    pip = (sys.executable, "-m", "pip", "--python", builder, "install", "--quiet")
    succeed(*pip, "--no-deps", "--no-build-isolation", "--no-index", *how, ".", cwd=checkout)
    assert "" == succeed(*status, cwd=checkout)
    assert builder.with_name("dispatcher").exists()


def test_tasks_and_config_are_free(everything: Path, tmp_path: Path) -> None:
    """Beside the wheel, `tasks` and `config` are the user's own, or nobody's."""
    for name in ("tasks", "config"):
        done = run(everything / "python", "-c", SAY_WHERE.format(name), cwd=tmp_path)
        assert f"No module named '{name}'" in done.stderr
        (tmp_path / f"{name}.py").touch()
        where = succeed(everything / "python", "-c", SAY_WHERE.format(name), cwd=tmp_path)
        assert f"{tmp_path / name}.py" == where.strip()


def test_a_producer_needs_no_extra(producer: Path, tmp_path: Path) -> None:
    """The wheel and its three dependencies are enough for `Dispatcher`, `StatusChange` and `verify`."""
    code = """
import sys
from datetime import UTC, datetime
from dispatcher import Dispatcher, Message, RedisUnavailable, StatusChange, verify
message = Message(uuid="m-1", src="ACME", dest="+233202007745")
change = StatusChange(workspace="acme", status="DELIVERED", timestamp=datetime.now(UTC), message=message)
try:
    Dispatcher.from_url("redis://127.0.0.1:1/0").enqueue(change)
except RedisUnavailable:
    print("enqueued as far as it goes")
"""
    assert "enqueued as far as it goes\n" == succeed(producer / "python", "-c", code, cwd=tmp_path)


@pytest.mark.parametrize(
    "command",
    [["bin"], ["-m", "dispatcher"], ["-m", "dispatcher", "worker"]],
    ids=["alone", "module", "worker"],
)
def test_without_the_extra_worker(producer: Path, tmp_path: Path, command: list[str]) -> None:
    """The command without its packages says in one line which extra it needs, and how to get it."""
    start = [producer / "dispatcher"] if command == ["bin"] else [producer / "python", *command]
    done = run(*start, cwd=tmp_path)
    assert (2, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n")), done.stderr
    assert done.stderr.startswith(
        "error: the command `dispatcher` needs the extra `worker` of this package: pip install"
    )


def test_demo_from_the_wheel(everything: Path, hostile: Path) -> None:
    """`dispatcher demo` runs where other people's `tasks.py`, `config.py` and more lie about, and writes nothing there."""
    before = sorted(hostile.iterdir())
    assert "it adds up" in succeed(everything / "dispatcher", "demo", cwd=hostile)
    assert before == sorted(hostile.iterdir())


@pytest.mark.parametrize("start", [["dispatcher"], ["python", "-P", "-m", "dispatcher"]], ids=" ".join)
def test_worker_from_the_wheel(everything: Path, hostile: Path, redis_url: str, start: list[str]) -> None:
    """`dispatcher worker` is our worker wherever it is started, and again after HUP."""
    log = hostile / "worker.log"
    env = os.environ | {"DISPATCHER_REDIS_URL": redis_url}
    env.pop("PYTHONPATH", None)
    with log.open("wb") as file:
        command = [str(everything / start[0]), *start[1:], "worker"]
        process = subprocess.Popen(
            command, cwd=hostile, env=env, stdout=file, stderr=file, start_new_session=True
        )
    try:
        for times in (1, 2):
            wait_until(
                lambda times=times: log.read_text().count(" ready.") == times, what=f"ready {times} times"
            )  # type: ignore[misc]
            process.send_signal(signal.SIGHUP if times == 1 else signal.SIGTERM)
        assert 0 == process.wait(30)
    finally:
        process.kill()
        process.wait()
    assert "somebody else" not in log.read_text()


def test_api_from_the_wheel(everything: Path, hostile: Path, redis_url: str) -> None:
    """Each process of `dispatcher api --workers 2` finds our modules."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = os.environ | {"DISPATCHER_REDIS_URL": redis_url}
    env.pop("PYTHONPATH", None)
    log = hostile / "api.log"
    with log.open("wb") as file:
        command = [everything / "dispatcher", "api", "--workers", "2", "--port", str(port)]
        process = subprocess.Popen(
            command, cwd=hostile, env=env, stdout=file, stderr=file, start_new_session=True
        )
    try:
        wait_until(lambda: log.read_text().count("Application startup complete") == 2, what="two processes")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json") as answer:
            assert 200 == answer.status
        process.terminate()
        assert 0 == process.wait(30)
    finally:
        process.kill()
        process.wait()


def test_the_image_has_celery_s_command(everything: Path, tmp_path: Path) -> None:
    """With the image's PYTHONPATH, `celery -A tasks` finds our application in the wheel."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    linked = re.search(r"ln -s /venv/(lib/python3\.\*/site-packages/dispatcher/_worker) (/\S+)", dockerfile)
    assert linked
    assert f"ENV PYTHONPATH={linked[2]}\n" in dockerfile
    (folder,) = everything.parent.glob(linked[1])
    out = succeed(
        everything / "python", "-m", "celery", "-A", "tasks", "report", cwd=tmp_path, PYTHONPATH=str(folder)
    )
    assert "global_keyprefix" in out


def test_celery_s_command_in_a_checkout(everything: Path, checkout: Path) -> None:
    """In a checkout whose package was installed as a copy, Celery's own program finds our application.

    It has the working directory on its path for the import of `tasks` only, unlike `python -m celery`.
    """
    start = "import sys; from celery.__main__ import main; sys.path.pop(0); sys.exit(main())"
    out = succeed(everything / "python", "-c", start, "-A", "tasks", "report", cwd=checkout)
    assert "global_keyprefix" in out
