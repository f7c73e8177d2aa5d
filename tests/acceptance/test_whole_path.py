"""From the queue to the customer and back into the ledger, with a real worker."""

import asyncio
import json
import sys
import time
from collections import Counter

import msgspec
from aiohttp import web

from dispatcher import Dispatcher
from dispatcher.model import StatusChange
from dispatcher.rules.render import RenderOptions, render
from dispatcher.rules.workspace import Workspace
from dispatcher.store.arguments import ToAccept
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys
from dispatcher.store.ledger import Ledger
from tests.acceptance.stack import CLI, Stack, change, wait_until


def test_a_status_change_becomes_a_signed_callback(stack: Stack) -> None:
    """What the command line enqueues arrives signed, and the command line shows what became of it."""
    url = stack.add_workspace()
    stack.start_worker().wait_ready()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.487133482Z", time.gmtime(time.time() - 3600))
    line = json.dumps(change(1, status="DELIVERED", timestamp=stamp))
    line = line.replace('"+233200000001"', '"+233200000001","cost":0.10')
    (event_id,) = stack.cli_json("enqueue", "-", stdin=line)["eventIds"]
    stack.wait_ended([event_id])
    (received,) = stack.received
    assert (event_id, "MESSAGE_DELIVERED", "m1", None) == (
        received.event_id,
        received.event_type,
        received.message,
        received.problem,
    )
    assert f'"timestamp":"{stamp}"'.encode() in received.body
    assert b'"cost":0.10' in received.body
    shown = stack.event(event_id)
    (attempt,) = shown.pop("attempts")
    times = [shown.pop(name) for name in ("acceptedAt", "expiresAt", "endedAt")]
    assert all(time.endswith("Z") for time in times)
    assert {
        "eventId": event_id,
        "workspace": "acme",
        "endpoint": url.removesuffix("/hooks"),
        "messageId": "m1",
        "status": "DELIVERED",
        "eventType": "MESSAGE_DELIVERED",
        "state": "delivered",
        "nextAttemptAt": None,
        "lastAnswer": None,
        "attemptsBeforeReplay": 0,
        "replayOf": None,
        "replayedAs": None,
        "cancelled": False,
        "retrySchedule": None,
        "nextStep": f"nothing: it was delivered; `dispatcher event replay {event_id} --workspace acme` sends it again",
    } == shown
    assert (1, 200, None) == (attempt["number"], attempt["httpStatus"], attempt["error"])
    assert [event_id] == [event["eventId"] for event in stack.cli_json("event", "list", "--message", "m1")]


def test_plain_xadd(stack: Stack) -> None:
    """Any language enqueues with XADD; a bad entry is rejected beside a good one."""
    stack.add_workspace("acme", "sendexa")
    stack.start_worker(*CLI, "worker").wait_ready()
    stack.redis.xadd("dispatcher:events", {"event": b"{"})
    stack.redis.xadd("dispatcher:events", {"event": json.dumps(change(1, eventId="e1"))})
    assert {"delivered": 1} == stack.wait_ended(["e1"])
    assert ["sms.sent"] == [received.event_type for received in stack.received]
    assert ["invalid"] == [entry["reason"] for entry in stack.cli_json("rejected", "list")]


def test_two_workers_share(stack: Stack) -> None:
    """Where one worker has its hands full another takes part; each callback is delivered once."""

    async def answer(_request: web.Request, _number: int) -> web.Response:
        await asyncio.sleep(0.1)
        return web.Response()

    stack.answer = answer
    workers = [stack.start_worker(DISPATCHER_MAX_IN_FLIGHT="8").wait_ready() for _ in range(2)]
    stack.add_workspace()
    urls = [f"{stack.listen()}/hooks" for _ in range(20)]
    event_ids = [e for n, url in enumerate(urls) for e in stack.enqueue(20, first=n * 20, callbackUrl=url)]
    assert {"delivered": 400} == stack.wait_ended(event_ids)
    assert dict.fromkeys(event_ids, 1) == Counter(received.event_id for received in stack.received)
    assert [] == [received for received in stack.received if received.problem]

    def shares() -> list[int]:
        return [len(worker.lines("callback.attempted")) for worker in workers]

    wait_until(lambda: sum(shares()) >= 400, what="the log lines")
    assert 400 == sum(shares())
    assert all(shares())


def test_retries(stack: Stack) -> None:
    """An endpoint that heals gets its callback; one that is gone is given up at once, one that fails after 5 attempts."""
    answers = {"heals": [503, 500, 204], "gone": [410], "fails": [500] * 5, "redirects": [302] * 5}

    async def answer(request: web.Request, number: int) -> web.Response:
        status = answers[request.path.strip("/")][number - 1]
        return web.Response(
            status=status, text="no" if status != 204 else None, headers={"Location": "/heals"}
        )

    stack.answer = answer
    stack.add_workspace()
    stack.start_worker().wait_ready()
    ids = {
        name: stack.enqueue(first=number, callbackUrl=f"{stack.listen()}/{name}")[0]
        for number, name in enumerate(answers)
    }
    stack.wait_ended(list(ids.values()))
    events = {name: stack.event(event_id) for name, event_id in ids.items()}
    assert answers == {name: [a["httpStatus"] for a in event["attempts"]] for name, event in events.items()}
    assert {"heals": "delivered", "gone": "failed", "fails": "failed", "redirects": "failed"} == {
        name: event["state"] for name, event in events.items()
    }
    assert "no" == events["fails"]["lastAnswer"]
    bodies = {received.body for received in stack.received if received.event_id == ids["fails"]}
    assert 1 == len(bodies), "the body is the same at every attempt"
    assert [] == [received for received in stack.received if received.problem]


def test_expiry(stack: Stack) -> None:
    """A callback whose time is over ends `expired`, and is not posted after that."""
    stack.add_workspace(url=stack.refusing_url())
    stack.start_worker(DISPATCHER_BACKOFF_BASE_SECONDS="1.8", DISPATCHER_BACKOFF_FACTOR="1").wait_ready()
    (event_id,) = stack.enqueue(ttlSeconds=6)  # its timestamp has whole seconds: 5 to 6 are left
    assert {"expired": 1} == stack.wait_ended([event_id])
    event = stack.event(event_id)
    assert {"connect"} == {attempt["error"] for attempt in event["attempts"]}
    assert all(attempt["startedAt"] < event["expiresAt"] for attempt in event["attempts"])


def test_hung_endpoints_hold_nobody_up(stack: Stack) -> None:
    """More hung endpoints than Celery has slots do not keep a healthy one from its callback."""
    hanging = asyncio.Event()

    async def answer(request: web.Request, _number: int) -> web.Response:
        if request.path == "/hangs":
            await hanging.wait()
        return web.Response()

    stack.answer = answer
    stack.add_workspace()
    stack.start_worker(DISPATCHER_REQUEST_TIMEOUT_SECONDS="60", DISPATCHER_LEASE_SECONDS="70").wait_ready()
    hung = [stack.enqueue(4, first=n * 4, callbackUrl=f"{stack.listen()}/hangs") for n in range(12)]
    wait_until(lambda: stack.redis.zcard("dispatcher:schedule:acme") == len(hung))
    healthy = stack.enqueue(10, first=1000)
    assert {"delivered": 10} == stack.wait_ended(healthy)
    assert {"sending", "pending"} >= {stack.state(event_id) for ids in hung for event_id in ids}


def test_removed_workspace(stack: Stack) -> None:
    """Removing a workspace by force ends its waiting callbacks as failed, with the reason."""
    stack.add_workspace(url=stack.refusing_url())
    stack.start_worker(DISPATCHER_BACKOFF_BASE_SECONDS="600").wait_ready()
    (event_id,) = stack.enqueue()
    wait_until(lambda: stack.state(event_id) == "retrying")
    refused = stack.cli("workspace", "remove", "acme")
    assert (1, True) == (refused.returncode, "--force" in refused.stderr)
    assert 0 == stack.cli("workspace", "remove", "acme", "--force").returncode
    assert {"failed": 1} == stack.wait_ended([event_id])
    assert ["connect", "workspace_removed"] == [a["error"] for a in stack.event(event_id)["attempts"]]


def test_no_secret_leaves(stack: Stack) -> None:
    """Neither the worker's log nor what is shown of a workspace holds its secret, its headers or its URL's query."""
    url = stack.add_workspace(
        "acme", "zeckta", f"{stack.listen()}/hooks?token=hush", "--header", "X-Key: hush"
    )
    secret = stack.secrets["acme"]
    worker = stack.start_worker(DISPATCHER_LOG_LEVEL="DEBUG").wait_ready()
    stack.wait_ended(stack.enqueue(20))
    assert url.endswith("hush")
    shown = "".join(
        stack.cli(*command).stdout for command in (["workspace", "show", "acme"], ["workspace", "list"])
    )
    assert "acme" in shown
    hidden = (secret, secret.removeprefix("whsec_"), "hush")
    assert [] == [word for word in hidden if word in worker.log + shown]


def test_secret_is_rotated(stack: Stack) -> None:
    """During the grace time old and new secret verify; after it the old one does not."""
    stack.add_workspace()
    stack.start_worker().wait_ready()
    old = stack.secrets["acme"]
    new = stack.cli_json("workspace", "rotate-secret", "acme", "--grace-seconds", "3600")["secret"]
    verdicts = []
    for number, secret in enumerate([old, new]):
        stack.secrets["acme"] = secret
        stack.wait_ended(stack.enqueue(first=number))
        verdicts.append(stack.received[-1].problem)
    newest = stack.cli_json("workspace", "rotate-secret", "acme", "--grace-seconds", "0")["secret"]
    for number, secret in enumerate([new, newest]):
        stack.secrets["acme"] = secret
        stack.wait_ended(stack.enqueue(first=10 + number))
        verdicts.append(stack.received[-1].problem)
    assert [None, None, None] == [verdicts[0], verdicts[1], verdicts[3]]
    assert "no signature matches" in (verdicts[2] or "")


def test_blocked_address(stack: Stack) -> None:
    """A callback to a private address fails at once, visibly, and not a byte is sent; in an odd spelling it is rejected."""
    url = f"{stack.listen()}/hooks"
    stack.add_workspace(url=url)
    stack.start_worker(DISPATCHER_ALLOWED_NETWORKS="").wait_ready()
    odd = change(1, callbackUrl=url.replace("127.0.0.1", "2130706433"))
    stack.redis.xadd("dispatcher:events", {"event": json.dumps(odd)})  # a Dispatcher would refuse it
    (event_id,) = stack.enqueue()
    assert {"failed": 1} == stack.wait_ended([event_id])
    event = stack.event(event_id)
    assert ["blocked_address"] == [attempt["error"] for attempt in event["attempts"]]
    assert "DISPATCHER_ALLOWED_NETWORKS=127.0.0.1 would allow it" in event["lastAnswer"]
    (rejected,) = stack.cli_json("rejected", "list")
    assert "ends in a number and is no IPv4 address" in rejected["detail"]
    assert [] == stack.received


def test_a_url_that_is_refused_now_was_stored(stack: Stack) -> None:
    """What an older version accepted with a URL that is refused now fails visibly; one with a dot at its end is delivered."""
    good = f"{stack.listen()}/hooks"
    stack.add_workspace(url=good)
    urls = [good.replace("127.0.0.1", host) for host in ("2130706433", "127.0.0.1[v1.x]", "localhost.")]

    async def store() -> None:
        client = connect_async(stack.server.url)
        ledger = Ledger(client.execute_command, Keys(), stack.server.url)
        workspace = Workspace("acme", "zeckta", good, (), 0, "r")
        rendered = [
            render(
                StatusChange.from_dict(change(n, eventId=f"e{n}")),
                workspace,
                round(time.time() * 1000),
                RenderOptions(allow_http=True),
            )
            for n in range(3)
        ]
        old = [
            msgspec.structs.replace(callback, url=url, endpoint=f"acme {url.removesuffix('/hooks')}")
            for callback, url in zip(rendered, urls, strict=True)
        ]
        await ledger.lead("old", 1000)
        await ledger.accept("old", {}, [], ToAccept([(f"1-{n}", one) for n, one in enumerate(old, 1)]))
        await client.aclose()

    asyncio.run(store())
    stack.start_worker().wait_ready()
    assert {"failed": 2, "delivered": 1} == stack.wait_ended(["e0", "e1", "e2"])
    shown = [stack.event(event_id) for event_id in ("e0", "e1")]
    assert [["blocked_address"]] * 2 == [[a["error"] for a in event["attempts"]] for event in shown]
    assert all("callback URL" in event["lastAnswer"] for event in shown)
    assert ["e2"] == [received.event_id for received in stack.received]


def test_wrong_pool(stack: Stack) -> None:
    """In a pool it cannot run in, the worker ends with one line that says what to do."""
    worker = stack.start_worker(sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool", "solo")
    assert 0 != worker.process.wait(30)
    assert "say --pool threads" in worker.log


def test_check_live(stack: Stack) -> None:
    """`check --live` is good with a worker that consumes, and bad without one."""
    worker = stack.start_worker().wait_ready()
    assert {"workers", "hints", "intake"} == {
        f["subject"] for f in stack.cli_json("check", "--live", "--here")
    }
    assert ["ok"] * 3 == [f["verdict"] for f in stack.cli_json("check")][:3]
    worker.terminate()
    assert 1 == stack.cli("check", "--live").returncode


def test_ten_thousand(stack: Stack) -> None:
    """One worker delivers 10,000 status changes over 50 endpoints, each once, each verified."""
    stack.add_workspace("acme", "zeckta", f"{stack.listen()}/hooks")
    urls = [f"{stack.listen()}/hooks" for _ in range(50)]
    with Dispatcher.from_url(stack.server.url) as dispatcher:
        event_ids = dispatcher.enqueue_many(change(n, callbackUrl=urls[n % 50]) for n in range(10_000))
    stack.start_worker(
        DISPATCHER_REQUEST_TIMEOUT_SECONDS="60", DISPATCHER_LEASE_SECONDS="70"
    )  # a slow machine is no fault
    wait_until(
        lambda: stack.redis.zcard("dispatcher:expiries") + stack.redis.xlen("dispatcher:events") == 0, 100
    )
    posts = Counter(received.event_id for received in stack.received)
    assert (10_000, {1}, set()) == (len(posts), set(posts.values()), set(event_ids) ^ set(posts))
    assert [] == [received for received in stack.received if received.problem or received.status != 200]
    assert {"delivered"} == {stack.state(event_id) for event_id in event_ids}
