"""docs/log-events.md names every event that our code logs, and no other, with its level."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
EVENT = re.compile(r"[a-z_]+\.[a-z_]+")
LEVELS = {"exception": "error"}
"""Names of methods that are not the level of what they log."""
NOT_BY_A_CALL = {"log.lines_lost": {"warning"}}
"""What config/logs.py renders itself."""
CHOSEN = {"callback.attempted": {"info", "error"}, "callback.ended": {"warning", "info"}}
"""Events whose level the code chooses as it goes."""


def _logged() -> Iterator[tuple[str, str]]:
    """Each event in the code with the method that logs it."""
    for folder in ("dispatcher", "tasks", "config"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                    event, function = node.args[0].value, ast.unparse(node.func)
                    is_event = isinstance(event, str) and EVENT.fullmatch(event)
                    if is_event and (function.startswith("log.") or function == "write"):
                        yield str(event), function.removeprefix("log.")


@pytest.fixture(scope="module")
def in_code() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for event, method in _logged():
        found[event].add(LEVELS.get(method, method))
    return {**found, **NOT_BY_A_CALL, **CHOSEN}


@pytest.fixture(scope="module")
def in_docs() -> dict[str, str]:
    """The events of the page with the text of their levels."""
    found: dict[str, str] = {}
    for line in (ROOT / "docs/log-events.md").read_text().splitlines():
        events, *rest = line.strip("| ").split(" | ")
        if rest and line.startswith("| `") and "." in events:
            named = re.findall(r"`([^`]+)`", events)
            assert not set(named) & set(found), "named twice"
            found |= dict.fromkeys(named, rest[0])
    return found


def test_every_event_is_on_the_page(in_code: dict[str, set[str]], in_docs: dict[str, str]) -> None:
    assert len(in_code) > 90
    assert sorted(in_code) == sorted(in_docs)


def test_the_levels_are_those_of_the_code(in_code: dict[str, set[str]], in_docs: dict[str, str]) -> None:
    for event, levels in in_code.items():
        told = set(re.findall(r"\b(?:debug|info|warning|error|critical)\b", in_docs[event]))
        assert levels <= told, event
