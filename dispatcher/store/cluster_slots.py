"""Reads a reply to CLUSTER SLOTS."""

from bisect import bisect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Address = tuple[str, int]
"""Host and port."""


@dataclass(frozen=True, slots=True)
class Slots:
    """What a reply to CLUSTER SLOTS says."""

    holders: Mapping[int, Address | None]
    """The primary of each slot that was asked for; none if it has no address."""
    nodes: list[Address]
    """All nodes that it names, replicas too."""

    @classmethod
    def of(cls, reply: Any, slots: Collection[int], host: str) -> "Slots":
        """Reads a reply; `host` is where it came from.

        Raises LookupError, TypeError, ValueError or AttributeError if it is none.
        """
        found = [(first, last, [_address(one, host) for one in nodes]) for first, last, *nodes in reply]
        ranges = sorted(found, key=lambda one: one[0])
        firsts = [first for first, _, _ in ranges]
        holders = {}
        for slot in slots:
            place = bisect(firsts, slot) - 1
            if place >= 0 and slot <= ranges[place][1]:
                holders[slot] = ranges[place][2][0]
        named = dict.fromkeys(address for _, _, nodes in ranges for address in nodes if address)
        return cls(holders, list(named))


def _address(node: Sequence[Any], host: str) -> Address | None:
    """A node's address. Without a host it is the one that was asked; of `?` nothing is known (Redis's page on CLUSTER SLOTS)."""
    named = (node[0] or b"").decode()
    return None if named == "?" else (named or host, int(node[1]))
