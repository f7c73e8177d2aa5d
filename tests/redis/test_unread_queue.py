"""The queue of a producer that was not told of partitions, which nobody reads: `check` and `stats` tell of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from dispatcher import Dispatcher
from tasks.redis_server import RedisServer
from tests.acceptance.stack import change
from tests.command import command

QUEUE = "dispatcher:events"


@pytest.fixture
def urls(redis_url: str, server_program: str, tmp_path: Any) -> Iterator[list[str]]:
    """Two servers of one installation."""
    with RedisServer(tmp_path, executable=server_program) as second:
        yield [redis_url, second.url]


def found(urls: list[str]) -> list[dict[str, str]]:
    """The findings of `check` about it."""
    done = command(",".join(urls), "check", "--json", PARTITIONS="8", BROKER_URL=urls[0])
    return [one for one in json.loads(done.stdout) if one["subject"] == "unread queue"]


def test_check_and_stats_tell_of_it(urls: list[str]) -> None:
    """Wherever it is, it is counted; after its status changes were brought over and it was deleted nothing is said."""
    both = ",".join(urls)
    assert (
        0
        == command(
            both,
            "workspace",
            "add",
            "acme",
            "--dialect",
            "zeckta",
            "--no-check",
            PARTITIONS="8",
            BROKER_URL=urls[0],
        ).returncode
    )
    assert [] == found(urls)
    for place, url in enumerate(urls):
        with Dispatcher.from_url(url) as wrong:
            wrong.enqueue_many([change(10 * place + n) for n in range(2 + place)])
    [one] = found(urls)
    assert "bad" == one["verdict"]
    assert one["detail"].startswith(f"5 status changes lie on {QUEUE}"), one
    assert "partitions=" in one["advice"]
    shown = json.loads(command(both, "stats", "--json", PARTITIONS="8", BROKER_URL=urls[0]).stdout)[
        "partitions"
    ]["unread"]
    assert 5 == shown["count"]
    assert shown["oldestAt"]
    assert (
        "5 status changes lie on a queue that nobody reads"
        in command(both, "stats", PARTITIONS="8", BROKER_URL=urls[0]).stdout
    )
    for url in urls:
        with redis.Redis.from_url(url) as client:
            raw = b"\n".join(
                part for id_, fields in client.xrange(QUEUE) for part in (id_, b"event", fields[b"event"])
            )
            lines = b"".join(
                line + b"\n" for line in raw.split(b"\n") if line.startswith(b"{")
            )  # as grep '^{'
            brought = subprocess.run(
                [sys.executable, "-m", "tasks", "enqueue", "-"],
                input=lines,
                env=os.environ
                | {
                    "DISPATCHER_REDIS_URL": both,
                    "DISPATCHER_PARTITIONS": "8",
                    "DISPATCHER_BROKER_URL": urls[0],
                },
                check=False,
            )
            assert 0 == brought.returncode
            client.delete(QUEUE)
    assert [] == found(urls)
    assert (
        5
        == json.loads(command(both, "stats", "--json", PARTITIONS="8", BROKER_URL=urls[0]).stdout)["now"][
            "queued"
        ]
    )


def test_one_partition_reads_its_queue(redis_url: str) -> None:
    """With one partition it is the queue, and nothing is said."""
    with Dispatcher.from_url(redis_url) as right:
        right.enqueue(change(1))
    done = command(redis_url, "check", "--json")
    assert "unread queue" not in [one["subject"] for one in json.loads(done.stdout)]


@pytest.mark.parametrize("user", ["default", "one"])
def test_a_key_that_cannot_be_read(urls: list[str], user: str) -> None:
    """One of another type, or one that the Redis user may not read, is said to be so, and hides nothing else."""
    with redis.Redis.from_url(urls[0]) as client:
        client.set(QUEUE, "text")
        rights = "~dispatcher:{*}:* ~dispatcher:partitions ~dispatcher:grown resetchannels +@all"
        client.execute_command("ACL", "SETUSER", "one", "on", ">p", *rights.split())
        with Dispatcher.from_url(urls[1]) as wrong:
            wrong.enqueue(change(1))
        mine = [urls[0].replace("unix://", f"unix://{user}:p@" if user != "default" else "unix://"), urls[1]]
        try:
            unknown, bad = found(mine)
            stats = command(",".join(mine), "stats", "--json", PARTITIONS="8", BROKER_URL=urls[0])
        finally:
            client.execute_command("ACL", "DELUSER", "one")
    assert ("unknown", "bad") == (unknown["verdict"], bad["verdict"])
    assert ("WRONGTYPE" if user == "default" else "NOPERM") in unknown["detail"]
    assert bad["detail"].startswith("1 status change lies")
    assert (0, 1) == (stats.returncode, json.loads(stats.stdout)["partitions"]["unread"]["count"])
