"""A server that is away or silent: its partitions are named, nothing hangs, and the rest is there."""

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from config.settings import Settings
from dispatcher.errors import PreviousUnavailable, RedisUnavailable
from dispatcher.rules.outcomes import State
from dispatcher.rules.partitions import Partitioning
from dispatcher.store.across.absent import Absent
from dispatcher.store.across.callbacks import CallbacksAcross
from dispatcher.store.across.messages import MessagesAcross
from dispatcher.store.across.partitions import Partitions
from dispatcher.store.across.refused_calls import RefusalsAcross
from dispatcher.store.arguments import ToAccept
from dispatcher.store.grown_servers import GrownServers
from dispatcher.store.keys import Keys, keys_of
from dispatcher.store.members import registries
from dispatcher.store.previous import Previous
from dispatcher.store.servers import PlainServers
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.recorder import Recorder
from tasks import wiring
from tasks.actions import workspaces
from tasks.actions.check_servers import look_at_servers
from tasks.actions.workspaces import Wanted
from tasks.prometheus import InstallationCollector
from tasks.redis_server import RedisServer
from tests.command import command
from tests.divided import End, installed, kill, stop, two_servers
from tests.messages import change
from tests.world import TOKEN

P = 8
NAMES = [f"customer-{n}" for n in range(12)]
HOMES = {name: Partitioning(P).home(name) for name in NAMES}
THERE = [name for name in NAMES if HOMES[name] % 2 == 0]
"""Those whose partition lies on the first server."""
GONE = [name for name in NAMES if name not in THERE]


@pytest.fixture
def servers(server_program: str, tmp_path: Path) -> Iterator[list[RedisServer]]:
    """Two servers."""
    with two_servers(server_program, tmp_path) as started:
        yield started


@pytest.fixture(params=[stop, kill], ids=["silent", "killed"])
def end(request: pytest.FixtureRequest) -> End:
    """How a server goes."""
    chosen: End = request.param
    return chosen


def fill(servers: list[RedisServer]) -> None:
    """Twelve workspaces, each with a failed and a waiting callback."""
    with installed([one.url for one in servers], P) as many:
        for number, name in enumerate(NAMES):
            many.do(workspaces.add, name, "zeckta", Wanted(f"https://{name}.example/hooks"), None)
            many.failed(name, f"f{number}")
            many.waiting(name, f"w{number}")
            many.rejected(name, f"r{number}")


def run(servers: list[RedisServer], *args: str) -> "subprocess.CompletedProcess[str]":
    """A command on both servers; raises TimeoutExpired if it hangs."""
    urls = [one.url for one in servers]
    return command(" ".join(urls), *args, PARTITIONS=str(P), BROKER_URL=urls[0])


def test_lists_name_what_is_missing(servers: list[RedisServer], end: End) -> None:
    """Lists have what the other server holds; a line at the end names the partitions that did not answer, and the code is 1."""
    fill(servers)
    end(servers[1])
    lists = {
        "event list --state failed": ("workspace", THERE),
        "event list --state waiting": ("workspace", THERE),
        "endpoint list": ("workspace", THERE),
        "workspace list": ("workspace", THERE),
        "rejected list": ("workspace", THERE),
        "stats --by workspace": ("workspace", THERE),
        "audit list": ("workspace", THERE),
    }
    for words, (field, expected) in lists.items():
        found = run(servers, *words.split(), "--json")
        assert sorted(expected) == sorted(one[field] for one in json.loads(found.stdout)), words
        last = found.stderr.splitlines()[-1]
        assert last.startswith("4 of 8 partitions did not answer (1, 3, 5, 7: Redis at unix://"), last
        assert last.endswith("what they hold is missing above")
        assert 1 == found.returncode, words


def test_objects_name_what_is_missing(servers: list[RedisServer], end: End) -> None:
    """A JSON object has the numbers of the partitions that did not answer as `absent`; counters are those of the rest."""
    fill(servers)
    whole = json.loads(run(servers, "stats", "--json").stdout)
    end(servers[1])
    found = json.loads(run(servers, "stats", "--json").stdout)
    assert "absent" not in whole
    assert [1, 3, 5, 7] == found["absent"]
    assert [12, len(THERE)] == [one["windows"]["24 h"]["failed"] for one in (whole, found)]


def test_what_may_be_where_nothing_answers(servers: list[RedisServer], end: End) -> None:
    """Of a workspace that is spread over both servers, what is not found while one is away may exist: that is said, with code 3."""
    name = THERE[0]
    with installed([one.url for one in servers], P) as many:
        many.do(workspaces.add, name, "zeckta", Wanted(f"https://{name}.example/hooks", width=2), None)
        many.do(workspaces.add, THERE[1], "zeckta", Wanted("https://b.example/hooks", width=2), None)
        many.failed(name, "here")
    end(servers[1])
    listed = run(servers, "event", "list", "--message", "of-here", "--workspace", name, "--json")
    assert (1, ["here"]) == (listed.returncode, [one["eventId"] for one in json.loads(listed.stdout)])
    everywhere = run(servers, "event", "list", "--message", "of-here", "--json")
    assert (1, listed.stdout) == (everywhere.returncode, everywhere.stdout)
    for words in (
        "event show elsewhere --workspace {}",
        "event list --message elsewhere --workspace {}",
        "event list --message elsewhere",
        "endpoint show {} https://elsewhere.example",
        "event replay elsewhere --workspace {}",
    ):
        found = run(servers, *words.format(name).split())
        assert 3 == found.returncode, (words, found)
        assert len(found.stderr.splitlines()) == 1, found.stderr
        assert found.stderr.startswith("error: "), found.stderr
        assert "Redis at unix://" in found.stderr, found.stderr


def test_what_needs_one_partition(servers: list[RedisServer], end: End) -> None:
    """What is of one workspace is whole and the code 0 where its partition answers, and 3 where it does not."""
    fill(servers)
    end(servers[1])
    there, gone = THERE[0], GONE[0]
    for words in (
        "event show f{} --workspace {}",
        "endpoint show {1} https://{1}.example",
        "workspace show {1}",
    ):
        found = run(servers, *words.format(NAMES.index(there), there).split())
        assert (0, "") == (found.returncode, found.stderr), words
        found = run(servers, *words.format(NAMES.index(gone), gone).split())
        assert 3 == found.returncode, words
        assert found.stderr.startswith("error: Redis at unix://"), words


def test_check_names_the_server(servers: list[RedisServer], end: End) -> None:
    """`check` says which server is away and which partitions did not answer, beside all other findings."""
    fill(servers)
    whole = {one["subject"]: one for one in json.loads(run(servers, "check", "--json").stdout)}
    assert ("ok", "all 8 answer, on 2 servers") == (
        whole["partitions"]["verdict"],
        whole["partitions"]["detail"],
    )
    end(servers[1])
    found = {one["subject"]: one for one in json.loads(run(servers, "check", "--json").stdout)}
    assert "bad" == found["partitions"]["verdict"] == found["redis"]["verdict"]
    assert "(1, 3, 5, 7: " in found["partitions"]["detail"]
    assert servers[1].url in found["redis"]["detail"]
    assert servers[0].url in found["version"]["detail"]


def test_check_knows_a_server_by_two_names(servers: list[RedisServer], tmp_path: Path) -> None:
    """`check` warns of two URLs that lead to one server and database, and names both; other databases are others."""
    other = tmp_path / "other.socket"
    other.symlink_to(servers[0].url.removeprefix("unix://"))
    urls = f"{servers[0].url} {servers[1].url} unix://{other} {servers[0].url}?db=1"
    with installed(urls.split(), P) as many:
        found = many.do(look_at_servers)
    [twice] = [one for one in found if one.subject == "servers"]
    assert ("warning", f"{servers[0].url} and unix://{other} are one server: their partitions share it") == (
        twice.verdict,
        twice.detail,
    )


def test_a_silent_server_is_waited_for_once(servers: list[RedisServer]) -> None:
    """What is asked of a server that did not answer PING fails at once, with that reason and not with a client's time-out."""
    fill(servers)
    urls, gone = [one.url for one in servers], GONE[0]
    home = next(f"wide{n}" for n in range(99) if Partitioning(P).home(f"wide{n}") % 2 == 0)

    async def ask(store: wiring.Store) -> dict[str, str]:
        of = store.workspaces
        told: dict[str, str] = {}
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "keys": lambda: store.api_keys.list(gone),
            "key": lambda: store.api_keys.add(
                gone, "zeckta", "x", now_ms=1_700_000_000_000, rate_per_second=1
            ),
            "rejected": lambda: store.rejected.remove(["1:1-1"]),
            "requeue": lambda: store.ledger.requeue(["1:1-1"]),
            "endpoints": lambda: of.endpoints(home),
            "forget": lambda: of.forget_failing(home, ""),
            "webhook": lambda: of.count_webhook_change(gone, 1_700_000_000_000),
            "pending": lambda: workspaces.waiting_in_order(store, home),
        }
        for name, asked in calls.items():
            with pytest.raises(RedisUnavailable) as raised:
                await asked()
            told[name] = str(raised.value)
        with capture_logs() as logs:
            assert not await store.audit.keep("workspace.update", gone, {}, {})
        told["audit"] = logs[0]["problem"]
        told["check"] = next(one.detail for one in await look_at_servers(store) if one.subject == "redis")
        return told

    with installed(urls, P) as many:
        many.do(workspaces.add, home, "zeckta", Wanted("https://w.example/hooks", width=P), None)
        stop(servers[1])
        told = many.do(ask)
    why = f"Redis at {urls[1]} does not answer within 2 s"
    partly = f"{why}. It is done where partitions answer, and not in partitions 1, 3, 5, 7: repeat it"
    assert dict.fromkeys(told, why) | {"forget": partly} == told


def test_metrics(servers: list[RedisServer], end: End) -> None:
    """The exporter adds up what waits where partitions answer, and says how many partitions do not; with one partition it has no such figure."""

    def read(**given: Any) -> dict[str, float]:
        collected = InstallationCollector(Settings(_env_file=None, **given)).collect()
        return {one.name: sum(sample.value for sample in one.samples) for one in collected}

    fill(servers)
    urls = [one.url for one in servers]
    divided = {"redis_url": " ".join(urls), "partitions": P, "broker_url": urls[0]}
    whole = read(**divided)
    end(servers[1])
    found = read(**divided)
    names = "dispatcher_redis_up", "dispatcher_partitions_absent", "dispatcher_waiting_callbacks"
    assert [1, 0, 12] == [whole[name] for name in names]
    assert [1, 4, len(THERE)] == [found[name] for name in names]
    assert found["dispatcher_redis_memory_bytes"] > 0, "that of the fullest server that answers"


def test_metrics_beside_an_empty_previous_redis(servers: list[RedisServer]) -> None:
    """One that came back without its data counts as one that does not answer: the figures of all others are there."""
    here, previous = (one.url for one in servers)
    with installed([here], P), redis.Redis.from_url(here) as client:
        client.set("dispatcher:grown", 1_700_000_000_000)
        client.set("dispatcher:partitions", P)
        given = {"redis_url": here, "partitions": P, "broker_url": here, "previous_redis_url": previous}
        collected = InstallationCollector(Settings(_env_file=None, **given)).collect()  # type: ignore[arg-type]
        found = {one.name: sum(sample.value for sample in one.samples) for one in collected}
    names = "dispatcher_redis_up", "dispatcher_partitions_absent", "dispatcher_waiting_callbacks"
    assert [1, 1, 0] == [found[name] for name in names]


@pytest.mark.parametrize("gone", [0, 1])
def test_counters_never_fall(servers: list[RedisServer], end: End, gone: int) -> None:
    """A counter to which an absent partition adds is left out of that scrape: it would fall, and Prometheus would count all again."""
    urls = [one.url for one in servers]
    settings = Settings(_env_file=None, redis_url=" ".join(urls), partitions=P, broker_url=urls[0])

    def counters() -> dict[str, float]:
        found = {one.name: one for one in InstallationCollector(settings).collect()}
        assert "dispatcher_waiting_callbacks" in found
        return {
            name: sum(sample.value for sample in one.samples)
            for name, one in found.items()
            if one.type == "counter"
        }

    fill(servers)
    with installed(urls, P) as many:
        many.worlds[0].call("hset", many.worlds[0].keys.api_refused, "wrong", 7)
    whole = {"dispatcher_all_rejected": len(NAMES), "dispatcher_api_refused": 7}
    assert whole == counters()
    end(servers[gone])
    assert ({} if gone == 0 else {"dispatcher_api_refused": 7}) == counters()


def test_refused_calls_of_the_previous_redis(servers: list[RedisServer], end: End) -> None:
    """Calls refused before the installation grew are part of the counter: it is not known while the previous Redis is away."""
    here, previous = servers

    async def totals() -> dict[str, int]:
        of = GrownServers(PlainServers([here.url], keys_of("dispatcher", P)), previous.url, "dispatcher")
        try:
            for n in (0, P):
                await of.wire(n).call("HSET", of.keys[n].api_refused, "rate", 2)
            whole = await RefusalsAcross(Partitions(of)).totals()
            assert 4 == whole["rate"]
            end(previous)
            return await RefusalsAcross(Partitions(of)).totals()
        finally:
            await of.aclose()

    assert {} == asyncio.run(totals())


def test_what_the_partitions_have_while_the_previous_redis_is_away(
    servers: list[RedisServer], end: End
) -> None:
    """A message or a callback of theirs is answered whole; what they have not, and what is of both sides, is refused in its name."""
    here, previous = servers
    name = NAMES[0]
    with installed([here.url], P) as many:
        many.failed(name, "here")
        world, batch, recorder = many.of(name), ToAccept(), Recorder(604_800_000, Metrics())
        recorder.add(batch, change(uuid="m-here", workspace=name, at_ms=many.now), "sendexa", 0)
        world.run(world.ledger.accept(TOKEN, {}, [], batch))
        world.call("hset", world.keys.workspace(name), "dialect", "sendexa")

    async def refusal(asked: Awaitable[object]) -> str:
        with pytest.raises(RedisUnavailable) as caught:
            await asked
        return str(caught.value)

    async def look() -> None:
        of = GrownServers(PlainServers([here.url], keys_of("dispatcher", P)), previous.url, "dispatcher")
        partitions = Partitions(of, needs_all=True)
        messages, callbacks = MessagesAcross(partitions), CallbacksAcross(partitions)
        try:
            end(previous)
            found = [
                await messages.get(name, "m-here"),
                await callbacks.get(name, "here"),
                *await callbacks.of_message(name, "of-here"),
            ]
            assert ["m-here", "of-here", "of-here"] == [
                getattr(one, "uuid", None) or one.message_uuid for one in found if one
            ]
            for asked in (
                messages.get(name, "elsewhere"),
                messages.get_many(name, ["m-here", "elsewhere"]),
                messages.campaign(name, "c"),
                messages.of_customer(name, "sms", ["x"]),
                callbacks.get(name, "elsewhere"),
                callbacks.of_message(name, "elsewhere"),
            ):
                said = await refusal(asked)
                assert said.startswith("the previous Redis: Redis at unix://")
                assert "DISPATCHER_REDIS_URL" not in said, "that is not the setting which is to be looked at"
        finally:
            await of.aclose()

    asyncio.run(look())


def test_workers_are_merged(servers: list[RedisServer], end: End) -> None:
    """Of each worker the newest heartbeat counts; one server that is away hides none of them."""

    async def workers(store: wiring.Store) -> dict[str, Any]:
        return await store.installation.workers()

    with installed([one.url for one in servers], P) as many:
        for n in registries(P):
            keys, score = many.worlds[n].keys, many.now + n
            many.worlds[n].call("zadd", keys.workers, {"w1": score, f"w-{n}": score})
            for name in ("w1", f"w-{n}"):
                many.worlds[n].call("set", keys.worker(name), json.dumps({"pid": n, "format": 2}))
        found = many.do(workers)
        assert {"w1": 7, "w-0": 0, "w-2": 2, "w-7": 7} == {name: one["pid"] for name, one in found.items()}
        assert many.now + 7 == found["w1"]["signedMs"]
        end(servers[1])
        assert ["w-0", "w-2", "w1"] == [*many.do(workers)]


def test_all_are_away(servers: list[RedisServer], end: End) -> None:
    """If no partition answers, a command ends as it does with one Redis that is away."""
    for one in servers:
        end(one)
    found = run(servers, "stats")
    assert 3 == found.returncode
    assert found.stderr.startswith("error: Redis at unix://")
    assert 1 == len(found.stderr.splitlines())


def test_a_list_whose_server_goes_meanwhile(servers: list[RedisServer]) -> None:
    """A server that goes while a list is read ends its part: the others' goes on, and its partitions are named."""
    with installed([one.url for one in servers], P) as many:
        for name in NAMES:
            many.do(workspaces.add, name, "zeckta", Wanted(f"https://{name}.example/hooks"), None)
            many.failed(name, *(f"{name}-{n}" for n in range(70)))  # more than its first page

        async def read(store: wiring.Store) -> tuple[list[str], list[int]]:
            found: list[str] = []
            async for one in store.callbacks.ended(NAMES, State.FAILED):
                found.append(one.workspace)
                if len(found) == 1:
                    servers[1].kill()
            return found, store.absent.partitions

        found, absent = many.do(read)
    assert dict.fromkeys(THERE, 70) == {name: found.count(name) for name in THERE}
    assert {HOMES[name] for name in GONE} == set(absent)


def test_the_line() -> None:
    """The line groups partitions by their problem, and names at most a dozen of each."""
    absent, problem = Absent(64), RedisUnavailable("Redis at a is away (x). Is it running?")
    assert "" == absent.named()
    for n in range(20):
        absent.note(n, problem)
    absent.note(3, RedisUnavailable("a later one"))
    absent.note(33, RedisUnavailable("Redis at b does not answer within 2 s"))
    first = ", ".join(map(str, range(12)))
    assert (
        f"21 of 64 partitions did not answer ({first} and 8 more: Redis at a is away (x); "
        "33: Redis at b does not answer within 2 s)"
    ) == absent.named()


def test_the_line_closes_its_brackets() -> None:
    """A full stop within brackets does not end what is said of a problem."""
    absent = Absent(2)
    absent.note(
        0, RedisUnavailable("Redis at a is away (111 at a. Connect call failed ('a', 1)). Is it running?")
    )
    assert (
        "1 of 2 partitions did not answer (0: Redis at a is away (111 at a. Connect call failed ('a', 1)))"
    ) == absent.named()


def test_partitions_that_a_node_refuses_have_one_reason() -> None:
    """Although each error names its own partition: a node has hundreds, and the line is one."""
    absent = Absent(1024)
    for n in range(300):
        absent.note(
            n, RedisUnavailable(f"Redis at redis://a:6379/0 (partition {n}) refuses us: NOPERM. Check it")
        )
    first = ", ".join(map(str, range(12)))
    assert (
        f"300 of 1024 partitions did not answer ({first} and 288 more: Redis at redis://a:6379/0 refuses us: NOPERM)"
    ) == absent.named()


def test_what_an_error_says_of_itself(servers: list[RedisServer]) -> None:
    """Why a server refuses is kept where the previous Redis is named, so that each reason is logged; no error is its own cause."""

    async def look() -> None:
        of = PlainServers([one.url for one in servers], keys_of("dispatcher", P))
        await of.client(1).config_set("requirepass", "another")
        refusing = PlainServers([servers[1].url], [Keys("dispatcher", P)])
        try:
            with pytest.raises(PreviousUnavailable) as refused:
                await Previous(refusing.wire(0), refusing.keys[0], servers[1].url).known([change()])
            assert "refuses us" in refused.value.why
            assert str(refused.value).startswith("the previous Redis: Redis at unix://")
            kill(servers[0])
            with pytest.raises(RedisUnavailable) as away:
                await Partitions(of).require(0)
            assert isinstance(away.value.__cause__, OSError | RedisError)
        finally:
            await of.aclose()
            await refusing.aclose()

    asyncio.run(look())
