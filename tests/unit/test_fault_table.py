"""The table of faults in docs/reliability.md: some of its rows may be made anew."""

from bench.report import between_marks
from tests.faults.__main__ import DOCUMENT, with_earlier
from tests.faults.catalogue import FAULTS


def test_some_rows_anew() -> None:
    """Rows take the place of those of the same faults; the others, and the second table, stay, in the catalogue's order."""
    before = between_marks(DOCUMENT, "faults").splitlines()
    last = FAULTS[-1]
    row = [str(last.number), last.name, last.promise, "1", "2", "0", "0", "0 of 0", "98,765.4", "yes"]
    after = with_earlier([row]).splitlines()
    assert 1 == len([line for line in after if f"| {last.name} " in line])
    assert "98,765.4" in next(line for line in after if f"| {last.name} " in line)
    others = [line.split() for line in before[2:] if f"| {last.name} " not in line and "---" not in line]
    assert others == [
        line.split() for line in after[2:] if f"| {last.name} " not in line and "---" not in line
    ]
