"""The linter of the scripts: every name is known, used, and no other one's; and what it finds at all."""

import re

import pytest

from dispatcher.store.script_text import NAMES
from tests.lua_source import Names, lint, parse, part, places, text_of, walk, word


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    """A script reads and sets no global but Lua's and Redis's, uses all its locals, and shadows none."""
    problems, _ = lint(name)
    assert [] == problems


def test_no_name_of_a_file_is_unused() -> None:
    """What a file defines for others is used by some script."""
    unused: dict[str, str] = {}
    used: set[str] = set()
    for name in NAMES:
        where = places(name)
        for local in lint(name)[1]:
            place = where[local.line - 1]
            unused[place + local.name] = f"{place} {local.name} is not used"
            used |= {place + local.name} if local.is_read else set()
    assert [] == [text for place, text in unused.items() if place not in used]


FAULTS = {
    "foo()": "foo is no local, nor Lua's or Redis's",
    "local a = b.c return a": "b is no local, nor Lua's or Redis's",
    "local function f() return g() end local function g() return f() end g()": "g is no local, nor Lua's or Redis's",
    "function foo() end": "foo is no local: it would be a global",
    "foo = 1": "foo is no local: it would be a global",
    "local function f() bar = 1 end f()": "bar is no local: it would be a global",
    "if type(1) then local a = 1 end": "a is not used",
    "if type(1) then local a a = 1 end": "a is not used",
    "local function f(a) end f()": "a is not used",
    "for i = 1, 2 do end": "i is not used",
    "for _, v in pairs({}) do end": "v is not used",
    "local a = 1 local function f(a) return a end return f(a)": "a shadows another one",
    "local a = 1 if a then local a = 2 return a end": "a shadows another one",
    "local a = 1 local a = 2 return a": "a shadows another one",
    "local math = 1 return math": "math shadows another one",
}


@pytest.mark.parametrize("text", FAULTS)
def test_what_is_found(text: str) -> None:
    """Each kind of fault is found, once."""
    assert [FAULTS[text]] == [problem for _, problem in Names().read(parse(text)).problems]


@pytest.mark.parametrize(
    "text",
    [
        "local a = { b = 1, [KEYS[1]] = 2 } return a.b, a:b()",
        "local a do local b = 1 function a() return b end end return a()",
        "local a local function f() a = 1 return a end return f()",
        "for i, v in ipairs(ARGV) do redis.call('SET', v, i) end",
        "local function f() return f() end return f(), function(n, ...) return n, ... end",
        "if type(1) then local a = 1 return a else local a = 2 return a end",
    ],
)
def test_what_is_right(text: str) -> None:
    """Fields are no names, functions see themselves, and each block has names of its own."""
    assert [] == Names().read(parse(text)).problems


def fields_of_endpoints() -> set[str]:
    """All that the scripts read or write of one, `endpoint[name]` but for names that are listed in full."""
    found = set()
    for place in {file.rpartition(":")[0].removesuffix(".lua") for name in NAMES for file in places(name)}:
        for node in walk(parse(text_of(place))):
            if node.type == "dot_index_expression" and word(part(node, "table")) == "endpoint":
                found.add(word(part(node, "field")))
    return found


def test_fields_of_an_endpoint() -> None:
    """The head of lib/endpoint.lua lists the fields that an endpoint has in the scripts: all, and no other."""
    head = text_of("lib/endpoint").partition("\nlocal ")[0]
    listed = [
        name
        for names in re.findall(r"^--     ((?:\w+, )*\w+)  +\S", head, re.M)
        for name in names.split(", ")
    ]
    assert len(listed) == len(set(listed))
    assert fields_of_endpoints() == set(listed)
