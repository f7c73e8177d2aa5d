"""What a command could not read: partitions, or the archive, that did not answer. Imports nothing of ours, for lazy.py.

At its end the command says so, and its exit code is 1; a JSON object that it prints has a field `absent`. A service notes
nothing: it goes on, and reads again.
"""

from collections.abc import Iterable

partitions: set[int] = set()
"""The numbers of those that did not answer."""
lines: list[str] = []
"""What the command prints at its end."""
is_service = False


def note(line: str, absent: Iterable[int]) -> None:
    """Notes partitions that did not answer, and the line that names them; nothing if it is empty."""
    if is_service:
        return
    partitions.update(absent)
    _tell(f"{line}: what they hold is missing above" if line else "")


def note_archive(problem: str) -> None:
    """Notes that the archive did not answer, and why."""
    if not is_service:
        _tell(f"warning: {problem}: what only the archive has is missing above")


def _tell(line: str) -> None:
    if line and line not in lines:
        lines.append(line)
