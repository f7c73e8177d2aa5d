"""`dispatcher endpoint` and `ping` in an operator's hands: what they say and do, also where it is wrong or said twice."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from tests.acceptance.stack import Stack, running_stack, wait_until

PAUSES = {
    "DISPATCHER_BREAKER_FAILURES": "3",
    "DISPATCHER_BREAKER_PAUSE_SECONDS": "600",
    "DISPATCHER_MAX_ATTEMPTS": "2",
}


@pytest.fixture(scope="module")
def stack(server_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stand with a worker; each test has a workspace of its own."""
    with running_stack(tmp_path_factory.mktemp("endpoints")) as stack:
        stack.start_worker(**PAUSES).wait_ready()
        stack.add_workspace("there")
        yield stack


def answering(status: int, text: str = "", **headers: str) -> Any:
    """A receiver that answers so."""

    async def answer(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    return answer


def said(stack: Stack, *args: str) -> str:
    """The one line that a command that fails prints."""
    done = stack.cli(*args)
    assert (1, "") == (done.returncode, done.stdout), done.stderr
    [line] = done.stderr.splitlines()
    return line


def paused(stack: Stack, workspace: str, count: int) -> list[str]:
    """EventIds of callbacks to an endpoint that has paused."""
    event_ids = stack.enqueue(count, workspace=workspace)
    wait_until(lambda: stack.cli_json("endpoint", "list", "--workspace", workspace, "--state", "paused"))
    return event_ids


def trail(stack: Stack, workspace: str) -> list[Any]:
    """What was done to the workspace's endpoints, the oldest first."""
    found = stack.cli_json("audit", "list", "--workspace", workspace)[::-1]
    return [(one["what"], one["to"]) for one in found if one["what"].startswith("endpoint.")]


def test_retry_many(stack: Stack) -> None:
    """Many are counted before they are retried; what is stopped stays so; then nothing is left to retry."""
    stack.answer = answering(500, "no\x1b[2J database")
    first = stack.add_workspace("many")
    event_ids = paused(stack, "many", 8)
    second = f"{stack.listen()}/hooks"
    ended = stack.enqueue(1, first=50, workspace="many", callbackUrl=second)
    wait_until(lambda: len(stack.cli_json("endpoint", "list", "--workspace", "many")) == 2)
    assert {"failed": 1} == stack.wait_ended(ended, "many")
    stack.cli("endpoint", "stop", "many", second)
    held = stack.enqueue(1, first=51, workspace="many", callbackUrl=second)
    wait_until(lambda: stack.cli_json("endpoint", "show", "many", second)["waiting"] == 1)
    shown = stack.cli("endpoint", "list", "--workspace", "many").stdout
    assert "\\x1b[2J database" in shown, "an answer cannot clear the screen"
    found = stack.cli_json("endpoint", "show", "many", first)
    assert ("http_500", 500, "no\x1b[2J database", "fails (http_500)") == tuple(
        found[name] for name in ("lastError", "lastStatus", "lastAnswer", "problem")
    )
    assert found["lastFailedAt"] >= found["downSince"]
    stack.answer = answering(200)
    counted = stack.cli_json("endpoint", "retry", "many")
    assert {"endpoints": 1, "stopped": 1, "probed": 0, "madeDue": 0, "done": False} == counted
    done = stack.cli_json("endpoint", "retry", "many", "--yes")
    assert (1, 1, 1, True) == tuple(done[name] for name in ("endpoints", "stopped", "probed", "done"))
    assert stack.wait_ended(event_ids, "many")["delivered"] >= 4
    assert "nothing to retry" in stack.cli("endpoint", "retry", "many", "--yes").stdout
    assert "pending" == stack.state(held[0], "many")
    told = stack.cli("endpoint", "resume", "many", second).stdout
    assert told.startswith("not stopped any more; ")
    assert {"delivered": 1} == stack.wait_ended(held, "many")
    [(_, _), (what, to), _] = trail(stack, "many")
    assert ("endpoint.retry", 1, 1) == (what, to["endpoints"], to["probed"])


def test_said_twice(stack: Stack) -> None:
    """A command that is said again, by the same or by another operator, changes nothing and says so."""
    stack.answer = answering(200)
    url = stack.add_workspace("twice")
    assert {"delivered": 1} == stack.wait_ended(stack.enqueue(workspace="twice"), "twice")
    assert "stopped; nothing waits for it\n" == stack.cli("endpoint", "stop", "twice", url).stdout
    since = stack.cli_json("endpoint", "show", "twice", url)["stoppedAt"]
    assert (
        "nothing was changed: stopped by the operator since"
        in (old := stack.cli("endpoint", "pause", "twice", url)).stdout
    )
    assert "the old name of `endpoint stop`" in old.stderr
    assert since == stack.cli_json("endpoint", "show", "twice", url)["stoppedAt"]
    assert "`dispatcher endpoint resume twice" in said(stack, "endpoint", "retry", "twice", url)
    assert (
        "not stopped any more; idle: nothing waits for it\n"
        == stack.cli("endpoint", "resume", "twice", url).stdout
    )
    assert (
        "was not stopped; idle: nothing waits for it\n"
        == stack.cli("endpoint", "resume", "twice", url).stdout
    )
    assert "there is nothing to retry" in stack.cli("endpoint", "retry", "twice", url).stdout
    assert ["endpoint.stop", "endpoint.resume"] == [what for what, _ in trail(stack, "twice")]


def test_attempts_are_made_due(stack: Stack) -> None:
    """Callbacks that wait for their next attempt, and not for the breaker, are attempted now."""
    stack.answer = answering(503, **{"Retry-After": "600"})
    url = stack.add_workspace("backoff")
    event_ids = stack.enqueue(1, workspace="backoff")
    wait_until(lambda: stack.state(event_ids[0], "backoff") == "retrying")
    told = stack.cli("endpoint", "resume", "backoff", url).stdout
    assert "as the endpoint asked (Retry-After), last: http_503; `dispatcher endpoint retry backoff" in told
    stack.answer = answering(200)
    done = stack.cli_json("endpoint", "retry", "backoff", url)
    assert (True, 1, "paused") == (done["probed"], done["madeDue"], done["before"]["state"])
    assert {"delivered": 1} == stack.wait_ended(event_ids, "backoff")


def test_nothing_waits_but_it_pauses(stack: Stack) -> None:
    """Where what waited was purged the pause is still there, and said; a retry has the next callback probe at once."""
    stack.answer = answering(500)
    url = stack.add_workspace("purged")
    paused(stack, "purged", 5)
    stack.cli("purge", "waiting", "--workspace", "purged", "--yes")
    told = stack.cli("endpoint", "resume", "purged", url).stdout
    assert "was not stopped; idle: nothing waits for it; what comes is held until" in told
    shown = stack.cli_json("endpoint", "show", "purged", url)
    assert ("idle", None) == (shown["state"], shown["nextProbeAt"]), "what is not there is not probed"
    stack.answer = answering(200)
    assert "the next callback probes it" in stack.cli("endpoint", "retry", "purged", url).stdout
    assert {"delivered": 1} == stack.wait_ended(stack.enqueue(1, first=10, workspace="purged"), "purged")


def test_what_is_not_there(stack: Stack) -> None:
    """An unknown workspace or endpoint is one line that names the nearest there is; wrong usage is told apart."""
    stack.answer = answering(200)
    url = stack.add_workspace("bluefin")
    assert "has no endpoint yet" in said(stack, "endpoint", "show", "bluefin", url)
    assert {"delivered": 1} == stack.wait_ended(stack.enqueue(workspace="bluefin"), "bluefin")
    origin = url.removesuffix("/hooks")
    other_port = origin[:-1] + str((int(origin[-1]) + 1) % 10)
    for command in ("show", "stop", "resume", "retry", "ping"):
        assert origin in said(stack, "endpoint", command, "bluefin", f"{other_port}/hooks")
        assert "did you mean bluefin?" in said(stack, "endpoint", command, "blufin", url)
    assert "did you mean bluefin?" in said(stack, "endpoint", "list", "--workspace", "blufin")
    assert "idle" == stack.cli_json("endpoint", "show", "bluefin", f"{origin}/another/path?x")["state"]
    for args in (
        ("retry",),
        ("retry", "--state", "stopped"),
        ("retry", "bluefin", "--all"),
        ("retry", "bluefin", url, "--state", "paused"),
        ("stop", "bluefin", "hooks.example"),
        ("list", "--sort", "name"),
    ):
        done = stack.cli("endpoint", *args)
        assert (2, 1) == (done.returncode, len(done.stderr.splitlines())), args


def test_ping(stack: Stack) -> None:
    """A ping goes to the URL that is used: of what waits, of the workspace, or as it is given; headers and all."""
    stack.answer = answering(200)
    url = stack.add_workspace("ping", "zeckta", "", "--header", "X-Team: blue")
    own = f"{stack.listen()}/own?token=hush"
    stack.wait_ended(stack.enqueue(1, workspace="ping", callbackUrl=own), "ping")
    assert url == stack.cli_json("workspace", "ping", "ping")["url"]
    assert own.partition("?")[0] + "?…" == stack.cli_json("workspace", "ping", "ping", "--url", own)["url"]
    origin = own.partition("/own")[0]
    unknown = stack.cli("endpoint", "ping", "ping", origin)
    assert (2, True) == (unknown.returncode, "give the URL in full" in unknown.stderr)
    stack.cli("endpoint", "stop", "ping", own)
    stack.enqueue(1, first=1, workspace="ping", callbackUrl=own)
    wait_until(lambda: stack.cli_json("endpoint", "show", "ping", own)["waiting"] == 1)
    before = len(stack.received)
    assert f"{origin}/own?…" == stack.cli_json("endpoint", "ping", "ping", origin)["url"]
    [received] = stack.received[before:]
    assert None is received.problem
    assert f"{origin}/else" == stack.cli_json("endpoint", "ping", "ping", f"{origin}/else")["url"]
    for blocked in (
        ("workspace", "ping", "ping", "--url", "http://192.168.7.7/"),
        ("workspace", "ping", "ping", "--url", "http://[::1]/"),
    ):
        done = stack.cli(*blocked, "--json")
        found = json.loads(done.stdout)
        assert (1, "blocked_address", None) == (done.returncode, found["error"], found["answer"])
        assert "not a public address" in found["detail"]


@pytest.mark.parametrize(
    ("url", "settings", "says"),
    [
        ("https://10.0.0.7/hooks", {}, "10.0.0.7 is not a public address (DISPATCHER_ALLOWED_NETWORKS="),
        (
            "https://localhost/hooks",
            {"ALLOWED_NETWORKS": ""},
            "is not a public address (DISPATCHER_ALLOWED_NETWORKS=",
        ),
        ("https://127.0.0.1/", {"DENIED_NETWORKS": "127.0.0.0/30"}, "is in DISPATCHER_DENIED_NETWORKS"),
        ("https://127.0.0.1:8443/", {"ALLOWED_PORTS": "443"}, "port 8443 is not in DISPATCHER_ALLOWED_PORTS"),
        (
            "https://hooks.invalid:8443/",
            {"ALLOWED_PORTS": "443"},
            "port 8443 is not in DISPATCHER_ALLOWED_PORTS",
        ),
        ("http://127.0.0.1/", {"ALLOW_HTTP": "false"}, "DISPATCHER_ALLOW_HTTP=true allows http"),
        ("https://169.254.169.254/", {"PROXY_URL": "http://127.0.0.1:9"}, "is not a public address"),
    ],
)
def test_blocked_url(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, url: str, settings: dict[str, str], says: str
) -> None:
    """A callback URL that no delivery could go to is refused at once, and nothing is made or changed."""
    for name, value in settings.items():
        monkeypatch.setitem(stack.environment, f"DISPATCHER_{name}", value)
    for args in (("add", "blocked", "--dialect", "zeckta"), ("update", "there")):
        done = stack.cli("workspace", *args, "--callback-url", url)
        assert (2, 1) == (done.returncode, len(done.stderr.splitlines())), done.stderr
        assert says in done.stderr
    assert 1 == stack.cli("workspace", "show", "blocked").returncode
    assert url != stack.cli_json("workspace", "show", "there", "--reveal")["callbackUrl"]


def test_url_that_is_only_told(stack: Stack) -> None:
    """A name without an address now is told, and taken; so is what --no-check says, without a word."""
    added = stack.cli(
        "workspace", "add", "nameless", "--dialect", "zeckta", "--callback-url", "https://hooks.invalid/"
    )
    assert (0, True) == (added.returncode, "warning: no address" in added.stderr), added.stderr
    unchecked = stack.cli(
        "workspace", "update", "nameless", "--callback-url", "https://10.0.0.7/", "--no-check"
    )
    assert (0, False) == (unchecked.returncode, "warning" in unchecked.stderr)
    assert "https://10.0.0.7/" == stack.cli_json("workspace", "show", "nameless")["callbackUrl"]


def test_ping_before_the_first_callback(stack: Stack) -> None:
    """A workspace's callback URL can be tested before anything was sent there."""
    url = stack.add_workspace("fresh")
    for given in (url, url.removesuffix("/hooks")):
        pinged = stack.cli_json("endpoint", "ping", "fresh", given)
        assert (True, url) == (pinged["taken"], pinged["url"])
    assert 1 == stack.cli("endpoint", "ping", "fresh", "http://nobody.example").returncode


def test_a_rate_is_named(stack: Stack) -> None:
    """What waits for its workspace's rate says so."""
    url = stack.add_workspace("slowly", "zeckta", "", "--rate-per-second", "0.1")
    stack.enqueue(5, workspace="slowly")
    wait_until(
        lambda: [e["waiting"] for e in stack.cli_json("endpoint", "list", "--workspace", "slowly")] == [4]
    )
    assert "rate is 0.1 a second" in stack.cli_json("endpoint", "show", "slowly", url)["heldBy"]
