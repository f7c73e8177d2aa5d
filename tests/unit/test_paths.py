"""Every file and module that the pages name is there, so that nobody looks for one that has moved."""

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.split()
PAGES = [name for name in FILES if name.endswith(".md") and not name.startswith("examples/")]
SOURCES = [name for name in FILES if re.match(r"(dispatcher|tasks|config)/.*\.(py|lua)$|Makefile$", name)]
NAMED = re.compile(r"(?<![\w/.*{<>-])((?:[\w.-]+/)*[\w-]+\.(?:py|lua))\b")
MODULE = re.compile(r"\bdispatcher\.(?:rules|store|sending|worker|api)\.[a-z_.]+\b")
ELSEWHERE = {"__main__.py", "app.py", "config.py", "receiver.py", "tasks.py"}
"""Names of a reader's own files, and one that every package has."""


def is_there(name: str) -> bool:
    """Whether exactly one file has this path, or this end of a path."""
    return name in FILES or len([one for one in FILES if one.endswith(f"/{name}")]) == 1


@pytest.mark.parametrize("page", PAGES + SOURCES)
def test_files_that_are_named_exist(page: str) -> None:
    """A path, or a file's name alone where only one file has it."""
    text = (ROOT / page).read_text()
    assert [] == sorted(
        {name for name in NAMED.findall(text) if name not in ELSEWHERE and not is_there(name)}
    )


@pytest.mark.parametrize("page", PAGES)
def test_modules_that_are_named_exist(page: str) -> None:
    """A dotted name of one of our modules."""
    text = (ROOT / page).read_text()
    assert [] == [name for name in MODULE.findall(text) if find_spec(name.rstrip(".")) is None]
