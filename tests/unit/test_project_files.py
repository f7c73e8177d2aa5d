"""What people look for who want to adopt the project: metadata, changelog, how to contribute and to report."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link of a page names a file that is there."""
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text())
    assert [] == [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lists_are_whole(page: Path) -> None:
    """In a paragraph with list items, every line is an item or an indented part of one: none lost its dash."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    item = re.compile(r"(?:[-*+]|\d+\.) ")
    lists = [lines for block in text.split("\n\n") if any(map(item.match, lines := block.split("\n")))]
    assert [] == [
        line for lines in lists for line in lines if line and not re.match(rf"{item.pattern}|  ", line)
    ]


def test_the_licence_is_the_owners_to_choose() -> None:
    """No licence is claimed anywhere, and the README says so before its first chapter."""
    assert set() == {"license", "license-files"} & PROJECT.keys()
    assert not any(text.startswith("License ::") for text in PROJECT["classifiers"])
    first = (ROOT / "README.md").read_text().partition("\n## ")[0]
    assert "No licence is given yet" in first


def test_versions_of_python() -> None:
    """The classifiers, the README and the installer's error name the same versions."""
    numbers = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)]
    spoken = f"Python {', '.join(numbers[:-1])} or {numbers[-1]}"
    assert f">={numbers[0]}" == PROJECT["requires-python"]
    assert spoken in (ROOT / "README.md").read_text()
    assert spoken in (ROOT / ".ci" / "install").read_text()
    assert spoken in (ROOT / "CONTRIBUTING.md").read_text()


def test_each_dependency_says_why() -> None:
    """Behind each dependency in pyproject.toml stands what it is for."""
    text = (ROOT / "pyproject.toml").read_text()
    lines = text[text.index("\ndependencies = [") : text.index("[project.scripts]")].splitlines()
    wanted = [line for line in lines if line.startswith('    "') and "callback-dispatcher[" not in line]
    assert [] == [line for line in wanted if not re.search(r"#\s*\S", line)]
    assert 3 == len(PROJECT["dependencies"])


def test_changelog_has_the_form() -> None:
    """The changelog begins with what is unreleased; entries stand under the headings of Keep a Changelog."""
    headings = re.findall(r"^##+ (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert "Unreleased" == headings[0]
    known = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert [] == [
        text for text in headings[1:] if text not in known and not re.match(r"\d+\.\d+\.\d+ - \d{4}-", text)
    ]


def test_changelog_says_what_the_version_is() -> None:
    """The number that `dispatcher --version` prints has a heading, or is named as what is not released yet."""
    newest, *others = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)[1:]
    number = PROJECT["version"]
    assert f" {number} " in newest.partition("###")[0] or any(
        text.startswith(f"{number} - ") for text in others
    )


def test_commands_of_contributing_exist() -> None:
    """Each `make` command of CONTRIBUTING.md is a target."""
    named = set(re.findall(r"make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text()))
    assert named <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
