"""What `dispatcher erase` takes for a trace of a message, in entries that were rejected."""

import pytest

from dispatcher.store.rejected import RejectedEntry
from dispatcher.store.traces import Wanted


@pytest.mark.parametrize(
    ("raw", "is_one"),
    [
        ('{"workspace": "acme", "message": {"uuid": "1"}}', True),
        ('{"workspace": "acme", "eventId": "1", "message": {"uuid": "2"}}', False),
        ('{"workspace": "acme", "message": {"uuid": "2", "units": 1}}', False),
        ('{"workspace": "acme", "message": {"uuid": 1}}', True),
        ('{"workspace": "acme", "message": "1"}', True),
        ('{"workspace": "acme", "message": {"uuid": "1"', True),
        ('{"workspace": "acme", "message": {"uuid": "a-1"', False),
        ('{"workspace": "other", "message": {"uuid": "1"}}', False),
    ],
)
def test_a_rejected_entry_of_a_message(raw: str, is_one: bool) -> None:
    """By its uuid; where that cannot be read, by the id as a word of its own, which may be more than is of it."""
    entry = RejectedEntry("1-1", "5-1", 1, "invalid", "why", None, None, raw)
    assert is_one == Wanted("acme", message="1").has_rejected(entry)
