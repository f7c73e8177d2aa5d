"""1,000 partitions on one server: workers lead all of them, deliver, answer their operator, take over and end."""

from collections import Counter

import pytest

from dispatcher.rules.partitions import Partitioning
from tests.acceptance.divided import divide, leases, shares
from tests.acceptance.stack import CELERY, Stack, wait_until

COUNT = 1000
WORKSPACES = [f"w{number}" for number in range(6)]

MOST_CONNECTIONS = 4
"""One for commands, one for news of the queues; a change of a workspace takes one more."""


@pytest.fixture
def divided(stack: Stack) -> Stack:
    """A stack of 1,000 partitions with six workspaces."""
    return divide(stack, COUNT, WORKSPACES)


def deliver(stack: Stack, first: int) -> None:
    """A status change of each workspace is delivered."""
    for number, name in enumerate(WORKSPACES):
        [event] = stack.enqueue(first=first + number, workspace=name)
        assert Counter(delivered=1) == stack.wait_ended([event], name)


def connections(stack: Stack, name: str) -> int:
    """How many connections with that name the server has."""
    return sum(one["name"] == name for one in stack.redis.client_list())


def test_connections_of_a_worker(divided: Stack) -> None:
    """A worker that has begun to lead all partitions, and delivers, keeps a few connections to their server."""
    url = divided.environment["DISPATCHER_REDIS_URL"]
    divided.start_worker(DISPATCHER_REDIS_URL=f"{url}?client_name=worker", DISPATCHER_BROKER_URL=url)
    wait_until(lambda: None not in leases(divided), what="an owner of all")
    deliver(divided, 0)
    assert 2 <= connections(divided, "worker") <= MOST_CONNECTIONS


def test_a_thousand_partitions(divided: Stack) -> None:
    """Two workers lead all, callbacks in different partitions are delivered, one is killed, and the other ends in order."""
    assert len({Partitioning(COUNT).home(name) for name in WORKSPACES}) == len(WORKSPACES)
    first = divided.start_worker(*CELERY, "-n", "first@%h").wait_ready()
    second = divided.start_worker(*CELERY, "-n", "second@%h").wait_ready()
    wait_until(lambda: None not in leases(divided), what="owners of all")
    wait_until(lambda: shares(divided) == [COUNT // 2] * 2, what="even shares")
    deliver(divided, 0)
    live = divided.cli("check", "--live")
    assert (0, True) == (live.returncode, f"all {COUNT} partitions" in live.stdout), live
    before = leases(divided)
    first.kill()
    taken = COUNT // 2
    wait_until(
        lambda: (now := leases(divided)) and None not in now and len(set(before) - set(now)) == taken,
        60,
        "the other leads all",
    )
    deliver(divided, 100)
    assert 0 == second.terminate()
    assert [None] * COUNT == leases(divided)
    assert len(divided.received) == 2 * len(WORKSPACES)
