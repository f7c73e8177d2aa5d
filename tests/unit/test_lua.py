"""Each script does what its header says it takes and returns; unchecked headers rot."""

import inspect
import re
from importlib.resources import files

import pytest

from dispatcher.store import ledger
from dispatcher.store.scripts import NAMES, source

FOLDER = files("dispatcher.store") / "lua"


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.lua").read_text()


def header_of(name: str) -> str:
    lines = text_of(name).splitlines()
    return "\n".join(
        line for line in lines[: next(i for i, x in enumerate(lines) if x.startswith("-- include"))]
    )


def test_every_file_is_a_script_or_included() -> None:
    """No Lua file lies about unused."""
    there = {file.name.removesuffix(".lua") for file in FOLDER.iterdir() if file.name.endswith(".lua")}
    included = {name for script in NAMES for name in re.findall(r"^-- include (\w+)", text_of(script), re.M)}
    assert set(NAMES) | included == there


@pytest.mark.parametrize("name", NAMES)
def test_header(name: str) -> None:
    """A header starts with the script's name, and names KEYS, ARGV, and what comes back."""
    header = header_of(name)
    assert header.startswith(f"-- {name}: ")
    assert "-- KEYS[1] prefix" in header
    assert "-- returns {" in header


@pytest.mark.parametrize("name", NAMES)
def test_arguments(name: str) -> None:
    """Every ARGV that the script uses by number is in its header, and the other way round."""
    described = set(re.findall(r"^-- ARGV\[(\d+)\]", header_of(name), re.M))
    used = set(re.findall(r"ARGV\[(\d+)\]", source(name).replace(header_of(name), "")))
    loops = re.search(r"for i = (\d+), #ARGV", source(name))
    after_last = {loops.group(1)} if loops else set()
    assert described == used - after_last
    assert described == {str(number) for number in range(1, len(described) + 1)}


@pytest.mark.parametrize("name", NAMES)
def test_returned_words(name: str) -> None:
    """Every word that a script returns first is in its header."""
    words = set(re.findall(r"\{ '(\w+)', now", text_of(name)))
    assert words
    assert words == set(re.findall(r"\{'(\w+)', now", header_of(name)))


@pytest.mark.parametrize("name", NAMES)
def test_one_method(name: str) -> None:
    """The ledger has one method of the script's name, and it runs that script."""
    assert f'self._run("{name}"' in inspect.getsource(getattr(ledger.Ledger, name)).replace(
        "\n            ", ""
    )


@pytest.mark.parametrize(
    "name", ["claim", "settle", "wake", "expire", "hurry", "lead", "leave", "retry", "stop"]
)
def test_first_command_when_full(name: str) -> None:
    """A script that must work when Redis is full starts with a write that needs no memory."""
    first = re.search(r"redis\.p?call\('(\w+)'", text_of(name))
    assert first
    assert "DEL" == first.group(1)
