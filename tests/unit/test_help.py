"""Help, and what the command line says to a word that is no command of it."""

import os
import subprocess
import sys

import pytest

from tasks import lazy

COMMANDS = dict(lazy.commands())
GROUPS = sorted({path.rpartition(" ")[0] for path in COMMANDS})


def run(*args: str) -> "subprocess.CompletedProcess[str]":
    """Runs `dispatcher` as on a terminal of 80 columns."""
    return subprocess.run(
        [sys.executable, "-m", "tasks", *args],
        env=os.environ | {"COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("path", ["", "event", "workspace api-key", "api", "worker", "event show"])
def test_h_is_help(path: str) -> None:
    """-h shows what --help shows, of the command line, of groups and of commands, and names both."""
    short, long = run(*path.split(), "-h"), run(*path.split(), "--help")
    assert (0, long.stdout) == (short.returncode, short.stdout)
    assert "-h, --help" in long.stdout


def test_help_is_what_the_command_alone_shows() -> None:
    """`dispatcher --help` has everything that `dispatcher` shows: commands, examples, where settings come from, exit codes."""
    assert run().stdout == run("--help").stdout
    assert all(word in run("--help").stdout for word in ("Examples:", "Settings come from", "Exit codes:"))


@pytest.mark.parametrize("group", GROUPS)
def test_summaries_are_whole(group: str) -> None:
    """A group's help shows the first paragraph of each command's help to its end, in lines of at most 80 columns."""
    shown = run(*group.split(), "--help").stdout
    said = " ".join(shown.split())
    for path, command in COMMANDS.items():
        if path.rpartition(" ")[0] == group and not command.hidden:
            assert " ".join(command.help.partition("\n\n")[0].split()) in said
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("help", "`dispatcher --help`"),
        ("event help", "`dispatcher event --help`"),
        ("workspace api-key help", "`dispatcher workspace api-key --help`"),
        (
            "rotate-secret acme",
            "`dispatcher subscription rotate-secret` or `dispatcher workspace rotate-secret`?",
        ),
        ("replay evt_1", "Did you mean `dispatcher event replay`?"),
        ("event rotate-encryption", "Did you mean `dispatcher workspace rotate-encryption`?"),
        ("even", "Did you mean 'event'?"),
    ],
)
def test_hints(typed: str, hint: str) -> None:
    """A word that is no command here is refused in one line, with what to type where that can be known."""
    refused = run(*typed.split())
    assert (2, 1) == (refused.returncode, len(refused.stderr.splitlines()))
    assert hint in refused.stderr


def test_no_hint() -> None:
    """To what is like no command nothing is suggested."""
    assert "error: No such command 'xyzzy'.\n" == run("xyzzy").stderr
