"""Partitions: which one a workspace's status changes belong to, and what its keys start with. No I/O.

An installation has P partitions, a number that is chosen once. With P = 1 keys have no tag. With more, every key of
partition i starts with `prefix:{tag}:`, and Redis Cluster hashes what is in the braces: all keys of a partition lie in one slot.
"""

import functools
import itertools
from binascii import crc_hqx
from dataclasses import dataclass

MOST = 1024
"""Most partitions of an installation."""
MOST_WIDTH = 64
"""Most partitions over which one workspace is spread."""
SLOTS = 16_384
"""Hash slots of a Redis Cluster."""


def crc16(text: str) -> int:
    """CRC-16/XMODEM of the UTF-8 text (polynomial 0x1021, initial value 0), as Redis Cluster takes it of a key."""
    return crc_hqx(text.encode(), 0)


def slot_of(tag: str) -> int:
    """The slot of all keys with this tag (Redis Cluster specification, "Hash tags")."""
    return crc16(tag) % SLOTS


@functools.lru_cache(4096)
def slot_of_key(key: str) -> int:
    """The slot of a key: that of its tag, if it has one (Redis Cluster specification, "Hash tags")."""
    tag, closed, _ = key.partition("{")[2].partition("}")
    return slot_of(tag if tag and closed else key)


@functools.cache
def tags(partitions: int) -> tuple[str, ...]:
    """The tag of each partition; one empty tag for one partition.

    The slots are divided into as many stretches of equal length as there are partitions. The tag of partition i is the
    smallest number, in decimal digits, whose slot lies in stretch i, counted from 0: so partitions are spread evenly over the nodes
    of a cluster, which hold stretches of slots.
    """
    if partitions == 1:
        return ("",)
    found: dict[int, str] = {}
    for number in itertools.count():
        found.setdefault(slot_of(str(number)) * partitions // SLOTS, str(number))
        if len(found) == partitions:
            return tuple(found[one] for one in range(partitions))
    raise AssertionError


def another_number(found: int, given: int) -> str:
    """What to say to a process whose number of partitions is not the installation's."""
    return (
        f"Redis holds an installation with {found} partition{'' if found == 1 else 's'}, and DISPATCHER_PARTITIONS is {given}: "
        f"set it to {found}. It cannot be changed later (docs/partitions.md)"
    )


@dataclass(frozen=True, slots=True)
class EarlierWidth:
    """A width that a workspace had until `until_ms` (ms since 1970), when it grew."""

    width: int
    until_ms: int

    @classmethod
    def parse(cls, text: str) -> "EarlierWidth":
        """Parses what `str` returns. Raises ValueError."""
        width, _, until_ms = text.partition("@")
        return cls(int(width), int(until_ms))

    def __str__(self) -> str:
        return f"{self.width}@{self.until_ms}"


@dataclass(frozen=True, slots=True)
class Partitioning:
    """How an installation is divided."""

    partitions: int = 1
    has_previous: bool = False
    """Whether the installation has grown from one Redis, which is drained as one more partition (docs/partitions.md, "From one Redis")."""

    @property
    def previous(self) -> int | None:
        """The number of that one; it is no workspace's home, and each workspace may have something there."""
        return self.partitions if self.has_previous else None

    @property
    def all(self) -> range:
        """The numbers of all partitions, the previous Redis included."""
        return range(self.partitions + self.has_previous)

    def home(self, workspace: str) -> int:
        """The first partition of a workspace; its only one, if its width is 1."""
        return crc16(workspace) % self.partitions if self.partitions > 1 else 0

    def of(self, workspace: str, message_uuid: str, width: int = 1) -> int:
        """The partition of a message's status changes; `width` is over how many partitions the workspace is spread."""
        home = self.home(workspace)
        if width == 1:
            return home
        return (home + crc16(message_uuid) % self.width(width)) % self.partitions

    def all_of(self, workspace: str, width: int = 1) -> list[int]:
        """The partitions that may have something of a workspace: its home first, the previous Redis last."""
        home = self.home(workspace)
        own = [(home + further) % self.partitions for further in range(self.width(width))]
        return own if self.previous is None else [*own, self.previous]

    def width(self, width: int) -> int:
        """The width that a workspace's has effect as: at most all partitions."""
        return min(width, self.partitions)
