"""docs/operations.md as a runbook that can be followed: its symptoms, and the commands that each of its chapters gives."""

import re
import shlex
from pathlib import Path

import yaml

from tests.acceptance.stack import Stack

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text()
CHAPTERS = dict(re.findall(r"^##+ (.+?)\n(.*?)(?=^##* [^\n]|\Z)", TEXT, re.S | re.M))
SEE = "*You see:*"
SYMPTOMS = [title for title, text in CHAPTERS.items() if SEE in text]
RULES = yaml.safe_load((ROOT / "config" / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
ALERTS = {rule["alert"] for rule in RULES}
METRICS = (ROOT / "docs" / "metrics.md").read_text()


class Chapter:
    """One chapter: what it says one sees, and what it has one do."""

    def __init__(self, title: str) -> None:
        self._text = CHAPTERS[title]
        blocks = re.findall(r"^```\w+\n(.*?)^```", self._text, re.S | re.M)
        prose = re.sub(r"^```\w+\n.*?^```", "", self._text, flags=re.S | re.M)
        lines = [line.strip() for block in blocks for line in block.splitlines()]
        spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
        found = [re.split(r"\s{2,}", line)[0] for line in lines] + spans
        self._left = [one for one in dict.fromkeys(found) if one.startswith("dispatcher ")]
        self._commands = list(self._left)
        seen = self._text.partition(SEE)[2].partition("\n\n")[0]
        quoted = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", seen)]
        self._signs = [one for one in quoted if one not in self._commands]

    def run(self, start: str, stack: Stack, code: int = 0, **places: str) -> str:
        """Runs the chapter's command that is this, or begins so, with the places filled in; what it prints."""
        arguments = [places.get(word, word) for word in shlex.split(self.command(start))[1:]]
        done = stack.cli(*arguments)
        assert code == done.returncode, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def command(self, start: str) -> str:
        """The chapter's command that is this, or begins so."""
        [found] = [one for one in self._commands if one == start] or [
            one for one in self._commands if one.startswith(start)
        ]
        self._left = [one for one in self._left if one != found]
        return found

    def see(self, sign: str, text: str) -> None:
        """What the chapter says one sees is in the text."""
        assert sign in self._signs, (sign, self._signs)
        pattern = re.escape(sign).replace("…", ".*")
        assert re.search(pattern, " ".join(text.split())), (sign, text)
        self._signs.remove(sign)

    def left(self) -> list[str]:
        """Commands that were not run, and signs that were not seen. Alerts and figures are looked up."""
        figures = [one for one in self._signs if one.startswith("dispatcher_") and f"`{one}`" in METRICS]
        known = figures + [one for one in self._signs if one in ALERTS]
        return self._left + [one for one in self._signs if one not in known]
