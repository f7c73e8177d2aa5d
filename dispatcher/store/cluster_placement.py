"""The nodes of a Redis Cluster, as a producer knows them. No I/O: `round_trips.py` sends.

Every command has one key, which it names, so following MOVED and ASK is right. After a broken connection nothing is sent again:
the caller decides that. But the map is read again before the next command, which finds the replica that was promoted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from redis.exceptions import AskError, ClusterDownError, ConnectionError, MovedError, TimeoutError

from dispatcher.rules.partitions import slot_of_key
from dispatcher.store.placement import Command, Target, grouped
from dispatcher.store.redis_url import RedisUrl
from dispatcher.store.round_trips import Request, Trips

CLUSTER_SLOTS = ("CLUSTER", "SLOTS")


class ClusterPlacement:
    """Which node holds a slot, as far as is known.

    start: URLs of the nodes to ask first
    url_of: the URL of a node, by host and port
    """

    def __init__(self, start: Sequence[str], url_of: Callable[[str, int], str]) -> None:
        self._start = start
        self._url_of = url_of
        self._holders: dict[int, str] = {}
        self._nodes: list[str] = []
        """Those that hold slots, each once."""
        self._made_of: tuple[str, Any] = "", None
        """Who said the map, and what: the same again changes nothing, and 16,384 slots are not written anew."""
        self._is_stale = True
        self._away: set[str] = set()
        """Nodes that have not answered when last asked: until they do, or hold nothing, the map is read each time."""
        self._silent: set[str] = set()
        """Nodes that did not say the map when last asked: the others are asked first."""

    def prepare(self) -> Trips[tuple[str, Exception] | None]:
        """Reads the map, if it is not known or known to be wrong; returns which node could not say it, and why.

        One node is asked, and if it does not answer all others at once: so nodes that are away cost two time-outs at most.
        """
        if not (self._is_stale or self._away):
            return None
        known = list(dict.fromkeys([*self._nodes, *self._start]))
        known.sort(key=lambda node: node in self._away or node in self._silent)  # those come last
        failed: tuple[str, Exception] | None = None
        for nodes in (known[:1], known[1:]):
            replies = (yield [Request(node, [CLUSTER_SLOTS]) for node in nodes]) if nodes else []
            for node, (reply,) in zip(nodes, replies, strict=True):
                if not isinstance(reply, Exception):
                    self._silent.discard(node)
                    self._take(reply, node)
                    return None
                self._silent.add(node)
                failed = node, reply
        return failed

    def _take(self, reply: Sequence[Any], asked: str) -> None:
        """Makes the map of a reply to CLUSTER SLOTS, unless it is made of that."""
        if self._is_stale or self._made_of != (asked, reply):
            self._holders = dict(self._read(reply, asked))
            self._nodes = list(dict.fromkeys(self._holders.values()))
            self._made_of = asked, reply
            self._is_stale = False
        self._away.intersection_update(self._nodes)

    def node(self, command: Command) -> str:
        """The URL of the node that holds a command's key; of any node if it is not known, which then says it."""
        return self._holders.get(slot_of_key(command.key)) or self._start[0]

    def group(self, commands: Sequence[Command]) -> Mapping[str, Sequence[int]]:
        """The numbers of the commands that go to each node."""
        return grouped(self, commands)

    def answered(self, node: str) -> None:
        """The node is not away."""
        self._away.discard(node)
        self._silent.discard(node)

    def redirected(self, node: str, reply: Any) -> Target | None:
        """Follows MOVED and ASK. A node that is away, or without the others, makes the map one to read again."""
        match reply:
            case MovedError():
                self._is_stale = True
                holder = self._url(reply.host, reply.port, node)
                if (
                    self._holders.get(reply.slot_id) != holder
                ):  # of many commands for a slot the first one says it
                    self._holders = {**self._holders, reply.slot_id: holder}
                return Target(holder, False)
            case AskError():
                return Target(self._url(reply.host, reply.port, node), True)
            case ConnectionError() | TimeoutError() | OSError():
                self._away.add(node)
            case ClusterDownError():
                self._is_stale = True
        return None

    def _read(self, reply: Sequence[Any], asked: str) -> Iterator[tuple[int, str]]:
        """The holders of slots in a reply to CLUSTER SLOTS."""
        for first, last, (host, port, *_), *_replicas in reply:
            url = self._url((host or b"").decode(), port, asked)
            for slot in range(first, last + 1):
                yield slot, url

    def _url(self, host: str, port: int, asked: str) -> str:
        """A node's URL; a node that does not know its own host means the one that was asked."""
        return self._url_of(RedisUrl.parse(asked).host if host in ("", "?") else host, port)
