"""What a producer asks of a cluster before a round trip, and what it makes of the answers."""

from collections.abc import Sequence
from typing import Any

from redis.exceptions import ConnectionError, MovedError

from dispatcher.store.cluster_placement import ClusterPlacement
from dispatcher.store.placement import Command

A, B, C = (f"redis://10.0.0.{n}:6379" for n in range(3))
SHARES = (0, 5460), (5461, 10922), (10923, 16383)


def slots(*holders: int) -> list[Any]:
    """A reply to CLUSTER SLOTS: the node that holds each third."""
    return [[*share, [b"10.0.0.%d" % n, 6379, b"id"]] for share, n in zip(SHARES, holders, strict=True)]


class Cluster:
    """A placement, with a count of the addresses that it made URLs of, and whom it asked."""

    def __init__(self, *start: str) -> None:
        self.made = 0
        self.asked: list[list[str]] = []
        self.placement = ClusterPlacement(start, self._url)

    def prepare(self, *answers: Any) -> None:
        """Prepares a round trip; each answer is that of all nodes that are asked together."""
        trips, rest, requests = self.placement.prepare(), iter(answers), None
        self.asked = []
        try:
            requests = next(trips)
            while True:
                self.asked.append([one.node for one in requests])
                answer = next(rest)
                replies: Sequence[Any] = [[answer]] * len(requests)
                requests = trips.send(replies)
        except StopIteration:
            return

    def _url(self, host: str, port: int) -> str:
        self.made += 1
        return f"redis://{host}:{port}"


def test_a_map_that_is_as_it_was() -> None:
    """While a node is away the map is asked for each time, and made anew only if it has changed."""
    cluster = Cluster(A)
    cluster.prepare(slots(0, 1, 2))
    made = cluster.made
    cluster.placement.redirected(B, ConnectionError())
    for _ in range(3):
        cluster.prepare(slots(0, 1, 2))
        assert [[A]] == cluster.asked
    assert made == cluster.made
    cluster.prepare(slots(0, 2, 2))
    assert made < cluster.made
    assert C == cluster.placement.node(Command(0, "foo{2}", ()))  # slot 5649
    cluster.prepare()
    assert [] == cluster.asked  # who is away holds nothing any more


def test_who_did_not_say_the_map_is_asked_last() -> None:
    """A node that does not answer is waited for once, not before each round trip in which the map is stale."""
    cluster = Cluster(A)
    cluster.prepare(slots(0, 1, 2))
    cluster.placement.redirected(C, MovedError("5649 10.0.0.2:6379"))
    cluster.prepare(ConnectionError(), slots(0, 1, 2))
    assert [[A], [B, C]] == cluster.asked
    cluster.placement.redirected(C, MovedError("5649 10.0.0.2:6379"))
    cluster.prepare(slots(0, 1, 2))
    assert [[B]] == cluster.asked
    cluster.placement.answered(A)
    cluster.placement.redirected(C, MovedError("5649 10.0.0.2:6379"))
    cluster.prepare(slots(0, 1, 2))
    assert [[A]] == cluster.asked
