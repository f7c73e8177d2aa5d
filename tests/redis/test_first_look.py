"""Who looks first at an empty Redis: what only reads fixes nothing there, and the first that writes does."""

import pytest
import redis

from tests.command import command

READING = (
    ("stats",),
    ("check",),
    ("workspace", "list"),
    ("endpoint", "list"),
    ("event", "list", "--state", "failed"),
    ("rejected", "list"),
    ("audit", "list"),
    ("producer-key", "list"),
)
ADD = ("workspace", "add", "acme", "--dialect", "zeckta", "--no-check")


@pytest.mark.parametrize("first", [1, 16])
def test_what_reads_fixes_no_number(redis_url: str, first: int) -> None:
    """After lists, stats and check with a wrong number Redis is still empty, and an installation with another number begins."""
    with redis.Redis.from_url(redis_url) as client:
        for reading in READING:
            done = command(redis_url, *reading, PARTITIONS=str(first))
            assert done.returncode in (0, 1), done  # `check` finds no worker; wrong usage is 2
            assert "Traceback" not in done.stderr, done
            assert [] == list(client.scan_iter("dispatcher:*")), reading
        begun = command(redis_url, *ADD, PARTITIONS="8")
        assert 0 == begun.returncode, begun
        assert b"8" == client.get("dispatcher:partitions")
    refused = command(redis_url, *ADD, PARTITIONS=str(first))
    assert (1, True) == (refused.returncode, "with 8 partitions" in refused.stderr), refused


def test_one_partition_begins_with_what_writes(redis_url: str) -> None:
    """`workspace add` and `producer-key add` make an installation with one partition, which is not divided by accident."""
    for name in ("workspace", "producer-key"):
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
            what = ADD if name == "workspace" else ("producer-key", "add", "billing")
            assert 0 == command(redis_url, *what).returncode
            assert client.exists("dispatcher:format")
        refused = command(redis_url, *ADD, PARTITIONS="16")
        assert (1, True) == (refused.returncode, "with 1 partition" in refused.stderr), refused
