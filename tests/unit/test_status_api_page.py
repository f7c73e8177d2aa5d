"""What docs/status-api.md says of statuses is what the API answers."""

import re
from pathlib import Path

from dispatcher.api import namirial, qlara, sendexa, zeckta
from dispatcher.model import Status

TEXT = (Path(__file__).parents[2] / "docs" / "status-api.md").read_text()


def test_the_table_of_statuses() -> None:
    """Each status is in the table, with the word that each platform's API answers, or a dash for none."""
    rows = re.findall(r"^\| ([A-Z]+) \| (.*) \|$", TEXT, re.M)
    expected = {
        status.value: [
            f"`{platform.STATUSES[status]}`" if status in platform.STATUSES else "–"
            for platform in (zeckta, sendexa, namirial, qlara)
        ]
        for status in Status
    }
    assert expected == {status: cells.split(" | ") for status, cells in rows}
