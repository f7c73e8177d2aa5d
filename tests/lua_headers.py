"""What a script's header says of its arguments, and what its code takes: both as values that can be compared."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tree_sitter import Node

from tests.lua_source import parse, part, text_of, walk, word

COUNTED, ALL, NESTED = "number first", "all that are left", "as many as the group before says"
_GROUP = re.compile(r"--   (then )?for each ([\w' ]+?)(?:, [^:(]*)?( \(number first\))?: ([a-z_ ]+)$")
_SINGLE = re.compile(r"--   ((?:[a-z_]+, )*[a-z_]+)(?::.*)?$")
_REST_OF_GROUP = re.compile(r"--     ([a-z_ ]+)$")


@dataclass(frozen=True)
class Single:
    """One argument."""

    name: str


@dataclass(frozen=True)
class Group:
    """Arguments that come several times."""

    names: tuple[str, ...]
    how_many: str


def header_of(name: str) -> list[str]:
    """The lines before the first include."""
    return text_of(name).partition("\n-- include ")[0].splitlines()


def described(name: str) -> list[Single | Group]:
    """The arguments as the header names them, behind those of every script."""
    found: list[Single | Group] = []
    lines = header_of(name)
    start = next((n for n, line in enumerate(lines) if line.endswith("; then ARGV has")), len(lines))
    for line in lines[start + 1 :]:
        if not line.startswith("--   "):
            break
        if match := _GROUP.match(line):
            how_many = COUNTED if match[3] else NESTED if match[1] else ALL
            found.append(Group(tuple(match[4].split()), how_many))
        elif match := _SINGLE.match(line):
            found += [Single(one) for one in match[1].split(", ")]
        elif (match := _REST_OF_GROUP.match(line)) and isinstance(last := found[-1], Group):
            found[-1] = Group((*last.names, *match[1].split()), last.how_many)
    return found


def taken(name: str) -> list[Single | Group]:
    """The arguments as the script's code takes them. Raises ValueError where a number and its names do not fit."""
    found: list[Single | Group] = []
    for call in _calls(parse(text_of(name))):
        arguments = part(call, "arguments").named_children
        count = int(word(arguments[0]))
        names = _names(call)
        if word(part(call, "name")) == "take":
            if not names:
                continue  # how many groups there are
            how_many = _loop(call)
            found += [Group(names, how_many)] if how_many else [Single(one) for one in names]
        elif len(arguments) == 1:
            found.append(Group(names, ALL))
        else:
            found.append(Group(names, COUNTED if arguments[1].type == "function_call" else NESTED))
        if len(names) != count:
            raise ValueError(f"{name}: {word(call)} for {names}")
    for place, group in enumerate(found[:-1]):  # the function of the inner loop stands above the outer loop
        if isinstance(group, Group) and group.how_many == NESTED:
            found[place : place + 2] = found[place + 1], group
    return found


def _calls(root: Node) -> Iterator[Node]:
    for node in walk(root):
        if node.type == "function_call" and word(part(node, "name")) in ("take", "each"):
            yield node


def _above(node: Node) -> Iterator[Node]:
    while node := node.parent:  # type: ignore[assignment]  # ends with None
        yield node


def _loop(call: Node) -> str | None:
    """How often arguments are taken; None: not in a loop."""
    for one in _above(call):
        if one.type == "while_statement":
            return ALL
        if one.type == "for_statement":
            return COUNTED if part(part(one, "clause"), "end").type == "function_call" else NESTED
    return None


def _names(call: Node) -> tuple[str, ...]:
    """What the arguments are called: the names of the local, or of the loop; for a local that is looped over, the loop's."""
    if call.parent and call.parent.type in ("arguments", "for_numeric_clause"):
        return ()
    above = next(one for one in _above(call) if one.type in ("variable_declaration", "for_statement"))
    names = tuple(word(one) for one in _variables(above))
    if word(part(call, "name")) == "take" or above.type == "for_statement":
        return names
    values = next(one for one in walk(above) if one.type == "expression_list").named_children
    return _looped_over(_root(call), names[values.index(call)])


def _variables(node: Node) -> Sequence[Node]:
    return next(one for one in walk(node) if one.type == "variable_list").named_children


def _root(node: Node) -> Node:
    return list(_above(node))[-1]


def _looped_over(root: Node, groups: str) -> tuple[str, ...]:
    """The names of all loops over it, each place's where one names it; `_` names none."""
    found: list[str] = []
    for node in walk(root):
        if node.type != "for_generic_clause" or groups != word(node.named_children[1]):
            continue
        for place, name in enumerate(word(one) for one in _variables(node)):
            if place == len(found):
                found.append(name)
            elif name not in ("_", found[place]) and found[place] != "_":
                raise ValueError(f"{name} is {found[place]} in another loop")
            elif found[place] == "_":
                found[place] = name
    return tuple(found)


def read(name: str, arguments: Sequence[Any]) -> dict[str, Any]:
    """Arguments by the names of the header; groups as lists in their order. Raises ValueError where some are left or missing."""
    rest = list(arguments)
    found: dict[str, Any] = {"groups": []}
    items = described(name)
    while items:
        item = items.pop(0)
        if isinstance(item, Single):
            found[item.name] = rest.pop(0)
            continue
        nested = (
            items.pop(0) if items and isinstance(items[0], Group) and items[0].how_many == NESTED else None
        )
        left = int(rest.pop(0)) if item.how_many == COUNTED else None
        group = []
        while rest if left is None else len(group) < left:
            one = _some(item, rest)
            if isinstance(nested, Group):
                one["then"] = [_some(nested, rest) for _ in range(int(one["number"]))]
            group.append(one)
        found["groups"].append(group)
    if rest:
        raise ValueError(f"{name}: {len(rest)} arguments are left")
    return found


def _some(group: Group, rest: list[Any]) -> dict[str, Any]:
    if len(rest) < len(group.names):
        raise ValueError(f"{rest} is not {group.names}")
    return {name: rest.pop(0) for name in group.names}
