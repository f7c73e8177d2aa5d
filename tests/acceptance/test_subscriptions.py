"""One customer with several receivers, with a real worker and the commands that an operator types."""

import asyncio
import threading
from typing import Any

from aiohttp import web

from tests.acceptance.stack import Stack, answer_ok, wait_until


class Acme:
    """The customer, with its default subscription at first."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.names = {port_of(stack.add_workspace()): "default"}

    def add(self, name: str, *options: str) -> None:
        """Adds a subscription at a port of its own."""
        url = f"{self.stack.listen()}/{name}"
        made = self.stack.cli_json("subscription", "add", "acme", name, "--callback-url", url, *options)
        self.stack.secrets[f"acme.{name}"] = made["secret"]
        self.names[port_of(url)] = name

    @property
    def received(self) -> list[tuple[str, str, str | None]]:
        """Who received what, in order: subscription, eventId, and why its signature does not verify."""
        return [(self.names[one.port], one.event_id, one.problem) for one in self.stack.received]


def port_of(url: str) -> int:
    """The port of a URL."""
    return int(url.split(":")[2].split("/")[0])


def test_each_gets_what_it_wants_signed_with_its_secret(stack: Stack) -> None:
    """The eventId is the same for all; headers, events and secrets are each one's own."""
    acme = Acme(stack)
    acme.add("crm", "--header", "X-Team: crm")
    acme.add("billing", "--events", "MESSAGE_DELIVERED")
    stack.start_worker().wait_ready()
    [sent] = stack.enqueue(1)
    [delivered] = stack.enqueue(1, first=1, status="DELIVERED")
    ids = [sent, f"{sent}.crm", delivered, f"{delivered}.crm", f"{delivered}.billing"]
    assert stack.wait_ended(ids) == {"delivered": 5}
    assert set(acme.received) == {
        ("default", sent, None),
        ("crm", sent, None),
        ("default", delivered, None),
        ("crm", delivered, None),
        ("billing", delivered, None),
    }
    shown = stack.event(delivered)
    assert [(one["eventId"], one["state"]) for one in shown["subscriptions"]] == [
        (f"{delivered}.billing", "delivered"),
        (f"{delivered}.crm", "delivered"),
    ]
    text = stack.cli("event", "show", delivered, "--workspace", "acme").stdout
    assert f"{delivered}.billing" in text
    listed = stack.cli_json("subscription", "list", "acme")
    assert [(one["subscription"], one["events"]) for one in listed] == [
        ("default", []),
        ("billing", ["MESSAGE_DELIVERED"]),
        ("crm", []),
    ]


def test_a_hung_a_gone_and_a_slow_one_delay_no_other(stack: Stack) -> None:
    """Of one customer: while one receiver hangs, one is gone and one is slow, the others get theirs at once."""
    is_over = threading.Event()

    async def answer(request: web.Request, number: int) -> web.Response:
        while request.path == "/hung" and not is_over.is_set():
            await asyncio.sleep(0.1)
        if request.path == "/slow":
            await asyncio.sleep(0.5)
        return web.Response(status=410) if request.path == "/gone" else await answer_ok(request, number)

    stack.answer = answer
    acme = Acme(stack)
    for name in ("hung", "gone", "slow", *(f"s{number}" for number in range(13))):
        acme.add(name, "--no-check")
    stack.start_worker().wait_ready()
    stack.enqueue(1)
    wait_until(lambda: bool(stack.received), 30, "some have it")
    ids = stack.enqueue(10, first=1)
    others = [one for e in ids for one in (e, *(f"{e}.s{number}" for number in range(13)))]
    assert stack.wait_ended(others) == {"delivered": 140}
    assert stack.wait_ended([f"{e}.gone" for e in ids]) == {"failed": 10}
    assert stack.wait_ended([f"{e}.slow" for e in ids]) == {"delivered": 10}
    assert {stack.state(f"{e}.hung") for e in ids} & {"delivered", "failed"} == set()
    is_over.set()


def test_an_operators_day(stack: Stack) -> None:
    """Pause, resume, ping, remove, and what each says; typing errors get one line and change nothing."""
    acme = Acme(stack)
    acme.add("crm")
    stack.start_worker().wait_ready()
    assert stack.cli("subscription", "pause", "acme", "crm").stdout == (
        "subscription crm of workspace acme is paused\n"
    )
    [event] = stack.enqueue(1)
    assert stack.wait_ended([event]) == {"delivered": 1}
    assert stack.state(f"{event}.crm") == "pending"
    assert stack.cli_json("subscription", "show", "acme", "crm")["waiting"] == 1
    refused = stack.cli("subscription", "remove", "acme", "crm")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "1 callback waits for subscription 'crm'" in refused.stderr
    stack.cli("subscription", "resume", "acme", "crm")
    assert stack.wait_ended([f"{event}.crm"]) == {"delivered": 1}
    assert stack.cli_json("subscription", "ping", "acme", "crm")["taken"] is True
    assert stack.received[-1].problem is None
    for words, says in TYPING_ERRORS.items():
        done = stack.cli("subscription", *words.split(" "))
        assert (done.returncode, len(done.stderr.splitlines())) in ((1, 1), (2, 1)), (words, done.stderr)
        assert says in done.stderr
    assert stack.cli("subscription", "remove", "acme", "crm").returncode == 0
    trail = [one["what"] for one in stack.cli_json("audit", "list")]
    assert trail[:4] == [
        "subscription.remove",
        "subscription.resume",
        "subscription.pause",
        "subscription.add",
    ]


TYPING_ERRORS = {
    "show acme cmr": "did you mean crm? it has default, crm",
    "show acmee crm": "there is no workspace",
    "update acme crm": "say what to change",
    "update acme crm --events DELIVERED": "has no event 'DELIVERED'; it has MESSAGE_DELIVERED",
    "update acme crm --retry-schedule 30s,5m": "begins with 0",
    "update acme crm --retry-schedule 0,3d": "less than the expiry in sum, 2d",
    "update acme default --retry-schedule 0,soon": "not 'soon'",
    "add acme default --callback-url https://a.example/": "the workspace's own",
    "remove acme default": "the default subscription cannot be removed",
}


def test_a_retry_schedule_of_its_own(stack: Stack) -> None:
    """The attempts of one subscription go by its schedule; `event show` and the log say so; a change applies at once."""

    async def answer(request: web.Request, number: int) -> web.Response:
        return web.Response(status=503) if request.path == "/crm" else await answer_ok(request, number)

    stack.answer = answer
    acme = Acme(stack)
    acme.add("crm", "--retry-schedule", "0,60m")
    worker = stack.start_worker().wait_ready()
    [event] = stack.enqueue(1)
    wait_until(lambda: stack.state(f"{event}.crm") == "retrying", 30, "crm failed")
    shown: dict[str, Any] = stack.event(f"{event}.crm")
    assert shown["retrySchedule"] == {"schedule": "0,1h", "attempts": 2, "subscription": "crm"}
    by = f"attempt 2 of 2 at {shown['nextAttemptAt']}, by the schedule 0,1h of subscription crm; "
    assert shown["nextStep"].startswith(by)
    assert stack.cli_json("subscription", "show", "acme", "crm")["retrySchedule"] == "0,1h"
    assert stack.cli_json("subscription", "show", "acme", "default")["retrySchedule"] == "default"
    stack.cli("subscription", "update", "acme", "crm", "--retry-schedule", "0,0,0,0")
    done = stack.cli("endpoint", "retry", "acme.crm", shown["endpoint"])
    assert done.returncode == 0, done.stderr
    assert stack.wait_ended([f"{event}.crm"]) == {"failed": 1}

    def attempts() -> list[str]:
        lines = worker.lines("callback.attempted")
        return [one["attempt"] for one in lines if one["event_id"] == f"{event}.crm"]

    wait_until(lambda: attempts() == ["1/2", "2/4", "3/4", "4/4"], 30, "all attempts are in the log")
    [trail] = stack.cli_json("audit", "list", "--limit", "2")[1:]
    assert (trail["from"]["retrySchedule"], trail["to"]["retrySchedule"]) == ("0,1h", "0,0,0,0")


def test_a_receiver_that_ends_it(stack: Stack) -> None:
    """`webhook-delivery: abort` ends one callback, `disable` the subscription; a 2xx is delivered all the same."""
    words = {"/": (200, "disable"), "/crm": (500, "abort"), "/billing": (503, "disable")}

    async def answer(request: web.Request, _number: int) -> web.Response:
        status, word = words.get(request.path, words["/"])
        return web.Response(status=status, headers={"webhook-delivery": word})

    stack.answer = answer
    acme = Acme(stack)
    acme.add("crm")
    acme.add("billing")
    worker = stack.start_worker().wait_ready()
    [event] = stack.enqueue(1)
    assert stack.wait_ended([event, f"{event}.crm", f"{event}.billing"]) == {"delivered": 1, "failed": 2}
    errors = [stack.event(f"{event}.{name}")["attempts"][-1]["error"] for name in ("crm", "billing")]
    assert errors == ["aborted", "disabled"]
    wait_until(lambda: worker.lines("subscription.disabled"), 30, "billing is disabled")
    listed = stack.cli_json("subscription", "list", "acme")
    assert {one["subscription"]: one["state"] for one in listed} == {
        "default": "active",
        "crm": "active",
        "billing": "disabled",
    }
    shown = stack.cli_json("subscription", "show", "acme", "billing")
    assert shown["reason"] == "the receiver asked for it (webhook-delivery: disable)"
    assert shown["reason"] in stack.cli("subscription", "list", "acme", "--wide").stdout
    refused = stack.cli("subscription", "pause", "acme", "billing")
    assert (refused.returncode, "brings it back" in refused.stderr) == (2, True)
    [next_] = stack.enqueue(1, first=1)
    assert stack.wait_ended([next_, f"{next_}.crm"]) == {"delivered": 1, "failed": 1}
    gone = stack.cli("event", "show", f"{next_}.billing", "--workspace", "acme")
    assert (gone.returncode, "the ledger has no event" in gone.stderr) == (1, True)
    words["/billing"] = (200, "")
    wrong = stack.cli("subscription", "resume", "acme", "billing", "--replay-since", "yesterday")
    assert (wrong.returncode, "is no time" in wrong.stderr) == (2, True)
    assert stack.cli_json("subscription", "show", "acme", "billing")["state"] == "disabled"
    said = stack.cli("subscription", "resume", "acme", "billing", "--replay-since", "1h").stdout
    assert "is active again" in said
    assert "1 event replayed" in said
    assert stack.wait_ended([f"{event}.billing"]) == {"delivered": 1}
    assert stack.cli_json("subscription", "show", "acme", "billing")["disabledAt"] is None


def test_a_receiver_that_is_gone(stack: Stack) -> None:
    """After so long of nothing but 410 a worker disables it, and the trail says who did it."""

    async def answer(request: web.Request, number: int) -> web.Response:
        return web.Response(status=410) if request.path == "/crm" else await answer_ok(request, number)

    stack.answer = answer
    acme = Acme(stack)
    acme.add("crm")
    stack.start_worker(DISPATCHER_DISABLE_AFTER_GONE_SECONDS="1").wait_ready()
    told: list[str] = []

    def is_disabled() -> bool:
        told.extend(stack.enqueue(1, first=len(told)))
        return bool(stack.cli_json("subscription", "show", "acme", "crm")["state"] == "disabled")

    wait_until(is_disabled, 30, "crm is disabled")
    assert stack.wait_ended(told) == {"delivered": len(told)}
    shown = stack.cli_json("subscription", "show", "acme", "crm")
    assert shown["reason"].startswith("it answered 410 to every attempt since 20")
    wait_until(lambda: stack.cli_json("audit", "list")[0]["what"] == "subscription.disable", 30, "the trail")
    [newest, *_] = stack.cli_json("audit", "list")
    assert (newest["via"], newest["to"]["reason"]) == ("worker", shown["reason"])


def test_removed_by_force(stack: Stack) -> None:
    """What waited ends failed, with the reason."""

    async def answer(request: web.Request, number: int) -> web.Response:
        return web.Response(status=503) if request.path == "/crm" else await answer_ok(request, number)

    stack.answer = answer
    acme = Acme(stack)
    acme.add("crm", "--retry-schedule", "0,1h")
    stack.start_worker().wait_ready()
    [event] = stack.enqueue(1)
    wait_until(lambda: stack.state(f"{event}.crm") == "retrying", 30, "crm failed")
    said = stack.cli("subscription", "remove", "acme", "crm", "--force").stdout
    assert "1 waiting callback ends as failed (subscription_removed)" in said
    assert stack.wait_ended([f"{event}.crm"]) == {"failed": 1}
    shown: dict[str, Any] = stack.event(f"{event}.crm")
    assert shown["attempts"][-1]["error"] == "subscription_removed"
    assert "the subscription is gone" in shown["nextStep"]


def test_what_waits_is_moved_to_a_new_url(stack: Stack) -> None:
    """`update --callback-url` says what stays behind and the command that moves it; that is what it does, signed as before."""
    acme = Acme(stack)
    acme.add("crm")
    stack.cli("subscription", "pause", "acme", "crm")
    stack.start_worker().wait_ready()
    events = stack.enqueue(2)
    assert stack.wait_ended(events) == {"delivered": 2}
    new = f"{stack.listen()}/crm"
    acme.names[port_of(new)] = "crm, new"
    update = "subscription", "update", "acme", "crm"
    assert stack.cli(*update, "--move-waiting").returncode == 2
    said = stack.cli(*update, "--callback-url", new).stderr
    assert "2 callbacks wait for the server of the previous URL" in said
    command = said[said.index("dispatcher subscription update") :].split()
    unknown = stack.cli(*update, "--callback-url", new, "--move-waiting", "--move-from", "https://x.example/")
    assert (unknown.returncode, "acme.crm has no endpoint" in unknown.stderr) == (1, True)
    assert "; 2 waiting callbacks go to the new URL" in stack.cli(*command[1:]).stdout
    stack.cli("subscription", "resume", "acme", "crm")
    assert stack.wait_ended([f"{event}.crm" for event in events]) == {"delivered": 2}
    got = [(name, problem) for name, _, problem in acme.received if name != "default"]
    assert got == [("crm, new", None)] * 2
    trail = {one["what"]: one["to"] for one in stack.cli_json("audit", "list")}
    assert (trail["callbacks.move"]["subscription"], trail["callbacks.move"]["moved"]) == ("crm", 2)
