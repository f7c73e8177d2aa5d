"""What a command could not read: which partitions did not answer. Imports nothing of ours, for lazy.py.

At its end the command says so, and its exit code is 1; a JSON object that it prints has a field `absent`. A service notes
nothing: it goes on, and reads again.
"""

from collections.abc import Iterable

partitions: set[int] = set()
"""The numbers of those that did not answer."""
lines: list[str] = []
is_service = False


def note(line: str, absent: Iterable[int]) -> None:
    """Notes partitions that did not answer, and the line that names them; nothing if it is empty."""
    if is_service:
        return
    partitions.update(absent)
    if line and line not in lines:
        lines.append(line)
