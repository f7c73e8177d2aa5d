"""Which worker leads which partition. No I/O: every worker decides it alone, each second, from the heartbeats that it read.

Heartbeats are up to two seconds old, and workers read different ones. So a lease in Redis says who leads, and what is decided
here is only who gives up leases and who tries to take them. Each worker does this once a second, in this order:

1. It renews the leases of the partitions that it leads, with lead.lua's `renews`. It leads those no longer whose lease is
   another's or ran out, or could not be renewed for as long as a lease lasts.
2. It reads the heartbeats of the workers that are `alive`, in one of the places where they are stored if that `suffices`, else
   in all; and it puts what it knows of itself in place of its own.
3. `Candidate.decide` says what it does.
4. It gives up leases of partitions that others should lead.
5. It tries to take leases: now, and once more half a second later.
6. It writes its heartbeat: what it leads, and which partitions it cannot reach. It comes last, so that it never says that a worker
   leads what it just gave up: the others would wait for that worker, even if it died.

A worker that joins does no more than that. One that gets TERM removes its heartbeat at once, decides and renews no more, and
gives up each lease as soon as what it has in hand of that partition is accepted. The others then lead what it led.

tests/unit/test_ownership_simulation.py simulates this. With leases of 5,000 ms a partition is led again at most 6 s after its leader
died, at most 0.5 s after it was handed over to a worker that joined, and at most 2 s after a worker that got TERM gave it up.
"""

import struct
from array import array
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2s
from types import MappingProxyType

ALIVE_MS = 4000
"""A worker whose last heartbeat is older has died. It is written each second; the lease of a partition lasts 5,000 ms."""
RECENT_MS = 2000
"""A heartbeat of a live worker that is older may be newer elsewhere."""
IN_A_ROW = 3
"""Decisions in a row, a second apart, before a worker acts on what may be a stale heartbeat.

Two seconds: by then everybody has read what was written before the first of them.
"""


@dataclass(frozen=True, slots=True)
class Member:
    """A live worker, as its heartbeat says."""

    name: str
    owns: frozenset[int] = frozenset()
    """The partitions that it leads."""
    cannot: frozenset[int] = frozenset()
    """The partitions whose server it cannot reach."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a worker does about the leases of partitions."""

    give_up: frozenset[int]
    """Partitions that it leads and others should."""
    take: frozenset[int]
    """Partitions that it does not lead and tries to."""


class Candidate:
    """One worker, which decides second by second which leases to give up and to take."""

    def __init__(self, partitions: Collection[int], name: str) -> None:
        self._partitions = frozenset(partitions)
        self._name = name
        self._of_others: dict[int, int] = {}
        """For how many decisions in a row others should have led each partition that this worker leads."""
        self._of_nobody: dict[int, int] = {}
        """For how many decisions in a row no worker that reaches it has said that it leads this partition."""

    def decide(self, members: Collection[Member]) -> Decision:
        """What to do, from the heartbeats of all workers that are alive, this one among them.

        A partition is given up after `IN_A_ROW` decisions that another worker should lead it. That worker then knows, and
        tries to take it. What is over sooner, such as a short interruption, moves nothing.

        A partition that nobody has led for as long is taken even if another worker should lead it: it may have
        stopped without having been noticed, or have read other heartbeats.
        """
        [own] = [member for member in members if member.name == self._name]
        should = {
            partition for partition, name in assign(self._partitions, members).items() if name == self._name
        }
        led = frozenset[int]().union(*(member.owns - member.cannot for member in members))
        self._of_others = _count(self._of_others, own.owns - should)
        self._of_nobody = _count(self._of_nobody, self._partitions - led)
        should |= _in_a_row(self._of_nobody) - own.cannot
        return Decision(give_up=_in_a_row(self._of_others) - should, take=frozenset(should - own.owns))


def _count(before: Mapping[int, int], partitions: Iterable[int]) -> dict[int, int]:
    return {partition: before.get(partition, 0) + 1 for partition in partitions}


def _in_a_row(counts: Mapping[int, int]) -> frozenset[int]:
    return frozenset(partition for partition, count in counts.items() if count >= IN_A_ROW)


def alive(seen_ms: Mapping[str, int], now_ms: int) -> set[str]:
    """The workers that are alive, by when the last heartbeat of each was written; both by the same clock."""
    return {name for name, at in seen_ms.items() if now_ms - at < ALIVE_MS}


def suffices(ages_ms: Mapping[str, int], before: Collection[str], most: int) -> bool:
    """Whether the heartbeats that are in one place are enough to decide by; `ages_ms` is how old each worker's is there.

    They are not if that of a worker which was alive `before`, or is, is missing or not recent: that place may have lost what it
    knew, or not be reached by that worker. Nor are they if another place knew `most` workers a moment ago, and this one fewer.
    """
    recent = {name for name, age in ages_ms.items() if age < RECENT_MS}
    living = alive({name: -age for name, age in ages_ms.items()}, 0)
    return len(ages_ms) >= most and recent >= living.union(before)


def assign(partitions: Collection[int], members: Collection[Member]) -> Mapping[int, str]:
    """The worker that should lead each partition, by name; nothing for any if there is no member.

    With P partitions and W workers, each gets P / W of them, rounded down or up; but all that some worker
    reaches go to one that does, even if it then has more. A partition that nobody reaches counts as one that all do.

    A worker keeps what it leads unless it has too many: then it loses those it ranks lowest for. Partitions without a leader go to
    workers that have too few, to the one that ranks highest for it. Of two that say they lead a partition, the one that ranks higher keeps it.
    Ranks are those of rendezvous hashing (Thaler and Ravishankar, 1998), so all workers agree on them without talking.

    So if a worker joins or leaves while shares are even, at most P / W partitions move, rounded up.

    The result is kept: to ask again with equal arguments costs little.
    """
    return _assign(tuple(sorted(partitions)), tuple(sorted(members, key=lambda member: member.name)))


@lru_cache(maxsize=2)
def _assign(partitions: tuple[int, ...], members: tuple[Member, ...]) -> Mapping[int, str]:
    if not members or not partitions:
        return MappingProxyType({})
    shares = _Shares(partitions, members)
    if not shares.is_limited:
        shares.release()
    shares.place()
    shares.even_out()
    return MappingProxyType(shares.leaders())


class _Shares:
    """The partitions of each worker, while they are being assigned."""

    def __init__(self, partitions: Collection[int], members: Collection[Member]) -> None:
        self._partitions = frozenset(partitions)
        self._ranks = {member.name: _ranks(member.name, max(partitions) + 1) for member in members}
        unreachable = frozenset.intersection(*(member.cannot for member in members))
        self._cannot = {member.name: (member.cannot & self._partitions) - unreachable for member in members}
        self.is_limited = any(self._cannot.values())
        """Whether some worker cannot reach what another can."""
        self._of: dict[str, set[int]] = {member.name: set() for member in members}
        for partition, name in self._kept(members).items():
            self._of[name].add(partition)
        self._quota = self._quotas()

    def _kept(self, members: Iterable[Member]) -> dict[int, str]:
        """Who leads each partition now, of those that reach it."""
        kept: dict[int, str] = {}
        for member in members:
            ranks = self._ranks[member.name]
            for partition in (member.owns & self._partitions) - self._cannot[member.name]:
                other = kept.get(partition)
                if other is None or self._ranks[other][partition] < ranks[partition]:
                    kept[partition] = member.name
        return kept

    def _quotas(self) -> dict[str, int]:
        """How many partitions each should have; it stays the same while partitions change hands.

        If they cannot be divided evenly, those that lead one more keep it; then those that rank higher for partition 0 get one more.
        """
        fewest, more = divmod(len(self._partitions), len(self._of))
        by_need = sorted(self._of, key=lambda name: (len(self._of[name]) <= fewest, -self._ranks[name][0]))
        return {name: fewest + (n < more) for n, name in enumerate(by_need)}

    def release(self) -> None:
        """Takes from each worker what is over its quota."""
        for name, has in self._of.items():
            if (over := len(has) - self._quota[name]) > 0:
                has.difference_update(sorted(has, key=self._ranks[name].__getitem__)[:over])

    def place(self) -> None:
        """Gives the partitions that have no leader to workers, those first that the fewest can reach."""
        free = self._partitions.difference(*self._of.values())
        unable = [cannot for cannot in self._cannot.values() if cannot]
        room = [name for name, has in self._of.items() if len(has) < self._quota[name]]
        for partition in sorted(free, key=lambda one: (-sum(one in cannot for cannot in unable), one)):
            able = [name for name in room if partition not in self._cannot[name]]
            name = (
                max(able, key=lambda name: self._ranks[name][partition]) if able else self._least(partition)
            )
            self._of[name].add(partition)
            if able and len(self._of[name]) == self._quota[name]:
                room.remove(name)

    def _least(self, partition: int) -> str:
        """The worker with the fewest partitions of those that can reach this one."""
        able = (name for name in self._of if partition not in self._cannot[name])
        return min(able, key=lambda name: (len(self._of[name]), -self._ranks[name][partition]))

    def even_out(self) -> None:
        """Moves partitions from workers to others that have at least two fewer, until there are none that can be moved."""
        stuck: set[tuple[str, str]] = set()
        while pair := self._uneven(stuck):
            most, fewest = pair
            if can_move := self._of[most] - self._cannot[fewest]:
                partition = min(can_move, key=self._ranks[most].__getitem__)
                self._of[most].remove(partition)
                self._of[fewest].add(partition)
                stuck = {one for one in stuck if one[0] != fewest}
            else:
                stuck.add(pair)

    def _uneven(self, stuck: Collection[tuple[str, str]]) -> tuple[str, str] | None:
        """The most uneven two workers between which something may be moved."""
        by_size = sorted(self._of, key=lambda name: (len(self._of[name]), name))
        for most in reversed(by_size):
            for fewest in by_size:
                if len(self._of[most]) - len(self._of[fewest]) < 2:
                    break
                if (most, fewest) not in stuck:
                    return most, fewest
        return None

    def leaders(self) -> dict[int, str]:
        return {partition: name for name, has in self._of.items() for partition in has}


@lru_cache(maxsize=1024)
def _ranks(name: str, partitions: int) -> "array[int]":
    """How high a worker ranks for each partition: 64 bits of a hash of both; 32 bytes of BLAKE2s are for four partitions."""
    blocks = -(-partitions // 4)
    digests = b"".join(blake2s(f"{block} {name}".encode()).digest() for block in range(blocks))
    return array("Q", struct.unpack(f"<{blocks * 4}Q", digests))
