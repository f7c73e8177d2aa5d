"""Dashboard, alert rules, manifests and the documents of operations name what there is."""

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from config.settings import PREFIX, Settings
from tasks import documents

ROOT = Path(__file__).parents[2]
METRICS = set(re.findall(r"^\| `(dispatcher_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.M))
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
RULES = yaml.safe_load((ROOT / "config" / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((ROOT / "config" / "grafana" / "dispatcher.json").read_text())
MANIFESTS = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "dispatcher.yaml").read_text()))
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


def metrics_in(expression: str) -> set[str]:
    """The metrics of an expression, by their documented names."""
    return {re.sub(r"_bucket$", "", name) for name in re.findall(r"\bdispatcher_\w+", expression)}


def anchors() -> set[str]:
    """What headings of operations.md can be linked by."""
    headings = re.findall(r"^#+ (.*)$", OPERATIONS, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_commands_are_documented() -> None:
    """docs/commands.md is what `make docs` writes: every command with every option."""
    assert documents.written() == documents.DOCUMENT.read_text()


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
    assert f"## dispatcher {command}\n" in documents.written()
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
        )
        said = [line for line in done.stderr.splitlines() if "is not executable" not in line]
        assert [] == [line for line in said if unit.name.partition("@")[0] in line]


def test_settings_that_operations_names_exist() -> None:
    """A setting in operations.md, the manifests or the compose file is one that there is."""
    known = {name.upper() for name in Settings.model_fields}
    text = (
        OPERATIONS
        + (ROOT / "deploy/kubernetes/dispatcher.yaml").read_text()
        + (ROOT / "docker-compose.yml").read_text()
    )
    assert set(re.findall(rf"{PREFIX}([A-Z_]+)\b", text)) <= known
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", OPERATIONS))
    assert named <= known


def test_commands_that_operations_names_exist() -> None:
    """A command in operations.md is one that there is."""
    written = documents.written()
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
