"""Generates `docs/commands.md` from the commands. `make docs` runs it."""

import inspect
from pathlib import Path
from typing import Any

from tasks import lazy

DOCUMENT = Path(__file__).parents[1] / "docs" / "commands.md"
HEAD = """# Commands

Generated from the commands by `make docs`. Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 Redis not reachable, 130 Ctrl-C. `--json` prints one document with
camelCase names and times in ISO 8601, UTC. On a terminal, a row that is too wide becomes a group of lines, with ids and URLs whole; `--wide` prints one line for each row. `dispatcher --install-completion` installs completion for your shell.
"""


def written() -> str:
    """The text that the document should have."""
    return HEAD + "".join(_chapter(name, command) for name, command in lazy.commands() if not command.hidden)


def _chapter(name: str, command: Any) -> str:
    return f"\n## dispatcher {name}\n\n{_help(command)}\n{_parameters(command)}"


def _help(command: Any) -> str:
    return "\n".join(line.rstrip() for line in inspect.cleandoc(command.help or "").splitlines())


def _parameters(command: Any) -> str:
    rows = [_row(one) for one in command.params if not one.is_eager]
    return "\n| | |\n|---|---|\n" + "".join(rows) if rows else ""


def _row(one: Any) -> str:
    name = (one.metavar or one.name.upper()) if one.param_type_name == "argument" else ", ".join(one.opts)
    shown = one.default not in (None, False, True) and not callable(one.default) and one.show_default
    default = f" ({one.default})" if shown and one.required is False else ""
    required = " Required." if one.required else ""
    return f"| `{name}` | {(one.help or '').replace('|', chr(92) + '|')}{default}{required} |\n"


if __name__ == "__main__":
    DOCUMENT.write_text(written())
