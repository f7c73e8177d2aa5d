"""Writes what is made from the command line: `docs/commands.md`. `make docs` runs it."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from tasks.cli import app

DOCUMENT = Path(__file__).parents[1] / "docs" / "commands.md"
HEAD = """# Commands

Made from the command line by `make docs`. Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 Redis not reachable. `--json` prints one document with
camelCase names and times in ISO 8601, UTC. `dispatcher --install-completion` teaches your shell to complete all of this.
"""


def written() -> str:
    """What the document should say."""
    return HEAD + "".join(_chapters("dispatcher", typer.main.get_command(app)))


def _chapters(name: str, command: Any) -> Iterator[str]:
    commands = getattr(command, "commands", {})
    if not commands:
        yield f"\n## {name}\n\n{_help(command)}\n{_parameters(command)}"
    for word, inner in sorted(commands.items()):
        if inner.hidden:
            continue
        yield from _chapters(f"{name} {word}", inner)


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
