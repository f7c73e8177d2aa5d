"""One endpoint is never another's problem."""

import asyncio
import time
from collections import Counter

import pytest
from aiohttp import web

from dispatcher.worker.intake import BATCH_BEHIND
from tests.acceptance.stack import Stack, wait_until


def test_outage_and_recovery(stack: Stack) -> None:
    """An endpoint that is down pauses after some failures, is probed, and gets all its callbacks when it is back."""
    down = True

    async def answer(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=503 if down else 200)

    stack.answer = answer
    url = stack.add_workspace()
    settings = {"BREAKER_FAILURES": "3", "BREAKER_PAUSE_SECONDS": "0.5", "BREAKER_MAX_PAUSE_SECONDS": "1"}
    worker = stack.start_worker(
        **{f"DISPATCHER_{name}": value for name, value in settings.items()}
    ).wait_ready()
    event_ids = stack.enqueue(200)
    (shown,) = wait_until(lambda: stack.cli_json("endpoint", "list", "--state", "paused"))
    assert ("acme", url.removesuffix("/hooks")) == (shown["workspace"], shown["endpoint"])
    assert shown["waiting"] >= 190
    wait_until(lambda: len(worker.lines("endpoint.paused")) >= 3, what="probes that failed")
    posts = len(stack.received)
    assert posts <= 3 + 2 * len(worker.lines("endpoint.paused")), "a paused endpoint gets one probe at a time"
    down = False
    ended = stack.wait_ended(event_ids)
    assert ended["delivered"] >= 200 - posts
    assert 200 == sum(ended.values())
    wait_until(lambda: worker.lines("endpoint.recovered"))
    assert "idle" == stack.cli_json("endpoint", "show", "acme", url)["state"]


def test_operators_hand(stack: Stack) -> None:
    """A stopped endpoint gets nothing; its neighbours do; going again it gets all that waited."""
    url = stack.add_workspace()
    other = f"{stack.listen()}/hooks"
    stack.start_worker().wait_ready()
    stack.wait_ended(stack.enqueue(first=1000))
    assert 0 == stack.cli("endpoint", "stop", "acme", url).returncode
    held = stack.enqueue(20)
    stack.wait_ended(stack.enqueue(20, first=100, callbackUrl=other))
    assert {"pending"} == {stack.state(event_id) for event_id in held}
    assert ("stopped", 20) == tuple(
        stack.cli_json("endpoint", "show", "acme", url)[n] for n in ("state", "waiting")
    )
    assert 0 == stack.cli("endpoint", "resume", "acme", url).returncode
    assert {"delivered": 20} == stack.wait_ended(held)
    assert 1 == stack.cli("endpoint", "stop", "acme", "http://nobody.example/").returncode
    assert 2 == stack.cli("endpoint", "list", "--state", "sleeping").returncode


def test_concurrency_holds_across_workers(stack: Stack) -> None:
    """Two workers together never have more POSTs at an endpoint than its workspace allows."""
    inside = 0
    most = 0

    async def answer(_request: web.Request, _number: int) -> web.Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.02)
        inside -= 1
        return web.Response()

    stack.answer = answer
    stack.add_workspace("acme", "zeckta", "", "--max-concurrency", "5")
    for _ in range(2):
        stack.start_worker()
    for worker in stack.workers:
        worker.wait_ready()
    assert {"delivered": 200} == stack.wait_ended(stack.enqueue(200))
    assert 5 == most


def test_many_dead_endpoints(stack: Stack) -> None:
    """Endpoints that refuse connections cost the healthy ones nothing, and their own callbacks no attempt in a pause."""
    stack.add_workspace()
    dead = [stack.refusing_url() for _ in range(30)]
    stack.start_worker(DISPATCHER_BREAKER_FAILURES="2", DISPATCHER_BACKOFF_BASE_SECONDS="600").wait_ready()
    waiting = [e for n, url in enumerate(dead) for e in stack.enqueue(20, first=n * 20, callbackUrl=url)]
    healthy = stack.enqueue(50, first=10_000)
    assert {"delivered": 50} == stack.wait_ended(healthy)
    wait_until(lambda: len(stack.cli_json("endpoint", "list", "--state", "paused")) == 30)
    states = Counter(stack.state(event_id) for event_id in waiting)
    assert states["pending"] >= 30 * 15, states


def test_rate(stack: Stack) -> None:
    """A rate is held by a real worker: callbacks arrive no faster, and all of them; TERM does not wait for tokens."""
    arrived: list[float] = []

    async def answer(_request: web.Request, _number: int) -> web.Response:
        arrived.append(time.monotonic())
        return web.Response()

    stack.answer = answer
    stack.add_workspace("acme", "zeckta", "", "--rate-per-second", "20")
    worker = stack.start_worker().wait_ready()
    assert {"delivered": 40} == stack.wait_ended(stack.enqueue(40))
    assert arrived[-1] - arrived[0] >= (40 - 2) / 20 - 0.1, "a bucket holds two tokens at this rate"
    assert 0 == stack.cli("workspace", "update", "acme", "--rate-per-second", "0.01").returncode
    slow = stack.enqueue(3, first=100)
    wait_until(lambda: len(arrived) == 41)
    assert 0 == worker.terminate()
    assert {"pending", "delivered"} == {stack.state(event_id) for event_id in slow}


def test_no_number_of_names_takes_all_slots(stack: Stack) -> None:
    """One customer's many hanging endpoints fill the slots of unknown ones; an endpoint that answers keeps its share."""
    hanging = asyncio.Event()

    async def answer(request: web.Request, _number: int) -> web.Response:
        if request.path.startswith("/hang"):
            await hanging.wait()
        return web.Response()

    stack.answer = answer
    anywhere = stack.listen("0.0.0.0")
    stack.add_workspace("acme", "zeckta", anywhere)
    stack.add_workspace("evil")
    settings = {"MAX_IN_FLIGHT": "16", "REQUEST_TIMEOUT_SECONDS": "20", "LEASE_SECONDS": "30"}
    stack.start_worker(**{f"DISPATCHER_{name}": value for name, value in settings.items()}).wait_ready()
    stack.wait_ended(stack.enqueue(1))
    for number in range(40):
        hangs = f"{anywhere.replace('127.0.0.1', f'127.0.1.{number + 1}')}/hang"
        stack.enqueue(2, first=100 + 2 * number, workspace="evil", callbackUrl=hangs)
    wait_until(lambda: stack.redis.xlen("dispatcher:events") == 0)
    for first in range(1000, 1005):
        assert {"delivered": 1} == stack.wait_ended(stack.enqueue(1, first=first), seconds=15)
    hanging.set()


@pytest.mark.parametrize("count", [BATCH_BEHIND, 2 * BATCH_BEHIND])
def test_a_burst_that_fills_its_batches(stack: Stack, count: int) -> None:
    """Intake's precedence ends with the burst, also where its last batch was a full one."""
    stack.add_workspace()
    event_ids = stack.enqueue(count)
    stack.start_worker().wait_ready()
    assert {"delivered": count} == stack.wait_ended(event_ids)


def test_a_new_customer_beside_a_busy_one(stack: Stack) -> None:
    """Whoever has all slots, and endpoints that take all they get, lets an endpoint that nobody knows begin at once."""
    taken: Counter[str] = Counter()

    async def answer(request: web.Request, _number: int) -> web.Response:
        taken[request.headers["webhook-id"].partition("-")[0]] += 1
        await asyncio.sleep(0.2)
        return web.Response()

    stack.answer = answer
    stack.add_workspace("busy")
    stack.add_workspace("new")
    urls = [f"{stack.listen()}/hooks" for _ in range(6)]
    stack.start_worker(DISPATCHER_MAX_IN_FLIGHT="8").wait_ready()
    for number in range(300):
        stack.enqueue(
            first=number, workspace="busy", eventId=f"busy-{number}", callbackUrl=urls[number % len(urls)]
        )
    wait_until(lambda: taken["busy"] >= 60)
    event_ids = stack.enqueue(3, first=1000, workspace="new")
    stack.wait_ended(event_ids, "new")
    assert taken["busy"] < 200
