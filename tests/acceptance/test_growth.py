"""From one Redis to several partitions on another one, while status changes come and callbacks wait."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import redis
from aiohttp import web

from config.settings import Settings
from dispatcher import Dispatcher
from dispatcher.rules.partitions import Partitioning
from dispatcher.store.across.api_keys import ApiKeysAcross
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.keys import endpoint_id, keys_of
from tasks import wiring
from tasks.redis_server import RedisServer
from tests.acceptance.stack import CELERY, Stack, change, wait_until

COUNT = 16
GROWN = ("redis_url", "broker_url", "partitions", "previous_redis_url")
WORKSPACES = [f"w{number}" for number in range(6)]
STATUSES = ("SUBMITTED", "SENT", "DELIVERED")


def changes(status: str, first: int, count: int) -> list[dict[str, object]]:
    """A change of each of some messages of all workspaces."""
    return [
        change(number, workspace=name, status=status, eventId=f"{name}-{number}-{status}")
        for number in range(first, first + count)
        for name in WORKSPACES
    ]


def grown(stack: Stack, new: RedisServer) -> dict[str, str]:
    """The settings as they are to be."""
    return {
        "DISPATCHER_REDIS_URL": new.url,
        "DISPATCHER_BROKER_URL": stack.server.url,
        "DISPATCHER_PARTITIONS": str(COUNT),
        "DISPATCHER_PREVIOUS_REDIS_URL": stack.server.url,
    }


def test_growth_while_running(stack: Stack, new: RedisServer) -> None:
    """Old and new producers go on; each change is delivered once, in the order of its message; duplicates stay duplicates."""
    is_up, taken = False, Counter[str]()

    async def answer(request: web.Request, _number: int) -> web.Response:
        if not is_up and b"m1" in await request.read():  # some messages wait for their next attempt
            return web.Response(status=503)
        taken[request.headers["webhook-id"]] += 1
        return web.Response()

    stack.answer = answer
    stack.environment["DISPATCHER_BACKOFF_BASE_SECONDS"] = "0.5"
    for name in WORKSPACES:
        stack.add_workspace(name)
    key = stack.cli_json("workspace", "api-key", "add", "w1", "--name", "k")
    worker = stack.start_worker(*CELERY, "-n", "old@%h").wait_ready()
    with Dispatcher.from_url(stack.server.url) as old:
        old.enqueue_many(changes("SUBMITTED", 0, 20))
        wait_until(
            lambda: len({one.event_id for one in stack.received}) == 20 * len(WORKSPACES),
            what="first attempts",
        )
        stack.environment |= grown(stack, new)
        refused = stack.start_worker()
        assert 78 == refused.process.wait(30)
        assert "run `dispatcher grow` first" in refused.lines("worker.refused")[0]["problem"]
        copied = stack.cli_json("grow")
        assert (6, 1) == (copied["workspaces"], copied["apiKeys"]), copied
        assert 78 == worker.process.wait(20)  # it takes the previous Redis for the whole
        assert "has grown into 16 partitions" in worker.lines("worker.refused")[0]["problem"]
        old.enqueue_many(changes("SENT", 0, 10))  # nobody reads it now
        workers = [stack.start_worker(*CELERY, "-n", f"n{n}@%h") for n in range(2)]
        for one in workers:
            one.wait_ready()
        wait_until(lambda: old.queued() == 0, what="the previous queue is empty")
        is_up = True
        with Dispatcher.from_url(new.url, partitions=COUNT) as dispatcher:
            dispatcher.enqueue_many(changes("SENT", 10, 15))
            old.enqueue_many(changes("SUBMITTED", 40, 5))  # a producer that was not told yet
            dispatcher.enqueue_many(changes("SUBMITTED", 0, 20))  # once more
            wait_until(lambda: old.queued() == 0, what="the previous queue is empty")
            dispatcher.enqueue_many(changes("DELIVERED", 0, 25) + changes("SENT", 40, 5))
    ids = {
        f"{one['eventId']}"
        for one in [*changes("SUBMITTED", 0, 20), *changes("SENT", 0, 25), *changes("DELIVERED", 0, 25)]
    }
    ids |= {f"{one['eventId']}" for one in [*changes("SUBMITTED", 40, 5), *changes("SENT", 40, 5)]}
    wait_until(lambda: {one.event_id for one in stack.received} >= ids, 40, "all arrive")
    wait_until(lambda: stack.cli_json("stats")["now"]["waiting"] == 0, what="nothing waits")
    ends = stack.cli_json("event", "list", "--state", "failed")
    assert [] == ends, ends
    assert dict.fromkeys(ids, 1) == taken
    first: dict[str, int] = {}
    for place, one in enumerate(stack.received):
        first.setdefault(one.event_id, place)
    for name in WORKSPACES:
        for number in [*range(25), *range(40, 45)]:
            places = [first[id_] for status in STATUSES if (id_ := f"{name}-{number}-{status}") in first]
            assert places == sorted(places), (name, number)
    there = [bool(stack.redis.exists(f"dispatcher:event:w0:w0-{number}-DELIVERED")) for number in range(25)]
    assert [True] * 20 + [False] * 5 == there  # messages end where they began
    assert key["apiKey"].partition(".")[0] in stack.cli("workspace", "api-key", "list", "w1").stdout
    shown = stack.cli_json("event", "show", "w1-3-SUBMITTED", "--workspace", "w1")
    assert "delivered" == shown["state"]
    assert "previous" in stack.cli("check").stdout
    assert [0, 0] == [one.terminate() for one in workers]


def test_what_is_in_flight_when_it_grows_is_sent_once(stack: Stack, new: RedisServer) -> None:
    """A worker with the settings so far lets its POSTs end, and records them, before it ends."""
    taken = Counter[str]()

    async def slowly(request: web.Request, _number: int) -> web.Response:
        taken[request.headers["webhook-id"]] += 1
        await asyncio.sleep(4)  # within the time-out; longer than a worker takes to see the growth
        return web.Response()

    stack.answer = slowly
    stack.environment |= {"DISPATCHER_REQUEST_TIMEOUT_SECONDS": "6", "DISPATCHER_LEASE_SECONDS": "12"}
    stack.add_workspace("acme")
    old = stack.start_worker(*CELERY, "-n", "old@%h").wait_ready()
    stack.environment |= grown(stack, new)
    ids = enqueued_before(stack)
    wait_until(lambda: len(taken) == len(ids), what="all are in flight")
    assert 0 == stack.cli("grow").returncode
    assert 78 == old.process.wait(20)
    worker = stack.start_worker().wait_ready()
    wait_until(lambda: stack.cli_json("stats")["now"]["waiting"] == 0, 40, what="nothing waits")
    assert dict.fromkeys(ids, 1) == taken
    assert [] == worker.lines("callback.worker_lost")
    assert 0 == worker.terminate()


def enqueued_before(stack: Stack) -> list[str]:
    """Enqueues changes of some messages at the previous Redis; their eventIds."""
    with Dispatcher.from_url(stack.server.url) as dispatcher:
        return dispatcher.enqueue_many(changes_of("acme", 0, 20))


def test_both_sides_say_what_is_missing(stack: Stack, new: RedisServer) -> None:
    """What takes the previous Redis for the whole, or leaves it out, refuses; after --end it is not needed."""
    stack.add_workspace("acme")
    before = dict(stack.environment)
    stack.environment |= grown(stack, new)
    missing = stack.cli("stats")
    assert (1, True) == (missing.returncode, "dispatcher grow" in missing.stderr), missing
    assert "copied: 1 workspace, 0 API keys" in stack.cli("grow").stdout
    assert "copied: 0 workspaces" in stack.cli("grow").stdout
    assert 0 == stack.cli("stats").returncode

    alone = dict(stack.environment)
    del alone["DISPATCHER_PREVIOUS_REDIS_URL"]
    after, stack.environment = stack.environment, alone
    left_out = stack.cli("stats")
    assert (1, True) == (left_out.returncode, "set DISPATCHER_PREVIOUS_REDIS_URL" in left_out.stderr), (
        left_out
    )
    assert 2 == stack.cli("grow").returncode
    stack.environment = before
    whole = stack.cli("stats")
    assert (1, True) == (whole.returncode, "has grown into 16 partitions" in whole.stderr), whole

    stack.environment = after
    Dispatcher.from_url(stack.server.url).enqueue(change(1))
    waits = stack.cli("grow", "--end")
    assert (1, True) == (waits.returncode, "wait in the previous Redis" in waits.stderr), waits
    stack.redis.delete("dispatcher:events")
    assert 0 == stack.cli("grow", "--end", "--force").returncode
    stack.environment = alone
    assert 0 == stack.cli("stats").returncode


def test_the_previous_redis_is_away(stack: Stack, new: RedisServer) -> None:
    """While nobody can know which messages it has, status changes wait; callbacks that are accepted go on; the log says it once."""
    stack.add_workspace("acme")
    stack.add_workspace("bluefin")
    broker = stack.folder / "broker"
    broker.mkdir()
    with RedisServer(broker) as other:
        stack.environment |= grown(stack, new) | {"DISPATCHER_BROKER_URL": other.url}
        assert 0 == stack.cli("grow").returncode
        worker = stack.start_worker().wait_ready()
        with Dispatcher.from_url(new.url, partitions=COUNT) as dispatcher:
            dispatcher.enqueue_many(changes_of("acme", 0, 5))
            wait_until(lambda: len(stack.received) == 5, what="five are delivered")
            stack.server.kill()
            dispatcher.enqueue_many(changes_of("acme", 5, 5) + changes_of("bluefin", 10, 5))
            wait_until(lambda: worker.lines("intake.waits"), what="it waits")
            time.sleep(1)
            assert 5 == len(stack.received)
            stack.server.start()
            wait_until(lambda: len({one.event_id for one in stack.received}) == 15, what="all are delivered")
        assert 15 == len(stack.received)
        wait_until(lambda: worker.lines("intake.resumed"), what="it is logged that it goes on")
        homes = sorted(Partitioning(COUNT).home(name) for name in ("acme", "bluefin"))
        [waits], [resumed] = worker.lines("intake.waits"), worker.lines("intake.resumed")
        assert [homes] * 2 == [waits["partitions"], resumed["partitions"]]
        assert stack.server.url.startswith(waits["server"].rpartition("/")[0])
        assert 0 == worker.terminate()


def changes_of(workspace: str, first: int, count: int) -> list[dict[str, object]]:
    """A change of each of some messages."""
    return [
        change(number, workspace=workspace, eventId=f"e{number}") for number in range(first, first + count)
    ]


def verified(stack: Stack, texts: Sequence[str]) -> list[bool]:
    """Whether the API would take each of these keys."""
    given = {name.removeprefix("DISPATCHER_").lower(): value for name, value in stack.environment.items()}
    settings = Settings(_env_file=None, **{name: given[name] for name in GROWN})

    async def verify() -> list[bool]:
        servers = wiring.servers(settings)
        keys = ApiKeysAcross(Partitions(servers))
        found = [await keys.verify(text) is not None for text in texts]
        await servers.aclose()
        return found

    return asyncio.run(verify())


def test_operators_decisions_come_along(stack: Stack, new: RedisServer) -> None:
    """A stopped endpoint stays stopped, API keys answer and are revoked for good, a changed workspace counts on both sides."""
    url = stack.add_workspace("acme")
    worker = stack.start_worker().wait_ready()
    [first] = stack.enqueue()
    stack.wait_ended([first])
    origin = url.removesuffix("/hooks")
    assert 0 == stack.cli("endpoint", "stop", "acme", origin).returncode
    texts = [
        stack.cli_json("workspace", "api-key", "add", "acme", "--name", f"k{n}")["apiKey"] for n in range(4)
    ]
    assert 0 == worker.terminate()
    stack.redis.sadd("dispatcher:workspaces", "gone")  # removed half-way
    stack.environment |= grown(stack, new)
    copied = stack.cli_json("grow")
    assert {"workspaces": 1, "apiKeys": 4, "stoppedEndpoints": 1, "queued": 0, "waiting": 0} == copied
    assert [True] * 4 == verified(stack, texts)
    assert 4 == len(stack.cli_json("workspace", "api-key", "list", "acme"))
    assert 0 == stack.cli("workspace", "api-key", "revoke", "acme", texts[0].partition(".")[0]).returncode
    assert 0 == stack.cli("grow").returncode
    assert [False, True, True, True] == verified(stack, texts)
    assert 3 == len(stack.cli_json("workspace", "api-key", "list", "acme"))
    started = stack.start_worker().wait_ready()
    with Dispatcher.from_url(new.url, partitions=COUNT) as dispatcher:
        dispatcher.enqueue(change(50, eventId="held"))
    wait_until(
        lambda: stack.cli("event", "show", "held", "--workspace", "acme").returncode == 0, what="accepted"
    )
    assert "pending" == stack.event("held")["state"]
    assert 1 == len(stack.received)
    assert 0 == stack.cli("endpoint", "resume", "acme", origin).returncode
    wait_until(lambda: len(stack.received) == 2, what="resumed")
    stopped_there = endpoint_id(f"acme {origin}")
    stack.redis.hset(f"dispatcher:endpoint:{stopped_there}", "stopped", "1")
    stack.redis.zadd("dispatcher:endpoints", {stopped_there: "inf"})
    assert 0 == stack.cli("grow").returncode  # what is here stays as it is
    home = keys_of("dispatcher", COUNT)[Partitioning(COUNT).home("acme")]
    with redis.Redis.from_url(new.url) as client:
        assert float("inf") > client.zscore(home.endpoints, stopped_there)
        gone = [key for key in client.scan_iter("dispatcher:*:workspaces") if client.sismember(key, "gone")]
    assert [] == gone
    assert 0 == started.terminate()
    assert 0 == stack.cli("workspace", "remove", "acme", "--force").returncode
    with redis.Redis.from_url(new.url) as client:
        assert [] == list(client.scan_iter("dispatcher:*api-key*"))


def test_another_installation_is_there(stack: Stack, new: RedisServer) -> None:
    """Nothing is copied to servers where another installation has workers, or callbacks that wait; else it grows."""
    stack.add_workspace("acme")
    settings = grown(stack, new)
    own = {name: value for name, value in settings.items() if "PREVIOUS" not in name}
    worker = stack.start_worker(**own)
    with redis.Redis.from_url(new.url) as client:
        wait_until(lambda: list(client.scan_iter("dispatcher:{*}:workers")), what="it is known")
        stack.environment |= settings
        refused = stack.cli("grow")
        assert (2, True) == (refused.returncode, "an installation of their own" in refused.stderr), refused
        assert 0 == worker.terminate()
        expiries = keys_of("dispatcher", COUNT)[COUNT - 1].expiries
        client.zadd(expiries, {"other:e1": 1})  # its workers have ended, what they left waits
        refused = stack.cli("grow")
        assert (2, True) == (refused.returncode, "0 workers and 1 waiting callback," in refused.stderr), (
            refused
        )
        assert not list(client.scan_iter("dispatcher:{*}:workspaces"))
        assert b" " not in stack.redis.get("dispatcher:format"), "it has not grown"
        client.delete(expiries)
        assert 0 == stack.cli("grow").returncode
