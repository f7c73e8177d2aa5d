"""Generates the test vectors in `docs/partitions.md`. `make docs` runs it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dispatcher.rules.partitions import Partitioning, crc16, slot_of, tags
from dispatcher.store.keys import keys_of

DOCUMENT = Path(__file__).parents[1] / "docs" / "partitions.md"
BEGIN, END = "<!-- vectors: made by `make docs` -->\n", "<!-- end of vectors -->\n"

WHOLE = (2, 3, 16)
"""Numbers of partitions whose tags are all shown."""
SOME = {256: (0, 1, 2, 127, 128, 254, 255), 1024: (0, 1, 2, 511, 512, 1022, 1023)}
"""Of these a few partitions."""
CRCS = ("123456789", "acme", "bluefin", "0")
MESSAGE = "0b6b0c4e-6f2d-4d3a-9a39-0d7a2a1f8f11"
CHANGES = (
    (1, "acme", MESSAGE, 1),
    (2, "acme", MESSAGE, 1),
    (2, "acme", MESSAGE, 3),
    (3, "bluefin", MESSAGE, 1),
    (16, "acme", MESSAGE, 1),
    (16, "acme", MESSAGE, 4),
    (16, "acme", "m.1", 4),
    (16, "A-b_c", "m.1", 16),
    (256, "acme", MESSAGE, 1),
    (256, "acme", MESSAGE, 8),
    (256, "z" * 64, "m_1", 64),
    (1024, "0", "0", 1),
    (1024, "acme", MESSAGE, 64),
)
"""Partitions, workspace, message, width."""


def written() -> str:
    """The text that the document should have. Raises ValueError if it lacks the marks."""
    before, begin, rest = DOCUMENT.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{DOCUMENT} has no place for the vectors: {BEGIN.strip()} … {END.strip()}")
    return before + BEGIN + "\n".join(_tables()) + "\n" + END + after


def queue_of(partitions: int, workspace: str, message: str, width: int) -> tuple[int, str]:
    """The partition of a status change, and its queue's key."""
    partition = Partitioning(partitions).of(workspace, message, width)
    return partition, keys_of("dispatcher", partitions)[partition].events


def _tables() -> Iterator[str]:
    yield from _table(("text", "crc16"), [(f"`{one}`", f"{crc16(one)}") for one in CRCS])
    yield "Tags, of all partitions or of some:\n"
    shown = {count: tuple(range(count)) for count in WHOLE} | SOME
    rows = [
        (f"{count}", f"{one}", f"`{tags(count)[one]}`", f"{slot_of(tags(count)[one])}")
        for count, ones in shown.items()
        for one in ones
    ]
    yield from _table(("P", "partition", "tag", "slot"), rows)
    yield "Status changes:\n"
    found = []
    for count, workspace, message, width in CHANGES:
        partition, queue = queue_of(count, workspace, message, width)
        found.append((f"{count}", f"`{workspace}`", f"`{message}`", f"{width}", f"{partition}", f"`{queue}`"))
    yield from _table(("P", "workspace", "message.uuid", "width", "partition", "queue"), found)


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    for row in (columns, ("---",) * len(columns), *rows):
        yield f"| {' | '.join(row)} |".replace("| --- ", "|---").replace("|--- |", "|---|")
    yield ""


if __name__ == "__main__":
    DOCUMENT.write_text(written())
