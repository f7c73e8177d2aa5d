"""What the servers hold of all partitions: one Redis, or a cluster."""

from collections.abc import Iterable
from typing import Any

from dispatcher.rules.partitions import Partitioning
from dispatcher.store.entry import Entry, read_entry
from dispatcher.store.keys import Keys, keys_of

LEFTOVERS = ("lane", "leased", "chain")


class Ledgers:
    """Reads the ledgers. `client` is a client of one Redis, or of a cluster: it finds the node of each key."""

    def __init__(self, client: Any, partitions: int = 1) -> None:
        self.client = client
        self.keys = keys_of("dispatcher", partitions)
        self._partitioning = Partitioning(partitions)

    def keys_for(self, workspace: str) -> Keys:
        """The keys of a workspace's partition."""
        return self.keys[self._partitioning.home(workspace)]

    def entries(self, event_ids: Iterable[tuple[str, str]]) -> list[Entry | None]:
        """The entry of each (workspace, eventId); None where there is none."""
        pipe = self.client.pipeline(transaction=False)
        for workspace, event_id in event_ids:
            pipe.get(self.keys_for(workspace).event(workspace, event_id))
        return [None if raw is None else read_entry(raw) for raw in pipe.execute()]

    def queue_length(self) -> int:
        """Entries on all queues."""
        return sum(self.client.xlen(keys.events) for keys in self.keys)

    def queued(self) -> set[bytes]:
        """The status changes on all queues."""
        return {one.get(b"event", b"") for keys in self.keys for _, one in self.client.xrange(keys.events)}

    def rejected(self) -> set[str]:
        """The eventIds in `rejected`."""
        found = (one for keys in self.keys for _, one in self.client.xrange(keys.rejected))
        return {one.get(b"eventId", b"").decode() for one in found}

    def leased(self) -> int:
        """Callbacks in workers' hands."""
        return leased_at(self.client)

    def scheduled(self) -> int:
        """Endpoints of which something is to be done."""
        return sum(self.client.zcard(keys.schedule) for keys in self.keys)

    def owned(self) -> bool:
        """Whether each partition is led by a worker."""
        return all(self.client.exists(keys.intake) for keys in self.keys)

    def leftovers(self) -> list[str]:
        """What may not be there once all has ended."""
        left = [key.decode() for kind in LEFTOVERS for key in _of_kind(self.client, kind)]
        for keys in self.keys:
            left += [key for key in (keys.schedule, keys.expiries) if self.client.zcard(key)]
            if self.client.exists(keys.events) and self.client.xinfo_groups(keys.events):
                pending = self.client.xpending(keys.events, "workers")["pending"]
                left += [f"entries of {keys.events} read and not accepted"] * bool(pending)
        return left


def leased_at(client: Any) -> int:
    """Callbacks in workers' hands, as one server or cluster knows."""
    return sum(client.zcard(key) for key in _of_kind(client, "leased"))


def _of_kind(client: Any, kind: str) -> list[bytes]:
    """Keys of endpoints, in any partition."""
    return [key for key in client.scan_iter(f"dispatcher:*{kind}:*", count=1000) if _kind(key) == kind]


def _kind(key: bytes) -> str:
    _, first, second, *_ = key.decode().split(":", 3)
    return second if first.startswith("{") else first
