"""The growth benchmark refuses what this machine has no memory for, before it begins."""

import pytest

from bench.growth import free_bytes, require_memory
from bench.growth_run import Size

MEMINFO = "MemTotal:       24000000 kB\nMemFree:         1000000 kB\nMemAvailable:   16000000 kB\n"


def test_free_memory_is_what_can_be_had() -> None:
    """Memory that the system can take back from its caches counts as free."""
    assert 16_000_000 * 1024 == free_bytes(MEMINFO)


def test_too_many_are_refused_in_one_line() -> None:
    """Ten million waiting callbacks on a machine with 8 GB free end with one line that says what to do."""
    sizes = [Size(10_000, 1_000, 100), Size(10_000_000, 1_000, 100)]
    with pytest.raises(SystemExit) as refused:
        require_memory(sizes, 8_000_000_000)
    text = str(refused.value)
    assert text.startswith(
        "error: 10,000,000 waiting callbacks need 15.5 GB of free memory, and here are 8.0;"
    )
    assert "\n" not in text
    assert "--most" in text


def test_enough_memory_is_enough() -> None:
    """With as much memory as is needed nothing is refused."""
    require_memory([Size(10_000_000, 1_000, 100)], 15_500_000_000)
