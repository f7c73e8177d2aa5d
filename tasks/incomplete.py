"""What a command could not read: partitions, or the archive, that did not answer. Imports nothing of ours, for lazy.py.

At its end the command says so, and its exit code is 1; a JSON object that it prints has a field `absent`. So it does of a change
that it made and could not copy to all partitions, with exit code 3. A service notes nothing: it goes on, and reads again.
"""

from collections.abc import Iterable

partitions: set[int] = set()
"""The numbers of those that did not answer."""
lines: list[str] = []
"""What the command prints at its end."""
not_copied: dict[str, str] = {}
"""By workspace, what is said of a change that is not in all of its partitions."""
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


def note_not_copied(workspace: str, line: str) -> None:
    """Notes that a change of a workspace is not in all of its partitions, and what to say of that."""
    not_copied[workspace] = line


def told() -> list[str]:
    """What the command prints at its end."""
    line = next(iter(not_copied.values()), "")
    if len(not_copied) > 1:
        line += f"; so it is with {len(not_copied) - 1} more, and repeating this command copies all"
    return [*lines, f"error: {line}"] if line else lines


def code() -> int:
    """The command's exit code, if all else went well."""
    return 3 if not_copied else int(bool(lines))


def _tell(line: str) -> None:
    if line and line not in lines:
        lines.append(line)
