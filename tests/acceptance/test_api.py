"""`dispatcher api` as a process of its own, asked by curl as docs/status-api.md shows it, and by schemathesis."""

import base64
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.acceptance.redis_users import denied, make_users, url_as
from tests.acceptance.stack import CLI, Stack, Worker, free_port, running_stack, wait_until

TEXT = (Path(__file__).parents[2] / "docs/status-api.md").read_text()
EXAMPLES = re.findall(r"```sh\n(.*?)```\n+```json\n(.*?)```", TEXT, re.S)
DAY = "2026-06-09"
VARYING = ("requestId", "expiresAt", "createdAt", "lastAttemptAt", "endedAt", "callbackLatencyMsP95")
EXAMPLES_PER_OPERATION = int(os.environ.get("FUZZ_EXAMPLES", "15"))
WORKSPACES = {"acme": "zeckta", "bluefin": "sendexa", "corvo": "namirial", "delta": "qlara"}


@pytest.fixture(scope="module")
def stack(server_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One for all tests here: making workspaces and keys takes its time."""
    with running_stack(tmp_path_factory.mktemp("api")) as stack:
        yield stack


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[dict[str, str]]:
    """The API's process, with a workspace and a key of each platform; the environment of the examples."""
    port = free_port()
    environment = {"API": f"http://127.0.0.1:{port}"}
    for workspace, dialect in WORKSPACES.items():
        if dialect == "qlara":
            stack.cli_json("workspace", "add", workspace, "--dialect", dialect)
        else:
            stack.add_workspace(workspace, dialect)
        made = stack.cli_json("workspace", "api-key", "add", workspace, "--rate-per-second", "10000")
        environment[f"{dialect.upper()}_KEY"] = made["apiKey"]
        if dialect == "sendexa":
            environment["SENDEXA_KEY"] = f"{made['user']}:{made['password']}"
    made = stack.cli_json("producer-key", "add", "billing", "--rate-per-second", "10000")
    environment["PRODUCER_KEY"] = made["apiKey"]
    start = [*CLI, "api", "--port", str(port)]
    make_users(stack.redis)
    often = {"DISPATCHER_WEBHOOK_CHANGES_PER_MINUTE": "10000"}  # as often as schemathesis likes
    often |= {"DISPATCHER_CONSOLE_URL": "https://callbacks.example.com"}
    as_api = stack.environment | often | {"DISPATCHER_REDIS_URL": url_as(stack, "api")}
    server = Worker(stack, start, as_api, stack.folder / "api.log")
    wait_until(lambda: is_up(environment["API"]) or server.process.poll() is not None, what="API up")
    yield environment
    assert server.terminate() in (0, -15)  # it ends by the signal once it has closed
    assert [] == [line for line in server.log.splitlines() if "rror" in line]
    assert set() == denied(stack.redis)  # Redis user and all: docs/operations.md


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/openapi.json").is_success
    except httpx.TransportError:
        return False


def masked(value: Any) -> Any:
    """What is the same at each run."""
    match value:
        case dict():
            return {
                name: "…" if name in VARYING and inner else masked(inner) for name, inner in value.items()
            }
        case list():
            return [masked(inner) for inner in value]
        case str() if re.fullmatch("wh-[0-9a-f]{8}|a9b.|[0-9a-f-]{36}|.*[?]link=.*", value):
            return "…"
    return value


def test_every_command_of_the_document(stack: Stack, api: dict[str, str]) -> None:
    """Each curl of docs/status-api.md gives the answer that stands below it."""
    stack.start_worker().wait_ready()
    today = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86_400))
    for number, (command, expected) in enumerate(EXAMPLES):
        done = subprocess.run(
            ["bash", "-c", command.replace(DAY, today)],
            env=stack.environment | api,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert masked(json.loads(expected.replace(DAY, today))) == masked(json.loads(done.stdout)), command
        if number == 0:
            wait_until(lambda: stack.state("evt-7", "bluefin") == "delivered", what="callback delivered")
            wait_until(lambda: stack.redis.exists("dispatcher:status:delta:q-1"), what="last one recorded")


def test_every_path_is_in_the_document(api: dict[str, str]) -> None:
    """Each operation has a curl in docs/status-api.md."""
    commands = [command for command, _ in EXAMPLES]
    for path, operations in httpx.get(f"{api['API']}/openapi.json").json()["paths"].items():
        pattern = r"\$API" + re.sub(r"\{\w+\}", '[^/?\\\\s"]+', path) + r'["?\s]'
        for method in operations:
            shown = [c for c in commands if re.search(pattern, c)]
            by_method = {"get": " -d |-X", "post": "-X", "put": "^$", "delete": "^$"}[method]
            wanted = {"get": "", "post": " -d ", "put": "-X PUT", "delete": "-X DELETE"}[method]
            assert any(wanted in c and not re.search(by_method, c) for c in shown), (method, path)


def test_port_that_is_taken(stack: Stack, api: dict[str, str]) -> None:
    """Where somebody listens already, one line says so."""
    done = stack.cli("api", "--port", api["API"].rpartition(":")[2])
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert "cannot listen at 127.0.0.1" in done.stderr


def test_no_secret_in_the_log(stack: Stack, api: dict[str, str]) -> None:
    """Neither keys nor bodies come into the API's log."""
    for name in ("ZECKTA_KEY", "PRODUCER_KEY"):
        headers = {"Authorization": f"Bearer {api[name]}"}
        httpx.get(f"{api['API']}/v1/messaging/sms/messages/secret-id?token=hush", headers=headers)
        httpx.post(f"{api['API']}/v1/status-changes", headers=headers, content=b"hush")
    text = (stack.folder / "api.log").read_text()
    assert [] == [word for word in (*api.values(), "hush") if word in text and not word.startswith("http://")]


def headers_of(path: str, api: dict[str, str]) -> dict[str, str]:
    """The header that opens a path."""
    if path.startswith("/v1/messaging"):
        return {"Authorization": f"Bearer {api['ZECKTA_KEY']}"}
    if path.startswith("/v1/sms"):
        return {"Authorization": "Basic " + base64.b64encode(api["SENDEXA_KEY"].encode()).decode()}
    if path.startswith(("/v1/status-changes", "/v1/portal-links")):
        return {"Authorization": f"Bearer {api['PRODUCER_KEY']}"}
    return {"X-Api-Key": api["NAMIRIAL_KEY" if path.startswith("/api") else "QLARA_KEY"]}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_openapi_says_all(api: dict[str, str], mode: GenerationMode) -> None:
    """Whatever is asked, right or wrong, the answer is one that the OpenAPI document describes."""
    schema = schemathesis.openapi.from_url(f"{api['API']}/openapi.json")
    for result in schema.get_all_operations():
        explore(result.ok(), mode, api)


def explore(operation: schemathesis.APIOperation, mode: GenerationMode, api: dict[str, str]) -> None:
    """Asks one operation many things."""
    excluded = [negative_data_rejection]  # it does not see that the key's header is put back
    if operation.body or operation.path.endswith("/history"):
        excluded.append(
            positive_data_acceptance
        )  # no schema says which URLs and times, or stretches of time, are right

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES_PER_OPERATION, suppress_health_check=list(HealthCheck))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=headers_of(case.path, api), excluded_checks=excluded)

    ask()


def test_api_keys_by_the_command_line(stack: Stack) -> None:
    """A key is made, shown once, listed without its secret, and revoked; wrong names are one line."""
    stack.add_workspace("keys", "sendexa")
    made = stack.cli("workspace", "api-key", "add", "keys", "--name", "reports")
    text = made.stdout.splitlines()[1]
    key, _, secret = text.partition(".")
    assert f"as a Basic credential: {key}:{secret}" in made.stdout
    (listed,) = stack.cli_json("workspace", "api-key", "list", "keys")
    expected = {"key": key, "workspace": "keys", "name": "reports", "ratePerSecond": 50}
    expected |= {"readOnly": False, "refusedIn24Hours": 0}
    assert expected == {name: value for name, value in listed.items() if name != "createdAt"}
    assert secret not in stack.cli("workspace", "api-key", "list", "keys").stdout
    assert 0 == stack.cli("workspace", "api-key", "revoke", "keys", key).returncode
    assert [] == stack.cli_json("workspace", "api-key", "list", "keys")
    for args in (
        ["workspace", "api-key", "revoke", "keys", key],
        ["workspace", "api-key", "add", "kyes"],
        ["producer-key", "revoke", "key_1"],
    ):
        done = stack.cli(*args)
        assert (1, 1) == (done.returncode, len(done.stderr.splitlines()))


def test_workspace_without_a_callback_url(stack: Stack) -> None:
    """It causes callbacks only where a status change carries a URL, and says so where somebody pings it."""
    made = stack.cli("workspace", "add", "quiet", "--dialect", "zeckta", "--json")
    assert (0, True) == (made.returncode, "it has no callback URL" in made.stderr)
    assert None is stack.cli_json("workspace", "show", "quiet")["callbackUrl"]
    assert "has no callback URL" in stack.cli("workspace", "ping", "quiet").stderr
    stack.start_worker().wait_ready()
    stack.enqueue(1, workspace="quiet", eventId="none")
    stack.enqueue(1, first=1, workspace="quiet", eventId="own", callbackUrl=f"{stack.listen()}/own")
    assert {"delivered": 1} == stack.wait_ended(["own"], "quiet")
    assert "" == stack.state("none", "quiet")
    wait_until(lambda: stack.redis.exists("dispatcher:status:quiet:m0"), what="its status is kept")
