"""The text of the function library is the scripts' text, taken apart where its rules say."""

import re

import pytest

from dispatcher.store.functions import LUA_NAMES, NAMES, _statements, library
from dispatcher.store.script_text import fragment
from tests.lua_source import GLOBALS, parse, text_of, word
from tests.unit.test_lua import FILES


def plain(text: str) -> list[str]:
    """Its words, without comments."""
    return re.sub(r"--[^\n]*", "", text).split()


@pytest.mark.parametrize("name", FILES)
def test_what_begins_in_the_first_column(name: str) -> None:
    """Every statement begins there and nothing inside of one does: so lines tell the statements."""
    expected = [word(node) for node in parse(text_of(name)).named_children if node.type != "comment"]
    assert [plain(one) for one in expected] == [plain(one) for one in _statements(text_of(name))]


@pytest.mark.parametrize("name", FILES)
def test_constants_are_never_changed(name: str) -> None:
    """What is in capitals is made once in a library: no run may change what the next one finds."""
    text = re.sub(r"--.*", "", text_of(name))
    constants = set(re.findall(r"^local ([A-Z_]+) = \{", text, re.M)) if name.startswith("lib/") else set()
    assert [] == [one for one in constants if re.search(rf"\b{one}(\.\w+|\[[^\]]+\]) = |insert\({one}", text)]


def test_the_rules() -> None:
    """Functions and constants are defined once; what a run computes is set anew in each run."""
    _, text = library()
    assert "local function parse_entry(text)" in text
    assert "local SHORT = { delivered = 'd', d = 'delivered' }" in text
    assert text.count("\nlocal entries_and_bodies = {}\n") == 1
    assert text.count("\nif next(entries_and_bodies) then entries_and_bodies = {} end\n") == 1
    assert text.count("\nwords_of_entries, new_expiries, is_entry_left = {}, {}, false\n") == 1
    assert "'never'" not in text
    assert "local keeps_body\n" in text
    assert fragment("prologue") not in text


def test_names_of_lua() -> None:
    """What scripts use of Lua and Redis is local in the library, but for what a server may lack."""
    assert GLOBALS - {"KEYS", "ARGV", "cmsgpack"} == set(LUA_NAMES.split(", "))
    _, text = library()
    assert f"\nlocal {LUA_NAMES}\n" in text
    assert text.count("\nif not redis then look_up_names() end\n") == len(NAMES)


@pytest.mark.parametrize("name", FILES)
def test_private_parts_hold_no_state(name: str) -> None:
    """A `do` block is made once in a library: a variable in it would keep what one run wrote for the next one.

    But for a memo (`memo_…`): what it has does not depend on the run that wrote it.
    """
    kept, is_inside = [], False
    for line in text_of(name).splitlines():
        if re.match(r"do\b|end\b", line):
            is_inside = line.startswith("do")
        if is_inside and re.match(r"  local (?!function\b|memo_)", line):
            kept.append(line)
    assert [] == kept
