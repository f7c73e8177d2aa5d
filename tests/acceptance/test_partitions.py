"""Workers that share partitions: one is killed, one stalls, one ends; a number that is wrong; what operators see."""

import asyncio
import json
import signal
import threading
from collections.abc import Sequence

import pytest
from aiohttp import web

from dispatcher.rules.partitions import Partitioning
from dispatcher.store.keys import keys_of
from tests.acceptance.divided import divide, leases, shares
from tests.acceptance.stack import CELERY, Stack, Worker, change, wait_until
from tests.freezing import freeze

COUNT = 16
KEYS = keys_of("dispatcher", COUNT)
WORKSPACES = [f"w{number}" for number in range(12)]


@pytest.fixture
def divided(stack: Stack) -> Stack:
    """A stack of 16 partitions with 12 workspaces."""
    return divide(stack, COUNT, WORKSPACES)


def all_owned(stack: Stack) -> bool:
    """Whether each partition has an owner."""
    return None not in leases(stack)


def started(stack: Stack, count: int) -> list[Worker]:
    """Workers that lead all partitions together."""
    workers = [stack.start_worker(*CELERY, "-n", f"n{n}@%h") for n in range(count)]
    for worker in workers:
        worker.wait_ready()
    wait_until(lambda: all_owned(stack) and shares(stack) == [COUNT // count] * count, what="even shares")
    return workers


def enqueued(stack: Stack, count: int, first: int = 0) -> list[tuple[str, str]]:
    """Status changes of all workspaces in turn: workspace and eventId of each."""
    names = [WORKSPACES[number % len(WORKSPACES)] for number in range(count)]
    ids = [stack.enqueue(first=first + number, workspace=name)[0] for number, name in enumerate(names)]
    return list(zip(names, ids, strict=True))


def all_delivered(stack: Stack, events: Sequence[tuple[str, str]]) -> None:
    """Waits until all are delivered."""
    wait_until(
        lambda: all(stack.state(id_, name) == "delivered" for name, id_ in events), 30, "all delivered"
    )


def test_killed_ended_and_new_ones(divided: Stack) -> None:
    """The partitions of a worker that is killed are led by another within 6 s; one that ends hands over; one that comes gets its share."""
    first, second = started(divided, 2)
    events = enqueued(divided, 60)
    all_delivered(divided, events)  # a POST that a kill meets may be repeated
    first.kill()
    wait_until(lambda: all_owned(divided) and leases_of_one(divided), 30, "one owner of all")
    events += enqueued(divided, 60, first=100)
    all_delivered(divided, events)
    third = divided.start_worker().wait_ready()
    wait_until(lambda: shares(divided) == [COUNT // 2] * 2, what="even shares")
    assert 0 == second.terminate()
    wait_until(lambda: shares(divided) == [COUNT], 30, "one owner of all")
    all_delivered(divided, enqueued(divided, 30, first=200))
    assert 0 == third.terminate()
    assert [None] * COUNT == leases(divided)
    assert len(divided.received) == len({(one.event_id) for one in divided.received})


def test_others_lead_before_a_slow_post_ends(divided: Stack) -> None:
    """A worker that gets TERM hands over at once: another leads all while its POST in flight goes on, which is recorded in the end."""
    divided.environment |= {"DISPATCHER_REQUEST_TIMEOUT_SECONDS": "25", "DISPATCHER_LEASE_SECONDS": "40"}
    asked, go_on = threading.Event(), threading.Event()

    async def answer(_: web.Request, __: int) -> web.Response:
        asked.set()
        await asyncio.to_thread(go_on.wait, 60)
        return web.Response()

    divided.answer = answer
    [first] = started(divided, 1)
    events = enqueued(divided, 1)
    wait_until(asked.is_set, what="a POST")
    second = divided.start_worker(*CELERY, "-n", "second@%h").wait_ready()
    wait_until(lambda: shares(divided) == [COUNT // 2] * 2, what="even shares")
    first.process.terminate()
    wait_until(lambda: shares(divided) == [COUNT] and all_owned(divided), 30, "one owner of all")
    assert first.process.poll() is None
    go_on.set()
    assert 0 == first.process.wait(30)
    all_delivered(divided, events)
    assert 0 == second.terminate()
    assert 1 == len(divided.received)


def leases_of_one(stack: Stack) -> bool:
    """Whether one worker says that it leads all."""
    return shares(stack) == [COUNT]


def test_a_stalled_owner(divided: Stack) -> None:
    """Partitions of a worker that stalls are taken over; when it goes on, it accepts nothing that is not its own any more."""
    first, second = started(divided, 2)
    freeze(first.process.pid)
    before = leases(divided)
    wait_until(lambda: all_owned(divided) and leases(divided) != before, 30, "the lease is taken over")
    wait_until(lambda: len(set(before) & set(leases(divided))) == COUNT // 2, 30, "all are taken over")
    events = enqueued(divided, 40)
    first.process.send_signal(signal.SIGCONT)
    events += enqueued(divided, 40, first=100)
    all_delivered(divided, events)
    wait_until(lambda: len(first.lines("intake.lost_lead")) == COUNT // 2, what="it has noticed")
    wait_until(lambda: shares(divided) == [COUNT // 2] * 2, what="even shares")
    assert len(divided.received) == len({one.event_id for one in divided.received})
    assert [0, 0] == [worker.terminate() for worker in (first, second)]


def test_another_number(divided: Stack) -> None:
    """A worker, a command and a producer with another number refuse, and say which one is right."""
    divided.start_worker().wait_ready()
    wait_until(lambda: all_owned(divided), what="owners")
    for count in ("1", "8"):
        worker = divided.start_worker(DISPATCHER_PARTITIONS=count)
        assert 78 == worker.process.wait(30)
        assert f"with {COUNT} partitions" in worker.lines("worker.refused")[0]["problem"]
        divided.environment["DISPATCHER_PARTITIONS"] = count
        done = divided.cli("stats")
        assert (1, True) == (done.returncode, f"with {COUNT} partitions" in done.stderr), done
        divided.environment["DISPATCHER_PARTITIONS"] = str(COUNT)


def test_a_stranger_is_handed_on(divided: Stack) -> None:
    """What is XADDed to the queue of any partition is delivered, in the order in which it was enqueued."""
    started(divided, 2)
    home = Partitioning(COUNT).home("w3")
    other = KEYS[(home + 5) % COUNT]
    for number in range(50):
        divided.redis.xadd(
            other.events, {"event": json.dumps(change(0, workspace="w3", eventId=f"e{number}"))}
        )
    all_delivered(divided, [("w3", f"e{number}") for number in range(50)])
    assert [f"e{number}" for number in range(50)] == [one.event_id for one in divided.received]
    assert not any(divided.redis.xlen(keys.events) for keys in KEYS)


def test_a_width_that_grows(divided: Stack) -> None:
    """After `workspace update --width` all is told once more, and goes on: each event happens once, each message in its order."""
    started(divided, 2)
    home = KEYS[Partitioning(COUNT).home("w3")]
    messages = [f"m{number}" for number in range(40)]

    def tell(step: int) -> None:
        """One status change of each message, on home's queue."""
        for uuid in messages:
            told = {"uuid": uuid, "src": "ACME", "dest": "+233200000001"}
            one = change(0, workspace="w3", eventId=f"{uuid}-{step}", message=told)
            divided.redis.xadd(home.events, {"event": json.dumps(one)})

    tell(1)
    all_delivered(divided, [("w3", f"{uuid}-1") for uuid in messages])
    done = divided.cli("workspace", "update", "w3", "--width", "4")
    assert 0 == done.returncode, done
    for step in (1, 2, 3):
        tell(step)
    all_delivered(divided, [("w3", f"{uuid}-3") for uuid in messages])
    wait_until(lambda: not any(divided.redis.xlen(keys.events) for keys in KEYS), what="empty queues")
    ids = [one.event_id for one in divided.received]
    assert 120 == len(ids) == len(set(ids))
    for uuid in messages:
        assert [f"{uuid}-{step}" for step in (1, 2, 3)] == [one for one in ids if one.split("-")[0] == uuid]
    tell(3)
    wait_until(lambda: not any(divided.redis.xlen(keys.events) for keys in KEYS), what="empty queues")
    divided.redis.xadd(home.events, {"event": json.dumps(change(0, workspace="w3", eventId="new"))})
    all_delivered(divided, [("w3", "new")])
    assert 121 == len(divided.received)
