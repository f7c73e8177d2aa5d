"""Has servers confirm that what was just written to them is on a disk and at replicas. No I/O: `round_trips.py` sends.

A confirmation is for what the same connection wrote before, so it is asked for in the pipeline of the writes.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from dispatcher.errors import InvalidInput, RedisUnavailable, kind_of
from dispatcher.store.connection import SOCKET_TIMEOUT_SECONDS, safe_url
from dispatcher.store.round_trips import Request, Trips, Word
from dispatcher.store.topology import Topology

_SHARE = 0.9
"""Of the time after which a client gives up a reply: so long may a server wait for its replicas."""


_PROBE: tuple[Word, ...] = ("WAITAOF", 1, 0, 1)
"""Asks whether a server can confirm at all, and waits for no more than a millisecond."""


@dataclass(frozen=True, slots=True)
class _Node:
    replicas: int
    """How many must confirm."""
    has_waitaof: bool


class Durability:
    """What the servers of one call have to confirm.

    durable: True or 1 for the server's disk and one replica, if it has one; more for so many replicas
    """

    def __init__(self, durable: int) -> None:
        self._replicas = int(durable)
        self._nodes: dict[str, _Node] = {}

    def learn(self, nodes: Collection[str]) -> Trips[dict[str, Exception]]:
        """Finds out what each server can confirm; returns why for those that cannot."""
        new = [node for node in nodes if node not in self._nodes]
        if not new:
            return {}
        replies = yield [Request(node, [("ROLE",), _PROBE]) for node in new]
        failed: dict[str, Exception] = {}
        for node, (role, waitaof) in zip(new, replies, strict=True):
            try:
                self._nodes[node] = self._read(node, role, waitaof)
            except (RedisError, OSError, RedisUnavailable) as error:
                failed[node] = error
        return failed

    def _read(self, node: str, role: Any, waitaof: Any) -> _Node:
        if isinstance(role, Exception):
            raise role
        if isinstance(waitaof, NoPermissionError):
            raise waitaof
        if _lacks_file(waitaof):
            raise _without_file(node, "nothing was put on its queue")
        has_waitaof = not isinstance(waitaof, ResponseError) or "unknown command" not in str(waitaof).lower()
        attached = len(role[2]) if isinstance(role[2], list | tuple) else 0  # a replica says a port there
        wanted = min(1, attached) if self._replicas == 1 else self._replicas
        if not has_waitaof and not wanted:
            raise RedisUnavailable(
                f"Redis at {safe_url(node)} is older than 7.2 and has no replica, so it cannot confirm that anything is kept. "
                "Attach a replica, take Redis 7.2 or Valkey, or enqueue without durable"
            )
        return _Node(wanted, has_waitaof)

    def words(self, node: str) -> tuple[Word, ...]:
        """The command that waits; for a server that `learn` knows."""
        known = self._nodes[node]
        local: tuple[Word, ...] = ("WAITAOF", 1) if known.has_waitaof else ("WAIT",)
        return (*local, known.replicas, _wait_ms(node))

    def failure(self, node: str, reply: Any) -> Exception | None:
        """Why what was written before is not confirmed, if it is not; `reply` is that to `words`."""
        if _lacks_file(reply):
            return _without_file(node, "the status changes may nevertheless be on the queue")
        if isinstance(reply, Exception):
            return reply
        known = self._nodes[node]
        local, replicas = reply if known.has_waitaof else (1, reply)
        if local >= 1 and replicas >= known.replicas:
            return None
        disk = ("its disk and " if local else "its disk has not, and ") if known.has_waitaof else ""
        return RedisUnavailable(
            f"Redis at {safe_url(node)} has not confirmed in {_wait_ms(node) / 1000:g} s what durable asks for: "
            f"{disk}{replicas} of {known.replicas} replicas have; the status changes may nevertheless be on the queue"
        )


def _lacks_file(reply: object) -> bool:
    """Whether a server says that it writes no append-only file."""
    return isinstance(reply, ResponseError) and "appendonly" in str(reply)


def _without_file(node: str, queue: str) -> RedisUnavailable:
    return RedisUnavailable(
        f"Redis at {safe_url(node)} keeps no append-only file, so it cannot confirm that anything is on its disk; {queue}. "
        "Set appendonly yes there, or enqueue without durable"
    )


MOST_REPLICAS = 1_000
"""No server has more, and Redis takes no number above 2^63."""


def read_durable(durable: object) -> "Durability | None":
    """The argument `durable` of a producer. Raises InvalidInput."""
    if not isinstance(durable, int) or not 0 <= durable <= MOST_REPLICAS:
        is_short = isinstance(durable, int | float) and abs(durable) < 10**30
        what = f"{durable:,}" if is_short else kind_of(durable).removeprefix("is ")
        raise InvalidInput(
            f"durable is True, False, or how many replicas must confirm (at most {MOST_REPLICAS:,}), not {what}"
        )
    return Durability(durable) if durable else None


def _wait_ms(node: str) -> int:
    """How long a server may wait, ms: less than its client waits for it, or the client would give up the connection."""
    try:
        seconds: float = Topology.parse(node).server.others.get("socket_timeout", SOCKET_TIMEOUT_SECONDS)
    except InvalidInput:  # of a client that the caller has made
        seconds = SOCKET_TIMEOUT_SECONDS
    return max(1, round(min(seconds, SOCKET_TIMEOUT_SECONDS) * _SHARE * 1000))
