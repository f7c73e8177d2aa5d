"""The Lua scripts as trees, and what a linter finds in them; PyPI has none for Lua, so this is one of a few rules."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files

import tree_sitter_lua
from tree_sitter import Language, Node, Parser

from dispatcher.store.script_text import assembled

FOLDER = files("dispatcher.store") / "lua"
GLOBALS = frozenset(
    [
        "KEYS",
        "ARGV",
        "redis",
        "cmsgpack",
        "string",
        "table",
        "math",
        "pairs",
        "ipairs",
        "unpack",
        "select",
        "type",
        "tonumber",
        "tostring",
        "pcall",
        "error",
        "next",
    ]
)
"""All that scripts may use of what Lua and Redis have."""
_PARSER = Parser(Language(tree_sitter_lua.language()))


def text_of(name: str) -> str:
    """A file's text by its name without `.lua`: `claim`, `lib/entry`."""
    return (FOLDER / f"{name}.lua").read_text()


def parse(text: str) -> Node:
    """The tree. Raises ValueError for what is no Lua."""
    root = _PARSER.parse(text.encode()).root_node
    if root.has_error:
        raise ValueError("not Lua")
    return root


def word(node: Node) -> str:
    """What stands there."""
    return (node.text or b"").decode()


def walk(node: Node) -> Iterator[Node]:
    """A node and all below it, in the order of the text."""
    yield node
    for child in node.named_children:
        yield from walk(child)


@dataclass
class Local:
    """A local name; parameters and loop variables too."""

    name: str
    line: int
    is_read: bool = False


@dataclass
class Names:
    """Goes through a script's names. Lines count from 1."""

    problems: list[tuple[int, str]] = field(default_factory=list)
    top: list[Local] = field(default_factory=list)
    """Locals of the script itself; all others that are not read are among the problems."""
    _scopes: list[dict[str, Local]] = field(default_factory=list)

    def read(self, root: Node) -> "Names":
        """The whole script."""
        self._scopes.append({})
        self._each(root)
        self.top = list(self._scopes.pop().values())
        return self

    def _problem(self, node: Node, text: str) -> None:
        self.problems.append((node.start_point.row + 1, text))

    def _declare(self, node: Node) -> None:
        name = word(node)
        if name == "_":
            return
        if name in GLOBALS or any(name in scope for scope in self._scopes):
            self._problem(node, f"{name} shadows another one")
        self._scopes[-1][name] = Local(name, node.start_point.row + 1)

    def _found(self, node: Node) -> Local | None:
        return next((scope[word(node)] for scope in reversed(self._scopes) if word(node) in scope), None)

    def _leave(self) -> None:
        for local in self._scopes.pop().values():
            if not local.is_read:
                self.problems.append((local.line, f"{local.name} is not used"))

    def _each(self, node: Node) -> None:
        for child in node.named_children:
            self._visit(child)

    def _visit(self, node: Node) -> None:
        visit = getattr(self, f"_visit_{node.type}", self._each)
        visit(node)

    def _visit_identifier(self, node: Node) -> None:
        if local := self._found(node):
            local.is_read = True
        elif word(node) not in GLOBALS:
            self._problem(node, f"{word(node)} is no local, nor Lua's or Redis's")

    def _visit_dot_index_expression(self, node: Node) -> None:
        self._visit(part(node, "table"))

    _visit_method_index_expression = _visit_dot_index_expression

    def _visit_field(self, node: Node) -> None:
        if word(node).startswith("["):
            self._visit(part(node, "name"))
        self._visit(part(node, "value"))

    def _visit_variable_declaration(self, node: Node) -> None:
        for one in walk(node):
            if one.type == "expression_list":
                self._each(one)
                break
        names = next(one for one in walk(node) if one.type == "variable_list")
        for name in names.named_children:
            self._declare(name)

    def _visit_assignment_statement(self, node: Node) -> None:
        names, values = node.named_children
        self._visit(values)
        for name in names.named_children:
            if name.type != "identifier":
                self._visit(name)
            elif not self._found(name):
                self._problem(name, f"{word(name)} is no local: it would be a global")

    def _visit_function_declaration(self, node: Node) -> None:
        name = part(node, "name")
        if word(node).startswith("local "):
            self._declare(name)
        elif not self._found(name):
            self._problem(name, f"{word(name)} is no local: it would be a global")
        self._visit_function_definition(node)

    def _visit_function_definition(self, node: Node) -> None:
        self._scopes.append({})
        for name in part(node, "parameters").named_children:
            if name.type == "identifier":
                self._declare(name)
        if body := node.child_by_field_name("body"):
            self._each(body)
        self._leave()

    def _visit_for_statement(self, node: Node) -> None:
        clause = part(node, "clause")
        for child in clause.named_children:
            if child.type != "variable_list" and child != clause.child_by_field_name("name"):
                self._visit(child)
        self._scopes.append({})
        is_numeric = clause.type == "for_numeric_clause"
        for name in [part(clause, "name")] if is_numeric else clause.named_children[0].named_children:
            self._declare(name)
        if body := node.child_by_field_name("body"):
            self._each(body)
        self._leave()

    def _visit_block(self, node: Node) -> None:
        self._scopes.append({})
        self._each(node)
        self._leave()


def part(node: Node, name: str) -> Node:
    """A node's part, which must be there."""
    found = node.child_by_field_name(name)
    if found is None:
        raise ValueError(f"{node.type} without {name}")
    return found


def places(name: str) -> list[str]:
    """Of each line of a whole script: the file and line that it comes from."""
    found = []
    for number, line in enumerate(text_of(name).splitlines(), 1):
        include = re.match(r"-- include (\w+)$", line)
        if include:
            fragment = text_of(f"lib/{include[1]}")
            found += [f"lib/{include[1]}.lua:{n}" for n in range(1, fragment.count("\n") + 2)]
        else:
            found.append(f"{name}.lua:{number}")
    return found


def lint(name: str) -> tuple[list[str], list[Local]]:
    """What is wrong with a script's names, by file and line; and the locals of the script itself."""
    names = Names().read(parse(assembled(name)))
    where = places(name)
    return [f"{where[line - 1]} {text}" for line, text in names.problems], names.top
