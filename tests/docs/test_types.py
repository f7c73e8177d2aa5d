"""Python in README and docs, and the producer's API, type-check against the package as a backend installs it."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USE = Path(__file__).with_name("use_of_the_producer.py")
"""What a backend may write, and what it may not."""
PYRIGHT = {
    "typeCheckingMode": "strict",
    "reportUnnecessaryTypeIgnoreComment": True,
    "enableTypeIgnoreComments": True,
}


def blocks() -> dict[str, str]:
    """Every Python block, by a name for its file."""
    found = {}
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for number, block in enumerate(
            re.findall(r"^```python\n(.*?)^```", document.read_text(), re.M | re.S)
        ):
            found[f"{document.stem.replace('-', '_').lower()}_{number}.py"] = block
    return found


@pytest.fixture(scope="module")
def project(pytestconfig: pytest.Config) -> Path:
    """A folder with the blocks, and an environment that has the package from its wheel; other packages are those of this one."""
    folder = Path(pytestconfig.cache.mkdir("types"))  # type: ignore[union-attr]  # kept: type checkers are fast the second time
    environment, code = folder / "venv", folder / "code"
    if not (environment / "pyvenv.cfg").exists():
        venv.create(environment)
    packages = next(environment.glob("lib/python*/site-packages"))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    for old in packages.glob("dispatcher*"):
        shutil.rmtree(old, ignore_errors=True)
    zipfile.ZipFile(wheel(folder)).extractall(packages)
    shutil.rmtree(code, ignore_errors=True)
    code.mkdir()
    for name, block in blocks().items():
        (code / name).write_text(block)
    shutil.copy(USE, code)
    (code / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    return folder


def wheel(folder: Path) -> Path:
    """The package's wheel, built from what git knows: building leaves its traces elsewhere."""
    source, built = folder / "source", folder / "wheel"
    for old in (source, built):
        shutil.rmtree(old, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in os.fsdecode(listed.stdout).split("\0"):
        if name.partition("/")[0] not in ("tests", "bench", "docs", "") and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        built,
        source,
    ]
    subprocess.run(command, check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    return next(built.glob("*.whl"))


def python(project: Path) -> str:
    return str(project / "venv" / "bin" / "python")


def test_there_are_blocks() -> None:
    """README and docs show Python."""
    assert {"readme_0.py", "status_change_0.py"} <= set(blocks())


def test_mypy(project: Path) -> None:
    """mypy --strict, without a plugin, has nothing to say."""
    options = ["--strict", "--config-file", os.devnull, "--cache-dir", str(project / "mypy")]
    command = [sys.executable, "-m", "mypy", *options, "--python-executable", python(project), "."]
    done = subprocess.run(
        command, cwd=project / "code", capture_output=True, text=True, env=plain_environment()
    )
    assert (0, "") == (done.returncode, "" if done.returncode == 0 else done.stdout + done.stderr)


def test_pyright(project: Path) -> None:
    """Pyright, as strict as it can be, has nothing to say."""
    program = shutil.which("basedpyright", path=Path(sys.executable).parent)
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("basedpyright is not installed")
    command = [program, "--pythonpath", python(project), "--level", "error"]
    done = subprocess.run(
        command, cwd=project / "code", capture_output=True, text=True, env=plain_environment()
    )
    assert (0, "") == (done.returncode, "" if done.returncode == 0 else done.stdout + done.stderr)


def plain_environment() -> dict[str, str]:
    """Without what would let a type checker find the checkout in place of the package."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
