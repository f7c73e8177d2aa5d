"""`make demo` and `make test` install what they need, or say in one line why they cannot."""

import hashlib
import os
import runpy
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.stack import wait_until
from tests.package.conftest import ROOT, run, succeed

BACKEND = '''
"""Builds what `pip install -e .` asks for, without a package from anywhere."""

import os
import time
import zipfile


def build_editable(folder, config_settings=None, metadata_directory=None):
    while os.path.exists("hold"):
        time.sleep(0.05)
    with zipfile.ZipFile(f"{folder}/project-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("project-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: project\\nVersion: 1\\n")
        wheel.writestr("project-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("project-1.dist-info/RECORD", "")
    return "project-1-py3-none-any.whl"


build_wheel = build_editable
'''
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
ERROR = "install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=/path/to/python3.12"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project with our installer: its demo needs the package `one`, its tests `two` as well."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / ".ci", root / ".ci", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Makefile", root)
    (root / "backend.py").write_text(BACKEND)
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "wheels").mkdir()
    for kind, names in {"demo": ["one"], "dev": ["one", "two"]}.items():
        (root / f"requirements-{kind}.txt").write_text(
            "".join(_pinned(root / "wheels", name) for name in names)
        )
    return root


def _pinned(folder: Path, name: str) -> str:
    """Makes a wheel with one module; the line that asks for it, with its hash."""
    path = folder / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in {
            f"{name}.py": "",
            f"{name}-1.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n",
            f"{name}-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{name}-1.dist-info/RECORD": "",
        }.items():
            wheel.writestr(zipfile.ZipInfo(file), text)
    return f"{name}==1 \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def environment(project: Path) -> dict[str, str]:
    """pip finds packages in the project's folder of wheels, and nowhere else."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(project / "wheels"), "PYTHON": sys.executable}


def install(project: Path, kind: str, **more: str) -> str:
    """What the installer says."""
    return succeed(project / ".ci" / "install", kind, cwd=project, **(environment(project) | more))


def program(path: Path, text: str) -> Path:
    """A program of a shell's lines."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no such command"),
        (
            'echo "pyenv: version 3.99 is not installed"; echo more; exit 1',
            "pyenv: version 3.99 is not installed",
        ),
        ("exit 127", "does not start"),
        (
            f'exec {sys.executable} -c "import sys; sys.version_info = (3, 10); $(echo "$2")"',
            "version 3.10 is too old",
        ),
    ],
    ids=["missing", "broken shim", "silent", "too old"],
)
def test_python_that_cannot_be_used(project: Path, text: str | None, says: str) -> None:
    """A Python that is not there, does not start or is too old ends `make demo` with one line that says what to do."""
    python = project / "python"
    if text:
        program(python, text)
    done = run("make", "--silent", "demo", cwd=project, PYTHON=str(python))
    assert (2, "") == (done.returncode, done.stdout)
    assert f"error: {python}: {says}; {ERROR}" == done.stderr.splitlines()[0]
    assert not (project / ".venv").exists()


def test_without_venv(project: Path) -> None:
    """Where Python lacks its module venv, one line says what to install."""
    folder = project / "without"
    succeed(sys.executable, "-m", "venv", "--without-pip", folder, cwd=project)
    (site,) = folder.glob("lib/*/site-packages")
    (site / "without.pth").write_text("import sys; sys.modules['venv'] = None\n")
    done = run(project / ".ci" / "install", "demo", cwd=project, PYTHON=str(folder / "bin" / "python"))
    package = "python{}.{}-venv".format(*sys.version_info)
    assert 1 == done.returncode
    assert done.stderr.startswith(f"error: {folder}/bin/python cannot make virtual environments; on Debian")
    assert done.stderr.endswith(f"apt-get install {package}\n")


def test_a_link(project: Path) -> None:
    """A .venv that is a link is refused, and what it leads to is left alone."""
    other = project / "other"
    other.mkdir()
    (other / "kept").touch()
    (project / ".venv").symlink_to(other)
    done = run("make", "--silent", "demo", cwd=project)
    assert f"error: .venv is a link to {other}; remove the link: rm .venv" == done.stderr.splitlines()[0]
    assert [other / "kept"] == list(other.iterdir())


def test_offline_then_again(project: Path) -> None:
    """Without the package index one line says so, and the next call installs all; then calls do nothing; tests complete it."""
    offline = {
        "PIP_NO_INDEX": "0",
        "PIP_FIND_LINKS": "",
        "PIP_INDEX_URL": "http://127.0.0.1:1",
        "PIP_RETRIES": "1",
    }
    done = run(project / ".ci" / "install", "demo", cwd=project, **(environment(project) | offline))
    assert (1, 1) == (done.returncode, done.stderr.count("\n")), done.stderr
    assert done.stderr.startswith("error: the package index cannot be reached")
    assert "installed in" in install(project, "demo")
    assert "" == install(project, "demo")
    assert ["one"] == modules(project)
    assert "installed in" in install(project, "dev")
    assert ["one", "two"] == modules(project)
    assert "" == install(project, "demo") + install(project, "dev")
    (project / "pyproject.toml").write_text(f"{PYPROJECT}\n# changed\n")
    assert "installed in" in install(project, "dev")


def test_killed_in_the_middle(project: Path) -> None:
    """An installation that was killed is done anew, not taken for whole; a call meanwhile waits for the one before."""
    (project / "hold").touch()
    started = [
        subprocess.Popen(
            [project / ".ci" / "install", "demo"],
            cwd=project,
            env=os.environ | environment(project),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for _ in range(2)
    ]
    wait_until(lambda: modules(project) == ["one"], what="one of them installs")
    assert [None, None] == [process.poll() for process in started]
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    (project / "hold").unlink()
    assert "installed in" in install(project, "demo")
    assert "" == install(project, "demo")


def test_a_copy(project: Path) -> None:
    """After `pip install .` there is a copy of the project in .venv, which no edit reaches: the next call links it again."""
    install(project, "demo")
    python = project / ".venv" / "bin" / "python"
    succeed(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", ".", cwd=project)
    assert "installed in" in install(project, "demo")
    assert "" == install(project, "demo")


def test_moved(project: Path) -> None:
    """A checkout that was moved gets a new environment, as the programs in the old one name the old place.

    Its Python is another one of the PATH where `python3` cannot be used.
    """
    install(project, "demo")
    moved = project.rename(project.with_name("moved"))
    folder = moved / "bin"
    folder.mkdir()
    program(folder / "python3", "echo broken; exit 1")
    (folder / "python3.13").symlink_to(sys.executable)
    path = os.pathsep.join([str(folder), "/usr/bin", "/bin"])
    assert "installed in" in install(moved, "demo", PATH=path, PYTHON="")


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "the disk is full",
        ),
        ("[Errno 13] Permission denied: '/x/.venv/lib'", "cannot be written to"),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "not the one that was tested",
        ),
        ("SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate", "PIP_CERT"),
        ("ProxyError('Cannot connect to proxy.', timeout('timed out'))", "cannot be reached"),
        ("ERROR: No matching distribution found for one==1", "lacks a package"),
    ],
)
def test_what_pip_says(said: str, means: str) -> None:
    """What pip says of disks, rights, hashes, certificates and networks becomes one line that says what to do."""
    found = runpy.run_path(str(ROOT / ".ci" / "install.py"))["meaning"](said)
    assert (1, True) == (len(found.splitlines()), means in found)


def modules(project: Path) -> list[str]:
    """The packages of the project's requirements that are installed."""
    return sorted(
        path.stem for path in project.glob(".venv/lib/*/site-packages/*.py") if path.stem in ("one", "two")
    )
