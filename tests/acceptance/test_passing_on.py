"""What is passed on to receivers, and from where, with a real worker and the commands that an operator types."""

import json
from typing import Any

from aiohttp import web

from tests.acceptance.stack import Stack, answer_ok
from tests.acceptance.test_subscriptions import port_of

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STATE = "congo=t61rcWkgMzE"


class Requests:
    """Has a stack keep the requests it receives."""

    def __init__(self, stack: Stack) -> None:
        self.all: list[web.Request] = []
        stack.answer = self._answer

    async def _answer(self, request: web.Request, number: int) -> web.Response:
        self.all.append(request)
        return (
            web.Response(status=503)
            if number == 1 and request.path == "/again"
            else await answer_ok(request, number)
        )

    @property
    def peers(self) -> set[str | None]:
        """Where they came from."""
        return {one.remote for one in self.all}


def test_a_trace_and_fields_left_out(stack: Stack) -> None:
    """Of each attempt the headers are the status change's; what is signed is what is sent."""
    requests = Requests(stack)
    stack.add_workspace()
    url = f"{stack.listen()}/again"
    added = ("subscription", "add", "acme", "crm", "--callback-url", url)
    stack.secrets["crm"] = stack.cli_json(*added, "--without-fields", "message.dest, message.src")["secret"]
    stack.start_worker().wait_ready()
    [event] = stack.enqueue(1, traceparent=PARENT, tracestate=STATE)
    [plain] = stack.enqueue(1, first=1)
    ids = [event, f"{event}.crm", plain, f"{plain}.crm"]
    assert stack.wait_ended(ids) == {"delivered": 4}
    assert {one.problem for one in stack.received} == {None}
    traces = {
        (one.headers["webhook-id"], one.headers.get("traceparent"), one.headers.get("tracestate"))
        for one in requests.all
    }
    assert traces == {(event, PARENT, STATE), (plain, None, None)}
    again = [one for one in requests.all if one.path == "/again" and one.headers["webhook-id"] == event]
    assert len(again) == 2
    fields = {one.port == port_of(url): sorted(json.loads(one.body)["message"]) for one in stack.received}
    assert "dest" in fields[False]
    assert not {"dest", "src"} & set(fields[True])


def test_an_operator_chooses_fields(stack: Stack) -> None:
    """It is shown, noted in the trail, and also the default subscription's; what is wrong gets one line and exit code 2."""
    stack.add_workspace()
    changed = stack.cli("subscription", "update", "acme", "default", "--without-fields", "message.dest")
    assert changed.stdout == "subscription default of workspace acme is changed\n"
    assert stack.cli_json("subscription", "show", "acme", "default")["withoutFields"] == ["message.dest"]
    assert "message.dest" in stack.cli("subscription", "show", "acme", "default").stdout
    noted: dict[str, Any] = stack.cli_json("audit", "list")[0]
    assert noted["to"]["withoutFields"] == ["message.dest"]
    assert noted["from"] == {"withoutFields": []}
    for paths, says in {
        "dest": "dialect zeckta has no field 'dest'; it can leave out message.attempts, ",
        "eventId": "eventId cannot be left out: it tells the event's id",
        "message": "which cannot be left out",
    }.items():
        done = stack.cli("subscription", "update", "acme", "default", "--without-fields", paths)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert says in done.stderr
    stack.cli("subscription", "update", "acme", "default", "--without-fields", "")
    assert stack.cli_json("subscription", "show", "acme", "default")["withoutFields"] == []


def test_from_an_address(stack: Stack) -> None:
    """Callbacks and test callbacks come from it."""
    requests = Requests(stack)
    stack.environment["DISPATCHER_SOURCE_ADDRESS"] = "127.0.0.2"
    stack.add_workspace()
    stack.start_worker().wait_ready()
    assert stack.wait_ended(stack.enqueue(3)) == {"delivered": 3}
    assert requests.peers == {"127.0.0.2"}
    assert stack.cli_json("workspace", "ping", "acme")["taken"] is True
    assert requests.peers == {"127.0.0.2"}


def test_from_an_address_of_another_machine(stack: Stack) -> None:
    """The worker does not start and says why in one line; so does a test callback, and settings that cannot be.

    Commands that send nothing work on any machine.
    """
    stack.add_workspace()
    stack.environment["DISPATCHER_SOURCE_ADDRESS"] = "192.0.2.7"
    worker = stack.start_worker()
    assert worker.process.wait(30) == 78
    [line] = worker.lines("worker.refused")
    says = (
        "this machine cannot send from DISPATCHER_SOURCE_ADDRESS 192.0.2.7: Cannot assign requested address"
    )
    assert line["problem"] == says
    ping = stack.cli("workspace", "ping", "acme")
    assert (ping.returncode, ping.stderr) == (2, f"error: {says}\n")
    url = f"http://localhost:{port_of(stack.listen())}/"
    assert stack.cli("workspace", "update", "acme", "--callback-url", url).returncode == 0
    for value, text in {
        "eth0": "is no address to send from",
        "1.2.3.4,5.6.7.8": "two addresses of IPv4",
    }.items():
        stack.environment["DISPATCHER_SOURCE_ADDRESS"] = value
        refused = stack.cli("workspace", "list")
        assert refused.returncode == 2
        assert text in refused.stderr
    stack.environment |= {
        "DISPATCHER_SOURCE_ADDRESS": "127.0.0.2",
        "DISPATCHER_PROXY_URL": "http://127.0.0.1:1",
    }
    assert "not both" in stack.cli("workspace", "list").stderr
