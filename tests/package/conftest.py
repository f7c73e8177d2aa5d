"""The distribution as its users get it: built from a copy of this checkout, installed by pip into environments of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_path("purelib"))
"""What is installed beside the tests."""


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end as a user would, without this checkout in reach."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def succeed(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Its standard output; the test fails where the program does."""
    done = run(*command, cwd=cwd, **environment)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with what would be committed of this one."""
    copy = tmp_path_factory.mktemp("checkout")
    if not (ROOT / ".git").exists():
        pytest.skip("not in a git checkout")
    listed = succeed("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.com")
    succeed(*git, "init", "--quiet", cwd=copy)
    succeed(*git, "add", "--all", cwd=copy)
    succeed(*git, "commit", "--quiet", "--message", "all", cwd=copy)
    return copy


@pytest.fixture(scope="session")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    succeed(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=checkout)
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    """The wheel."""
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def everything(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of an environment with the wheel, and with all that is installed beside the tests."""
    environment = _environment(tmp_path_factory.mktemp("everything"), wheel)
    (_site(environment) / "beside.pth").write_text(f"{SITE}\n")
    return environment / "bin"


@pytest.fixture(scope="session")
def producer(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of an environment with the wheel, and what it needs without an extra."""
    environment = _environment(tmp_path_factory.mktemp("producer"), wheel)
    _link(environment, _closure("callback-dispatcher"))
    return environment / "bin"


@pytest.fixture
def builder(tmp_path: Path) -> Path:
    """Python of an environment that can build, and has nothing else."""
    succeed(sys.executable, "-m", "venv", "--without-pip", tmp_path, cwd=tmp_path)
    _link(tmp_path, [distribution("hatchling"), *_closure("hatchling")])
    return tmp_path / "bin" / "python"


def _environment(folder: Path, wheel: Path) -> Path:
    succeed(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    succeed(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    return folder


def _site(environment: Path) -> Path:
    (found,) = environment.glob("lib/*/site-packages")
    return found


def _link(environment: Path, distributions: Iterable[Distribution]) -> None:
    """Puts what is installed beside the tests into another environment, too."""
    for one in distributions:
        for top in {file.parts[0] for file in one.files or () if file.parts[0] not in ("..", "__pycache__")}:
            (_site(environment) / top).symlink_to(SITE / top)


def _closure(name: str) -> Iterator[Distribution]:
    """The distributions that one without an extra needs, and those that they need."""
    seen, todo = set(), [name]
    while todo:
        for text in distribution(todo.pop()).requires or ():
            wanted = Requirement(text)
            if wanted.name not in seen and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
                seen.add(wanted.name)
                todo.append(wanted.name)
                yield distribution(wanted.name)
