"""Writes what is made from the settings: `.env.example`, and the README's table. `make docs` runs it."""

from pathlib import Path

from config.settings import env_example, readme_table

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / ".env.example", ROOT / "README.md")
BEGIN, END = "<!-- settings: made by `make docs` -->\n", "<!-- end of settings -->\n"


def written(path: Path) -> str:
    """What the document should say. Raises ValueError for a README without the two marks."""
    if path.name == ".env.example":
        return env_example()
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} has no place for the settings: {BEGIN.strip()} … {END.strip()}")
    return before + BEGIN + readme_table() + END + after


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(written(document))
