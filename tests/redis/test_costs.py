"""What a callback costs, in counts that do not depend on the machine: a change that makes it dearer is seen here."""

import gc
import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

from dispatcher.fast_decode import status_change
from dispatcher.model import Status
from dispatcher.rules.callback import Callback, Claimed
from dispatcher.rules.outcomes import Attempt, Delivered, EndpointHealth
from dispatcher.rules.render import RenderOptions, fan_out, render
from dispatcher.rules.subscription import Secret, Subscription
from dispatcher.rules.workspace import Workspace
from dispatcher.sending.answer import Answer
from dispatcher.sending.sender import Sender
from dispatcher.store.arguments import ToAccept
from dispatcher.store.keys import endpoint_id
from dispatcher.store.replies import Settlement, ToSettle
from dispatcher.store.stats import LENGTHS
from dispatcher.worker.recorder import Recorder
from tests.messages import change
from tests.world import START_MS, TOKEN, World, callback

ENDPOINT = "acme https://a.example:443"
MARGIN = 1.1
RAW = (
    b'{"eventId":"e1","workspace":"acme","status":"DELIVERED","timestamp":"2026-06-09T13:04:57Z","message":'
    b'{"uuid":"m1","src":"ACME","dest":"+233200000001","segments":1,"units":1,"attempts":1,"cost":0.05}}'
)
WORKSPACE = Workspace(
    "acme", "zeckta", "https://a.example/hooks", (Secret("whsec_" + "a" * 32, START_MS),), START_MS, "r"
)


def redis_calls(world: World) -> int:
    """Commands that Redis ran so far, in scripts and outside."""
    stats = world.call("info", "commandstats")
    return sum(s["calls"] for name, s in stats.items() if name not in ("cmdstat_info", "cmdstat_config"))


def delivered(world: World, one: Claimed) -> Settlement:
    return Settlement(one.event_id, one.claim, Delivered(), Attempt(world.now, 5, 200), EndpointHealth.UP)


def deliver(world: World, callbacks: list[Callback]) -> int:
    """Accepts, claims and settles them in one call each; the commands that took."""
    entries = world.enqueued(len(callbacks))
    before = redis_calls(world)
    world.accept(*callbacks, claim=len(callbacks), entries=entries)
    [(_, claim)] = world.claims
    assert len(callbacks) == len(claim.callbacks)
    settlements = [delivered(world, one) for one in claim.callbacks]
    world.run(world.ledger.settle([ToSettle(endpoint_id(ENDPOINT), settlements)]))
    return redis_calls(world) - before


def test_redis_calls_of_one(world: World) -> None:
    """One callback alone, its endpoint known: two scripts, and so many commands in them."""
    deliver(world, [callback("e0", message="m0")])
    assert deliver(world, [callback("e1", message="m1")]) <= 30 * MARGIN


def test_redis_calls_of_many(world: World) -> None:
    """Twenty for one endpoint share what is done once for it."""
    deliver(world, [callback("e0", message="m0")])
    world.call("hset", world.keys.endpoint(endpoint_id(ENDPOINT)), "window", 20)
    calls = deliver(world, [callback(f"b{n}", message=f"b{n}") for n in range(20)])
    assert calls / 20 <= 4.4 * MARGIN


def test_redis_calls_of_many_endpoints(world: World) -> None:
    """One for each of twenty endpoints share what is done once a script."""
    names = [f"acme https://{n}.example:443" for n in range(20)]
    for turn in "ab":  # at first the endpoints are not known
        entries = world.enqueued(20)
        before = redis_calls(world)
        world.accept(
            *(callback(f"{turn}{n}", endpoint=name, message=f"{turn}{n}") for n, name in enumerate(names)),
            claim=20,
            entries=entries,
        )
        asked = [
            ToSettle(endpoint, [delivered(world, one) for one in claim.callbacks])
            for endpoint, claim in world.claims
        ]
        assert 20 == len(asked)
        world.run(world.ledger.settle(asked))
    assert (redis_calls(world) - before) / 20 <= 17.7 * MARGIN


def test_redis_calls_of_recording(world: World) -> None:
    """What a status change says of its message takes few commands more."""
    batch = ToAccept()
    for number in range(20):
        Recorder(60_000).add(batch, change("SENT", f"m{number}"), "zeckta", 0)
    before = redis_calls(world)
    accepted = world.run(world.ledger.accept(TOKEN, {}, [], batch))
    assert ["recorded"] * 20 == accepted.recorded
    assert (redis_calls(world) - before) / 20 <= 2.2 * MARGIN


def test_counters_are_found_through_a_table(world: World) -> None:
    """Redis does not compare names one by one to find a workspace's counter."""
    deliver(world, [callback("e1")])
    kept = {unit: world.keys.stats(unit, world.now // length) for unit, length in LENGTHS.items()}
    found = {unit: world.call("object", "ENCODING", key) for unit, key in kept.items()}
    assert b"hashtable" == found["hour"] == found["day"]
    assert all(b" " in name for name in world.call("hkeys", kept["hour"])), "nothing but counters"


def python_calls(work: Callable[[], object]) -> int:
    """Functions, Python's and C's, that some work calls the second time it is done."""
    work()
    count = 0

    def note(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.disable()  # what it would finalize is not this work's
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def test_python_calls_of_intake() -> None:
    """From an entry's bytes to the rendered callback."""
    calls = python_calls(lambda: render(status_change(RAW), WORKSPACE, START_MS, RenderOptions()))
    assert calls <= 43 * MARGIN


class Answers:
    """In place of the transport."""

    async def post(self, *_request: object, **_options: object) -> Answer:
        """200."""
        return Answer(200)


def test_python_calls_of_sending() -> None:
    """Signing, and all that is done for a POST beside the transport."""
    sender = Sender(Answers(), "agent")
    one = Claimed("e1", 1, 1, 2**53, "MESSAGE_SENT", Status.SENT, "m1", "https://a.example/hooks", RAW)

    def send() -> None:
        coroutine = sender.send(one, WORKSPACE, START_MS)
        try:
            coroutine.send(None)
        except StopIteration:
            return
        raise AssertionError("it waited for something")

    assert python_calls(send) <= 38 * MARGIN


def memory_of(world: World) -> int:
    """Bytes of all that is kept of callbacks and of their messages."""
    kinds = "event", "body", "message", "lane", "expiries"
    keys = [key for kind in kinds for key in world.call("keys", f"{world.keys.root}{kind}*")]
    return sum(world.call("memory_usage", key, samples=0) for key in keys)


def fan_out_costs(world: World, subscriptions: int) -> list[float]:
    """Commands and bytes of each of eighty callbacks, of messages' first status and of their second."""
    messages = 80 // subscriptions
    others = tuple(f"s{n}" for n in range(subscriptions - 1))
    names = ("acme", *(f"acme.{one}" for one in others))
    workspace = replace(
        WORKSPACE,
        subscriptions={
            one: Subscription(one, "zeckta", f"https://{one}.example/hooks", WORKSPACE.secrets, START_MS)
            for one in others
        },
    )
    costs: list[float] = []
    for first, statuses in (("known", ["SENT"]), ("m", ["SENT", "DELIVERED"])):
        for status in statuses:
            batch = ToAccept()
            for number, entry in enumerate(world.enqueued(messages)):
                one = change(status, f"{first}{number}", event_id=f"{first}{number}{status}")
                for rendered in fan_out(one, workspace, START_MS, RenderOptions()):
                    batch.add(entry, rendered)
            kept, calls = memory_of(world), redis_calls(world)
            words = world.run(world.ledger.accept(TOKEN, {}, [], batch)).words
            assert ["accepted"] * messages == words
            costs += [redis_calls(world) - calls, memory_of(world) - kept]
            world.deliver_all(*(f"{one} https://{one.partition('.')[2] or 'a'}.example:443" for one in names))
    return [round(one / 80, 2) for one in costs[2:]]


def test_costs_of_fan_out(world: World) -> None:
    """A callback of a status change that has four costs no more commands and bytes than one that is alone."""
    alone = fan_out_costs(world, 1)
    world.call("flushall")
    world.lead()
    of_four = fan_out_costs(world, 4)
    assert of_four[0] <= alone[0], "commands"
    assert of_four[2] <= alone[2], "commands of the second status"
    longer_ids, chance = (
        1.03,
        1.03,
    )  # on Valkey; a sorted set's bytes depend on chance (levels of its list, when its table grows)
    assert of_four[1] + of_four[3] <= (alone[1] + alone[3]) * longer_ids * chance, "bytes"
