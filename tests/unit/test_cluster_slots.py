"""CLUSTER SLOTS, as Redis's documentation of the command describes its replies."""

from typing import Any

import pytest

from dispatcher.store.cluster_slots import Slots

SLOTS = [0, 100, 5460, 5461, 16383]


def node(host: bytes | None, port: int, *more: Any) -> list[Any]:
    """A node as it is named in a reply."""
    return [host, port, b"id", list(more)]


def test_holders() -> None:
    """The first node of the range that a slot lies in holds it; replicas are known too, and come in no order of slots."""
    reply = [
        [5461, 16383, node(b"10.0.0.2", 7001), node(b"10.0.0.4", 7003)],
        [0, 99, node(b"10.0.0.1", 7000)],
        [101, 5460, node(b"10.0.0.1", 7000)],
    ]
    found = Slots.of(reply, SLOTS, "seed")
    first, second = ("10.0.0.1", 7000), ("10.0.0.2", 7001)
    assert {0: first, 5460: first, 5461: second, 16383: second} == found.holders
    assert [first, second, ("10.0.0.4", 7003)] == found.nodes


@pytest.mark.parametrize(
    ("host", "address"),
    [
        (b"redis-1.example", ("redis-1.example", 7000)),
        (b"::1", ("::1", 7000)),
        (None, ("seed", 7000)),  # cluster-preferred-endpoint-type unknown-endpoint
        (b"", ("seed", 7000)),  # it does not know its own address yet
        (b"?", None),  # it prefers host names, and has none
    ],
)
def test_host(host: bytes | None, address: tuple[str, int] | None) -> None:
    """A node without a host is the one that was asked; one of which nothing is known has no address."""
    found = Slots.of([[0, 16383, node(host, 7000, b"ip", b"10.0.0.9")]], SLOTS, "seed")
    assert dict.fromkeys(SLOTS, address) == found.holders
    assert [address] * (address is not None) == found.nodes


def test_reply_of_redis_6() -> None:
    """Older servers give a node's host, port and id alone."""
    assert {0: ("10.0.0.1", 7000)} == Slots.of([[0, 1, [b"10.0.0.1", 7000, b"id"]]], SLOTS, "seed").holders


@pytest.mark.parametrize(
    "reply", [b"OK", 1, None, [1], [[0, 1]], [[0, 1, []]], [[0, 1, [b"host", b"x"]]], [[0, 1, [1, 1]]]]
)
def test_no_map(reply: Any) -> None:
    """Another reply is an error of one of these kinds."""
    with pytest.raises((LookupError, TypeError, ValueError, AttributeError)):
        Slots.of(reply, SLOTS, "seed")
