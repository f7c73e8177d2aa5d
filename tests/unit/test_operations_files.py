"""Dashboard, alert rules, manifests and the documents of operations name what there is, and open nothing.

What a deployment must not allow is asserted of every unit, service and container that there is: a new one that forgets
it fails.
"""

import configparser
import ipaddress
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from config.environment import PREFIX
from config.settings import Settings
from dispatcher.health import PATHS
from tasks import command_docs
from tasks.api_protocol import SHUTDOWN_SECONDS

ROOT = Path(__file__).parents[2]
METRICS = set(re.findall(r"^\| `(dispatcher_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.M))
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
RULES = yaml.safe_load((ROOT / "config" / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((ROOT / "config" / "grafana" / "dispatcher.json").read_text())
MANIFESTS = [
    manifest
    for path in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
    for manifest in yaml.safe_load_all(path.read_text())
]
PODS = {
    manifest["metadata"]["name"]: manifest["spec"]["template"]
    for manifest in MANIFESTS
    if "template" in manifest.get("spec", {})
}
OURS = [name for name, pod in PODS.items() if pod["metadata"]["labels"]["app"] == "dispatcher"]
POLICIES = [manifest["spec"] for manifest in MANIFESTS if manifest["kind"] == "NetworkPolicy"]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
CLUSTER_COMPOSE = yaml.safe_load((ROOT / "docker-compose.cluster.yml").read_text())["services"]
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()

HARDENED = """
NoNewPrivileges=true CapabilityBoundingSet= AmbientCapabilities= ProtectSystem=strict ProtectHome=true
ProtectProc=invisible ProtectClock=true ProtectHostname=true ProtectKernelLogs=true ProtectKernelModules=true
ProtectKernelTunables=true ProtectControlGroups=true PrivateTmp=true PrivateDevices=true PrivateUsers=true
PrivateMounts=true RemoveIPC=true UMask=0077 LockPersonality=true RestrictNamespaces=true RestrictRealtime=true
RestrictSUIDSGID=true SystemCallArchitectures=native User=dispatcher
"""
MAX_EXPOSURE = 1.5
"""By `systemd-analyze security`, whose scale ends at 10."""

NOT_PUBLIC = """
10.1.2.3 100.64.0.1 127.0.0.1 168.63.129.16 169.254.169.254 172.16.0.1 172.31.255.255 192.168.1.1 0.0.0.0 198.18.0.1
224.0.0.1 255.255.255.255 ::1 fc00::1 fd00:ec2::254 fe80::1 ff02::1 64:ff9b::a9fe:a9fe
"""


def metrics_in(expression: str) -> set[str]:
    """The metrics of an expression, by their documented names."""
    return {re.sub(r"_bucket$", "", name) for name in re.findall(r"\bdispatcher_\w+", expression)}


def anchors() -> set[str]:
    """What headings of operations.md can be linked by."""
    headings = re.findall(r"^#+ (.*)$", OPERATIONS, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_commands_are_documented() -> None:
    """docs/commands.md is what `make docs` writes: every command with every option."""
    assert command_docs.written() == command_docs.DOCUMENT.read_text()


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_alert(rule: dict[str, object]) -> None:
    """An alert is made of documented metrics, and its runbook is a chapter that names it."""
    assert metrics_in(str(rule["expr"])) <= METRICS
    runbook = rule["annotations"]["runbook"]  # type: ignore[index]
    assert runbook.removeprefix("docs/operations.md#") in anchors()
    assert f"`{rule['alert']}`" in OPERATIONS


def test_dashboard() -> None:
    """The dashboard is made of documented metrics, has each of them, and every panel says what it shows."""
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    used = {name for panel in panels for target in panel["targets"] for name in metrics_in(target["expr"])}
    assert METRICS == used
    assert all(panel["description"] for panel in panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here (Debian: prometheus)")
def test_promtool() -> None:
    """Prometheus's own tool finds nothing wrong with the rules."""
    rules = ROOT / "config" / "prometheus" / "alerts.yml"
    done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "manifest", MANIFESTS, ids=[f"{m['kind']} {m['metadata']['name']}" for m in MANIFESTS]
)
def test_manifest(manifest: dict[str, object]) -> None:
    """A manifest is what Kubernetes's schema says, with no field it does not know."""
    kubernetes_validate.validate(manifest, "1.33", strict=True)


@pytest.mark.parametrize("unit", UNITS, ids=[unit.name for unit in UNITS])
def test_unit(unit: Path) -> None:
    """A unit starts a command that there is; systemd's own tool finds nothing else wrong with it, where it is."""
    parsed = configparser.RawConfigParser(strict=False)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read(unit)
    command = parsed["Service"]["ExecStart"].split()[1]
    assert f"## dispatcher {command}\n" in command_docs.written()
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
        )
        said = [line for line in done.stderr.splitlines() if "is not executable" not in line]
        assert [] == [line for line in said if unit.name.partition("@")[0] in line]


@pytest.mark.parametrize("unit", UNITS, ids=[unit.name for unit in UNITS])
def test_unit_is_hardened(unit: Path) -> None:
    """A unit may do what it needs and nothing else, and systemd's own tool agrees, where it is."""
    lines = unit.read_text().splitlines()
    assert [] == [line for line in HARDENED.split() if line not in lines]
    assert ["@system-service", "~@privileged"] == [
        line.partition("=")[2] for line in lines if line.startswith("SystemCallFilter=")
    ]
    assert "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK" in lines
    if shutil.which("systemd-analyze"):
        command = ["systemd-analyze", "security", "--offline=true", unit]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if level := re.search(
            r"exposure level for .*: ([0-9.]+) ", done.stdout
        ):  # older ones cannot do it offline
            assert float(level[1]) <= MAX_EXPOSURE


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_hardened(name: str) -> None:
    """A service of the compose file has a read-only root, no capabilities, and ports at this machine only."""
    service = SERVICES[name]
    assert (True, ["ALL"], ["no-new-privileges:true"]) == (
        service["read_only"],
        service["cap_drop"],
        service["security_opt"],
    )
    assert set() == service.keys() & {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert not any("docker.sock" in volume for volume in service.get("volumes", ()))
    # Compose copies these into the container, which its read-only root refuses
    assert set() == service.keys() & {"configs", "secrets"}


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_an_exact_image(name: str) -> None:
    """An image is named by an exact version that a digest can replace; ours is built on such a one."""
    service = SERVICES[name]
    image = service["build"]["args"]["PYTHON_IMAGE"] if "build" in service else service["image"]
    found = re.fullmatch(r"\$\{[A-Z]+_IMAGE:-([\w./-]+:v?[0-9]+\.[0-9]+\.[0-9]+[\w.-]*)\}", image)
    assert found
    if "build" in service:
        assert f"ARG PYTHON_IMAGE={found[1]}\n" in DOCKERFILE
        assert ["${PYTHON_IMAGE}"] * 2 == re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)


def test_the_compose_file_of_a_cluster() -> None:
    """Its nodes are hardened as all services are; what is ours gets the cluster, and the single Redis as the broker."""
    nodes = {name: one for name, one in CLUSTER_COMPOSE.items() if "image" in one}
    assert {f"node-{number}" for number in range(1, 7)} | {"cluster"} == set(nodes)
    for one in nodes.values():
        assert (True, ["ALL"], ["no-new-privileges:true"]) == (
            one["read_only"],
            one["cap_drop"],
            one["security_opt"],
        )
        assert set() == one.keys() & {"ports", "configs", "secrets"}
    for name in (name for name, service in SERVICES.items() if "build" in service):
        environment = CLUSTER_COMPOSE[name]["environment"]
        assert "build" in SERVICES[name]
        assert environment["DISPATCHER_REDIS_URL"].startswith(
            "redis+cluster://:${REDIS_PASSWORD}@node-1:6379,"
        )
        assert (
            SERVICES["worker"]["environment"]["DISPATCHER_REDIS_URL"] == environment["DISPATCHER_BROKER_URL"]
        )
        assert "256" == environment["DISPATCHER_PARTITIONS"]


def test_passwords_of_the_compose_file() -> None:
    """Each password is required, has no default, and stands in no process's arguments."""
    names = set(re.findall(r"\$\{?(\w*PASSWORD\w*)", COMPOSE_TEXT))
    assert {"REDIS_PASSWORD", "GRAFANA_PASSWORD"} == names
    assert not re.search(r"PASSWORD:?-", COMPOSE_TEXT)
    for name in names:
        assert f"${{{name}:?" in COMPOSE_TEXT
        assert f"{name}=%s" in (ROOT / "README.md").read_text()
    for service in SERVICES.values():
        said = json.dumps([service.get("command"), service.get("entrypoint"), service.get("healthcheck")])
        assert "PASSWORD" not in said
    ours = [service for service in SERVICES.values() if "build" in service]
    assert {"redis://:${REDIS_PASSWORD}@redis:6379/0"} == {
        service["environment"]["DISPATCHER_REDIS_URL"] for service in ours
    }
    assert "requirepass $$REDISCLI_AUTH" in SERVICES["redis"]["command"][-1].splitlines()
    assert "GF_AUTH_ANONYMOUS_ENABLED" not in SERVICES["grafana"]["environment"]


@pytest.mark.parametrize("name", PODS)
def test_pod_is_hardened(name: str) -> None:
    """A pod has no token of Kubernetes, runs as nobody, and each of its containers may write and do nothing else."""
    spec = PODS[name]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert (True, {"type": "RuntimeDefault"}) == (
        spec["securityContext"]["runAsNonRoot"],
        spec["securityContext"]["seccompProfile"],
    )
    assert set() == spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    assert [] == [volume for volume in spec.get("volumes", ()) if "hostPath" in volume]
    for container in spec["containers"] + spec.get("initContainers", []):
        assert {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        } == container["securityContext"]
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        assert "livenessProbe" in container
        assert container.keys() & {"readinessProbe", "startupProbe"}
        assert re.fullmatch(r"[\w./-]+:v?[0-9]+\.[0-9]+\.[0-9]+(@sha256:[0-9a-f]{64})?", container["image"])


def policies_of(labels: dict[str, str], direction: str) -> Iterator[dict[str, Any]]:
    """The network policies that hold for pods with these labels."""
    for policy in POLICIES:
        if (
            policy["podSelector"]["matchLabels"].items() <= labels.items()
            and direction in policy["policyTypes"]
        ):
            yield policy


@pytest.mark.parametrize("name", PODS)
def test_network_of_a_pod(name: str) -> None:
    """A pod may be connected to at its own ports only, by named ones, and may reach DNS, Redis and what is public."""
    labels = PODS[name]["metadata"]["labels"]
    ingress = [rule for one in policies_of(labels, "Ingress") for rule in one.get("ingress", ())]
    assert all(rule["from"] and all(rule["from"]) for rule in ingress)
    ports = {
        port["containerPort"] for container in PODS[name]["spec"]["containers"] for port in container["ports"]
    }
    assert ports == {port["port"] for rule in ingress for port in rule["ports"]}
    egress = [rule for one in policies_of(labels, "Egress") for rule in one.get("egress", ())]
    assert all(rule["to"] and all(rule["to"]) and rule["ports"] for rule in egress)
    blocks = [to["ipBlock"] for rule in egress for to in rule["to"] if "ipBlock" in to]
    assert [] == [address for address in NOT_PUBLIC.split() if allowed(address, blocks)]
    reaches = [allowed(address, blocks) for address in ("1.1.1.1", "2606:4700::1111")]
    assert [labels["part"] in ("worker", "console")] * 2 == reaches  # the console sends test callbacks


def served(part: str) -> dict[str, Any]:
    """The pod of a part that the cluster sends requests to."""
    pod: dict[str, Any] = PODS[f"dispatcher-{part}"]["spec"]
    return pod


@pytest.mark.parametrize("part", ["api", "console"])
def test_a_pod_that_is_sent_requests_ends_late(part: str) -> None:
    """It still takes connections while the cluster hears of its end, and has time for what is under way after that."""
    [container] = served(part)["containers"]
    waits, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert ("sleep", True) == (waits, int(seconds) >= 5)
    assert int(seconds) + SHUTDOWN_SECONDS + 1 < served(part)["terminationGracePeriodSeconds"]


def test_what_a_manifest_needs_is_in_its_head() -> None:
    """Applying dispatcher.yaml starts nothing that its head does not prepare; the console's names the two things it is refused without."""
    folder = ROOT / "deploy" / "kubernetes"
    assert "[dispatcher, console" not in (folder / "dispatcher.yaml").read_text()
    head = (folder / "console.yaml").read_text().partition("apiVersion")[0]
    assert "DISPATCHER_CONSOLE_URL" in head
    assert "dispatcher console-key add" in head


def allowed(address: str, blocks: list[dict[str, Any]]) -> bool:
    """Whether an address is in one of the blocks."""
    one = ipaddress.ip_address(address)
    return any(
        one in ipaddress.ip_network(block["cidr"])
        and not any(one in ipaddress.ip_network(part) for part in block.get("except", ()))
        for block in blocks
    )


def test_network_of_redis() -> None:
    """Redis may be connected to by the dispatcher's pods only."""
    [policy] = [one for one in POLICIES if one["podSelector"]["matchLabels"] == {"app": "redis"}]
    assert [
        {
            "from": [{"podSelector": {"matchLabels": {"app": "dispatcher"}}}],
            "ports": [{"protocol": "TCP", "port": 6379}],
        }
    ] == policy["ingress"]


def test_the_valkey_cluster_of_kubernetes() -> None:
    """Its six pods are on as many machines, one goes at a time, and its bus is open to them alone."""
    [stateful] = [one["spec"] for one in MANIFESTS if one["kind"] == "StatefulSet"]
    labels = stateful["template"]["metadata"]["labels"]
    [apart] = stateful["template"]["spec"]["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert (6, "kubernetes.io/hostname", labels) == (
        stateful["replicas"],
        apart["topologyKey"],
        apart["labelSelector"]["matchLabels"],
    )
    [budget] = [
        one["spec"] for one in MANIFESTS if one["metadata"]["name"] == "valkey" and "Budget" in one["kind"]
    ]
    assert 1 == budget["maxUnavailable"]
    rules = [rule for policy in policies_of(labels, "Ingress") for rule in policy["ingress"]]
    bus = [rule["from"] for rule in rules if any(port["port"] == 16379 for port in rule["ports"])]
    assert [[{"podSelector": {"matchLabels": labels}}]] == bus


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of each package of a requirements file."""
    found = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / name).read_text()):
        if not entry.startswith("#"):
            wanted = Requirement(entry.partition("\\")[0].strip())
            hashes = re.findall(r"--hash=(sha256:[0-9a-f]{64})", entry)
            found[canonicalize_name(wanted.name)] = (str(wanted.specifier).removeprefix("=="), hashes)
    return found


def test_every_package_is_pinned_by_hash() -> None:
    """requirements*.txt are what `make lock` makes of constraints.txt and pyproject.toml: say it after a change."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    everything, image = locked("requirements-dev.txt"), locked("requirements.txt")
    demo, traced = locked("requirements-demo.txt"), locked("requirements-otel.txt")
    assert {canonicalize_name(name): version for name, version in pins.items()} == {
        name: version for name, (version, _) in everything.items()
    }
    assert all(hashes for _, hashes in everything.values())
    assert image.items() <= everything.items()
    assert demo.items() <= everything.items()
    assert image.items() <= traced.items() <= everything.items()
    assert not any("opentelemetry-sdk" in one for one in (image, demo))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for wanted, there in (
        ([*project["dependencies"], *extras["worker"], *extras["api"], *extras["build"]], image),
        (extras["otel"], traced),
        ([*project["dependencies"], *extras["worker"], *extras["demo"], *extras["build"]], demo),
        ([text for extra in extras.values() for text in extra], everything),
    ):
        names = {canonicalize_name(Requirement(text).name) for text in wanted} - {project["name"]}
        assert set() == names - there.keys()


def test_nothing_is_installed_without_hashes() -> None:
    """What pip installs is checked by hash, or is this checkout, without what it needs."""
    image = re.findall(r"pip install (.*)", (ROOT / "Dockerfile").read_text())
    assert 2 == len(image)
    assert "--require-hashes -r ${REQUIREMENTS}" in image[0]
    assert "--no-deps --no-build-isolation ." in image[1]
    here = re.findall(r"^    pip\((.*), lock=lock", (ROOT / ".ci" / "install.py").read_text(), re.M)
    assert ['"--require-hashes", "-r", str(requirements)', '"--no-build-isolation", "-e", str(ROOT)'] == here
    assert "pip install" not in (ROOT / "Makefile").read_text()


def test_settings_that_operations_names_exist() -> None:
    """A setting in operations.md, the manifests or the compose file is one that there is."""
    known = {name.upper() for name in Settings.model_fields}
    text = OPERATIONS + "".join(path.read_text() for path in (ROOT / "deploy").rglob("*.*")) + COMPOSE_TEXT
    assert set(re.findall(rf"{PREFIX}([A-Z_]+)\b", text)) <= known
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", OPERATIONS))
    assert named <= {PREFIX + name for name in known}, "in operations.md with the prefix"


def test_commands_that_operations_names_exist() -> None:
    """A command in operations.md is one that there is."""
    written = command_docs.written()
    named = set(re.findall(r"dispatcher ([a-z-]+(?: [a-z-]+)?)", re.sub(r"\n\s*", " ", OPERATIONS)))
    commands = set(re.findall(r"^## dispatcher (.*)$", written, re.M))
    words = [command.split() for command in commands]
    known = {" ".join(one[:count]) for one in words for count in range(1, len(one) + 1)}
    assert set() == {name for name in named if name not in known and name.partition(" ")[0] not in commands}


def test_log_events_that_operations_names_exist() -> None:
    """A log event in operations.md is one that some code writes."""
    source = "".join(
        path.read_text()
        for folder in ("dispatcher", "tasks", "config")
        for path in (ROOT / folder).rglob("*.py")
    )
    named = set(re.findall(r"`([a-z]+\.[a-z_]+)`", OPERATIONS))
    assert named
    assert set() == {name for name in named if f'"{name}"' not in source}


@pytest.mark.parametrize("name", OURS)
def test_probes(name: str) -> None:
    """Each container is started anew only where it does not live, and is asked at a port that it has."""
    for container in PODS[name]["spec"]["containers"]:
        probes = {kind: probe["httpGet"] for kind, probe in container.items() if kind.endswith("Probe")}
        assert {"livenessProbe", "readinessProbe"} <= probes.keys()
        assert {"/healthz"} == {
            probes[kind]["path"] for kind in probes.keys() & {"livenessProbe", "startupProbe"}
        }
        assert {probe["path"] for probe in probes.values()} <= set(PATHS)
        assert {probe["port"] for probe in probes.values()} <= {port["name"] for port in container["ports"]}


def test_the_exporter_can_be_scraped() -> None:
    """Where the exporter is deployed for a Prometheus that runs elsewhere, it listens at every address; by itself it does not."""
    [container] = PODS["dispatcher-exporter"]["spec"]["containers"]
    unit = next(path for path in UNITS if "exporter" in path.name).read_text()
    command = ["dispatcher", "exporter", "--host", "0.0.0.0"]
    assert command == SERVICES["exporter"]["command"] == container["command"]
    assert f"/bin/{' '.join(command)}\n" in unit
