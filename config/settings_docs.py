"""Generates `.env.example` and the README's table from the settings. `make docs` runs it."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from config.environment import PREFIX
from config.settings import Settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / ".env.example", ROOT / "README.md")
BEGIN, END = "<!-- settings: made by `make docs` -->\n", "<!-- end of settings -->\n"


def written(path: Path) -> str:
    """The text that the document should have. Raises ValueError for a README without the two marks."""
    if path.name == ".env.example":
        return env_example()
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} has no place for the settings: {BEGIN.strip()} … {END.strip()}")
    return before + BEGIN + readme_table() + END + after


def rows() -> list[tuple[str, str, str]]:
    """Name, default and meaning of every setting, for documents."""
    return [
        (PREFIX + name.upper(), _default(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def env_example() -> str:
    """The text of `.env.example`."""
    head = "# Every setting with its default. Copy to .env and change what you need.\n"
    return head + "".join(f"\n# {meaning}\n# {name}={default}\n" for name, default, meaning in rows())


def readme_table() -> str:
    """The README's table of settings."""
    lines = [
        f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |" for name, default, meaning in rows()
    ]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *lines]) + "\n"


def _default(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or value == () else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(written(document))
