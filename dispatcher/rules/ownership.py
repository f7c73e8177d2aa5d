"""Which worker leads which partition. No I/O: every worker decides it alone, from what heartbeats say."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """A live worker, as its heartbeat says."""

    name: str
    owns: frozenset[int] = frozenset()
    """The partitions that it leads."""
    cannot: frozenset[int] = frozenset()
    """The partitions whose server it cannot reach."""


def assign(partitions: Collection[int], members: Collection[Member]) -> Mapping[int, str]:
    """The worker that is to lead each partition, by name; nothing for any if there is no member."""
    raise NotImplementedError
