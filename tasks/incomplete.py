"""What a command could not read: it prints these lines at its end, and its exit code is 1. Imports nothing, for lazy.py."""

lines: list[str] = []
"""One line for each store that was incomplete."""


def note(line: str) -> None:
    """Notes a line; nothing if it is empty or noted already."""
    if line and line not in lines:
        lines.append(line)
