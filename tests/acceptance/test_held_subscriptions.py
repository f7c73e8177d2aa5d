"""What commands say of a subscription that is paused or disabled: why nothing goes on, and the command that helps."""

import pytest

from tests.acceptance.stack import Stack
from tests.acceptance.terminal import Terminal
from tests.acceptance.test_subscriptions import Acme
from tests.acceptance.test_width import check

RESUME = "`dispatcher subscription resume acme crm` resumes it"
PAUSED = f"its subscription is paused, so nothing is sent: {RESUME}"


@pytest.fixture
def crm(stack: Stack) -> str:
    """The URL of a paused subscription for which `evt` waits."""
    acme = Acme(stack)
    acme.add("crm")
    port = next(port for port, name in acme.names.items() if name == "crm")
    stack.cli("subscription", "pause", "acme", "crm")
    stack.start_worker().wait_ready()
    stack.enqueue(1, eventId="evt")
    assert stack.wait_ended(["evt"]) == {"delivered": 1}
    return f"http://127.0.0.1:{port}"


def test_a_paused_one(stack: Stack, crm: str) -> None:
    """Every command that shows its endpoint or its callbacks says so; `retry` does nothing and says why."""
    of = "acme.crm", crm
    listed = {one["endpoint"]: one for one in stack.cli_json("endpoint", "list")}
    assert (listed[crm]["subscriptionState"], listed[crm]["problem"]) == ("paused", "subscription paused")
    assert stack.cli_json("endpoint", "show", *of)["heldBy"] == PAUSED
    assert (
        stack.cli_json("event", "show", "evt.crm", "--workspace", "acme")["nextStep"] == f"it waits: {PAUSED}"
    )
    [waits] = stack.cli_json("event", "list", "--state", "waiting")
    assert waits["subscriptionState"] == "paused"
    said = stack.cli("event", "list", "--state", "waiting").stdout
    assert "subscription paused" in said
    assert f"crm of acme: {PAUSED}" in said
    assert f"crm of acme: {PAUSED}" in stack.cli("event", "show", "evt", "--workspace", "acme").stdout
    refused = stack.cli("endpoint", "retry", *of)
    assert (refused.returncode, refused.stderr.strip().endswith(f"nothing was done: {PAUSED}")) == (1, True)
    assert f"endpoints of acme.crm are left so: {PAUSED}" in stack.cli("endpoint", "retry", "acme").stdout
    assert stack.cli("endpoint", "resume", *of).stdout.strip() == f"was not stopped; {PAUSED}"
    stack.cli("endpoint", "stop", *of)
    assert stack.cli_json("endpoint", "show", *of)["heldBy"].endswith(f"; {PAUSED}")


def test_on_a_narrow_terminal(stack: Stack, crm: str) -> None:
    """It fits 80 columns."""
    for args in (
        ("endpoint", "list"),
        ("endpoint", "show", "acme.crm", crm),
        ("endpoint", "retry", "acme.crm", crm),
        ("endpoint", "retry", "acme"),
        ("event", "show", "evt", "--workspace", "acme"),
        ("event", "show", "evt.crm", "--workspace", "acme"),
        ("event", "list", "--state", "waiting"),
    ):
        terminal = Terminal(stack, *args)
        terminal.wait()
        assert "subscription" in terminal.text
        check(terminal)


def test_a_disabled_one(stack: Stack, crm: str) -> None:
    """What ended failed because of it is not sent by a replay alone: it must be brought back first."""
    stack.redis.hset("dispatcher:workspace:acme", mapping={"state:crm": "disabled", "disabled:crm": "1 gone"})
    stack.redis.hset("dispatcher:workspace:acme", "revision", "other")
    stack.cli("endpoint", "retry", "acme.crm", crm)
    assert stack.wait_ended(["evt.crm"]) == {"failed": 1}
    shown = stack.event("evt.crm")
    assert shown["attempts"][-1]["error"] == "subscription_disabled"
    assert "`dispatcher subscription resume acme crm` brings it back" in shown["nextStep"]
    assert stack.cli_json("endpoint", "show", "acme.crm", crm)["problem"] == "subscription disabled"
    said = stack.cli("event", "replay", "evt.crm", "--workspace", "acme").stdout
    assert "`dispatcher subscription resume acme crm` brings it back" in said
