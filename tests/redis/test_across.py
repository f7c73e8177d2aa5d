"""Commands' reads and changes over several partitions: the same answers as of one, on two real servers."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis

from dispatcher.errors import InvalidInput, NotFound, OtherFormat, StillWaiting
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.rules.outcomes import State
from dispatcher.store.across import (
    api_keys,
    audit,
    callbacks,
    client_certificates,
    installation,
    ledger,
    refused_calls,
    stats,
)
from dispatcher.store.across import endpoints as of_endpoints
from dispatcher.store.across import rejected as of_rejected
from dispatcher.store.across import workspaces as of_workspaces
from tasks import wiring
from tasks.actions import endpoints, events, purge, rejected, replay, workspaces
from tasks.actions import stats as of_stats
from tasks.actions.events import Filter, of_message
from tasks.actions.rejected import Choice
from tasks.actions.replay import How
from tasks.actions.workspaces import Wanted
from tasks.redis_server import RedisServer
from tests.divided import Installed, installed

P = 8
NAMES = [f"customer-{n}" for n in range(12)]
HOW = How(expiry_seconds=3600)


@pytest.fixture(scope="module")
def servers(server_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two servers."""
    with (
        RedisServer(tmp_path_factory.mktemp("one"), executable=server_program) as one,
        RedisServer(tmp_path_factory.mktemp("two"), executable=server_program) as two,
    ):
        yield [one.url, two.url]


@pytest.fixture
def both(servers: list[str], redis_url: str) -> Iterator[list[Installed]]:
    """The same data in one partition, and in eight on two servers."""
    for url in servers:
        with redis.Redis.from_url(url) as client:
            client.flushall()
    with installed([redis_url], 1) as one, installed(servers, P) as many:
        many.now = one.now
        yield [one, many]


@pytest.fixture
def many(both: list[Installed]) -> Installed:
    """The installation of eight partitions."""
    return both[1]


def at_once(steps: Sequence[Any]) -> Sequence[Any]:
    """No progress is shown."""
    return steps


def fill(of: Installed) -> None:
    """Twelve workspaces with callbacks in every state."""
    for number, name in enumerate(NAMES):
        of.do(workspaces.add, name, "zeckta", Wanted(f"https://{name}.example/hooks"), None)
        of.failed(name, f"f{number}", f"g{number}")
        of.waiting(name, f"w{number}")
        of.delivered(name, f"d{number}")
    for number, name in enumerate(NAMES[:5]):
        of.rejected(name, f"r{number}", "invalid" if number % 2 else "too_large")


async def _listed(store: wiring.Store, asked: Filter) -> list[dict[str, Any]]:
    return [one.as_json() async for one in events.chosen(store, asked)]


async def _counts(store: wiring.Store) -> dict[str, Any]:
    """What `stats` says; minutes are added, because one may have ended between two readings."""
    found = await of_stats.overall(store, None)
    minutes = {name: sum(counts) for name, counts in found["minutes"].items()}
    now = {name: value for name, value in found["now"].items() if name != "oldestDueAt"}
    return {"now": now, "windows": found["windows"], "minutes": minutes}


async def _read(store: wiring.Store) -> dict[str, Any]:
    """What operators list and count, without what two installations cannot have in common."""
    every = await endpoints.chosen(store, None, None)
    newest = await store.rejected.newest()
    shown = await store.endpoints.with_answers(every)
    return {
        "failed": await _listed(store, Filter("failed")),
        "waiting": await _listed(store, Filter("waiting")),
        "one's": await _listed(store, Filter("failed", NAMES[3])),
        "message": [one.as_json() for one in await of_message(store, "of-f3", None, store.history)],
        "endpoints": [one.as_json() for one in shown],
        "down": [one.url for one in every if one.is_down],
        "stats": await _counts(store),
        "by workspace": await of_stats.by_workspace(store, None),
        "by endpoint": await of_stats.by_endpoint(store, None),
        "rejected": [(one.reason, one.workspace, one.event_id) for one in newest],
        "counts": await store.rejected.counts(),
        "waits": await store.installation.waiting(),
        "format": await store.installation.format(),
        "workspaces": [(one.id, one.callback_url) for one in await store.workspaces.all()],
        "names": await store.workspaces.names(),
        "audit": [(one.what, one.workspace) for one in await store.audit.latest(100)],
        "audit of one": [one.what for one in await store.audit.latest(100, NAMES[2])],
    }


def test_same_answers(both: list[Installed]) -> None:
    """What is listed and counted in eight partitions on two servers is what one partition gives."""
    for of in both:
        fill(of)
    one, many = (of.do(_read) for of in both)
    assert one == many
    assert [f"f{n}" for n in range(12)] == sorted(
        (e["eventId"] for e in many["failed"] if e["eventId"][0] == "f"), key=lambda e: int(e[1:])
    )


def test_changes(both: list[Installed]) -> None:
    """What operators change does the same in eight partitions as in one."""

    async def change(store: wiring.Store) -> list[Any]:
        name = NAMES[4]
        endpoint = await endpoints.one(store, name, f"https://{name}.example:443")
        waiting = [one async for one in store.callbacks.pending(NAMES[5])]
        ended = await purge.ended(store, NAMES[6], State.FAILED, None)
        ids = await rejected.to_requeue(store, Choice(reason="invalid"))
        requeued = await rejected.requeue(store, Choice(reason="invalid"), ids)
        left = await rejected.to_requeue(store, Choice(reason="too_large"))
        await rejected.remove(store, Choice(reason="too_large"), left)
        done = [
            await endpoints.stop(store, endpoint, resume=False),
            (await endpoints.again(store, endpoint)).state,
            await endpoints.stop(store, endpoint, resume=True),
            await endpoints.retry_one(store, endpoint),
            await purge.cancel(store, NAMES[5], None, waiting, at_once),
            await purge.forget(store, NAMES[6], ended),
            await replay.replay_one(store, NAMES[7], "f7", HOW),
            (requeued, await store.rejected.newest()),
            await workspaces.update(store, NAMES[8], Wanted(max_concurrency=3)),
            (await store.workspaces.require(NAMES[8])).max_concurrency,
        ]
        changed = await store.audit.latest(20)
        return [*done, sorted((one.what, one.workspace) for one in changed)]

    for of in both:
        fill(of)
    one, many = (of.do(change) for of in both)
    assert one == many


def test_workspaces_lie_at_home(many: Installed) -> None:
    """A workspace's record, callbacks and API keys lie in its home partition alone."""

    async def add(store: wiring.Store) -> str:
        await workspaces.add(store, "acme", "zeckta", Wanted("https://a.example/hooks"), None)
        key, _ = await store.api_keys.add("acme", "zeckta", "k", now_ms=1, rate_per_second=5)
        return key.id

    id_ = many.do(add)
    home = many.partitioning.home("acme")
    holders = [n for n, world in enumerate(many.worlds) if world.call("exists", world.keys.workspace("acme"))]
    of_key = [n for n, world in enumerate(many.worlds) if world.call("exists", world.keys.api_key(id_))]
    assert ([home], [home]) == (holders, of_key)


def test_api_keys(many: Installed) -> None:
    """A key is found by its text alone, listed with its workspace, revoked, and removed with it; so is a producer's."""

    async def keys(store: wiring.Store) -> list[Any]:
        await workspaces.add(store, "acme", "zeckta", Wanted("https://a.example/hooks"), None)
        made = [
            await store.api_keys.add(of, "zeckta", "k", now_ms=1, rate_per_second=5)
            for of in ("acme", "acme", "*")
        ]
        texts = [text for _, text in made]
        found = [await store.api_keys.verify(text) for text in texts]
        assert [key for key, _ in made] == found
        assert 4 == (await store.api_keys.spend(made[0][0])).remaining
        assert [key.id for key, _ in made[:2]] == sorted(
            (one.id for one in await store.api_keys.list("acme")), key=[key.id for key, _ in made].index
        )
        await store.api_keys.revoke("acme", made[0][0].id)
        with pytest.raises(NotFound):
            await store.api_keys.revoke("acme", made[2][0].id)
        revoked = await store.api_keys.verify(texts[0])
        await store.workspaces.remove("acme", store.ledger)
        return [revoked, await store.api_keys.verify(texts[1]), (await store.api_keys.verify(texts[2]))]

    revoked, removed, kept = many.do(keys)
    assert (None, None, "*") == (revoked, removed, kept.workspace)


def test_rejected_ids(many: Installed) -> None:
    """A rejected entry's id names its partition; another's is refused in one line, and nothing is done."""
    for name in NAMES:
        many.rejected(name, "e1")

    async def ids(store: wiring.Store) -> list[str]:
        return [one.id for one in await store.rejected.newest(5)]

    found = many.do(ids)
    assert [many.partitioning.home(name) for name in reversed(NAMES[-5:])] == [
        int(one.partition(":")[0]) for one in found
    ]
    for wrong in ("1-1", "8:1-1", "x:1-1", ""):
        with pytest.raises(InvalidInput, match="partition:id"):
            many.do(lambda store, wrong=wrong: store.rejected.remove([found[0], wrong]))
    assert found == many.do(ids)


def test_unknown(many: Installed) -> None:
    """What there is not is unknown in all partitions, and a workspace's most similar name is suggested."""
    many.do(workspaces.add, "acme", "zeckta", Wanted("https://a.example/hooks"), None)
    with pytest.raises(NotFound, match="did you mean acme"):
        many.do(lambda store: store.workspaces.require("acne"))
    name = EndpointName("acne", "https://a.example:443")
    assert [None, None, "unknown"] == [
        many.do(lambda store: store.callbacks.get("acne", "e")),
        many.do(lambda store: store.endpoints.get(name)),
        many.do(lambda store: store.ledger.replay("acne", "e")),
    ]


def test_removal(many: Installed) -> None:
    """A workspace with waiting callbacks is removed only by force, and what waited is then due."""
    many.do(workspaces.add, "acme", "zeckta", Wanted("https://acme.example/hooks"), None)
    many.waiting("acme", "e1")
    with pytest.raises(StillWaiting):
        many.do(lambda store: store.workspaces.remove("acme", store.ledger))
    assert 1 == many.do(lambda store: store.workspaces.remove("acme", store.ledger, force=True))
    assert "e1" == many.do(lambda store: store.callbacks.get("acme", "e1")).event_id


FACADES = [
    value
    for module in (
        api_keys, audit, callbacks, client_certificates, of_endpoints, installation, ledger, refused_calls,
        of_rejected, stats, of_workspaces,
    )
    for name, value in vars(module).items()
    if name.endswith("Across") and value.__module__ == module.__name__
]  # fmt: skip
WORKERS = {
    "lead", "accept", "reject", "claim", "settle", "wake", "leave", "expire", "sweep", "mend", "migrate", "now_ms",
}  # fmt: skip
"""Of one partition: a worker has a ledger for each."""
OF_PARTITION_0 = {"RefusalsAcross": {"add", "close"}}
OF_ONE_REDIS = {"_client", "_call", "_keys", "_url", "call", "keys", "url"}


def _inherited(facade: type, method: str, seen: set[str]) -> set[str]:
    """The names of Redis that a method uses which a facade inherits, and those of the base's methods that it calls."""
    function = inspect.getattr_static(facade, method)
    function = getattr(function, "fget", function)
    code: list[Any] = [getattr(inspect.unwrap(function), "__code__", None)]
    if method in vars(facade) or method in seen or code == [None]:
        return set()
    seen.add(method)
    names: set[str] = set()
    while code:
        one = code.pop()
        names |= set(one.co_names)
        code += [const for const in one.co_consts if inspect.iscode(const)]
    used = names & OF_ONE_REDIS
    for name in names:
        if callable(getattr(facade, name, None)):
            used |= _inherited(facade, name, seen)
    return used


@pytest.mark.parametrize("facade", FACADES, ids=lambda one: one.__name__)
def test_nothing_is_asked_of_one_partition_alone(facade: type) -> None:
    """A method that a facade does not override touches no Redis itself: it is made of those that are overridden."""
    methods: list[tuple[str, Callable[..., Any]]] = inspect.getmembers(facade, inspect.isfunction)
    left_out = OF_PARTITION_0.get(facade.__name__, set()) | (
        WORKERS if facade.__name__ == "LedgerAcross" else set()
    )
    wrong = {
        name: used
        for name, _ in methods
        if not name.startswith("_") and name not in left_out and (used := _inherited(facade, name, set()))
    }
    assert {} == wrong


def test_large_and_damaged_counters(both: list[Installed]) -> None:
    """An hour with thousands of counters, a damaged one, and many hours are counted as in one partition."""

    async def counted(store: wiring.Store) -> tuple[Any, ...]:
        hours = await store.stats.workspaces(one.now, 168)
        days = await store.stats.endpoints(one.now, 7)
        minutes = await store.stats.minutes(one.now)
        return (
            {name: (figures.counts, figures.durations) for name, figures in hours.items()},
            days,
            [(place, counts) for place, counts in enumerate(minutes) if counts],
        )

    one = both[0]
    hour, day, minute = (one.now // length for length in (3_600_000, 86_400_000, 60_000))
    for of in both:
        for name in NAMES:
            world = of.of(name)
            for ago in range(0, 168, 5):
                world.call("hset", world.keys.stats("hour", hour - ago), f"{name} failed", ago + 1)
            many = {f"{name}-{n} delivered": n for n in range(300)}
            world.call("hset", world.keys.stats("hour", hour - 2), mapping=many)
            world.call("hset", world.keys.stats("day", day), f"id-{name} failed", 3)
            for ago in (0, 7, 700, 1439):
                world.call("hincrby", world.keys.stats("minute", minute - ago), "failed", 2)
                world.call("hincrby", world.keys.stats("hour", (minute - ago) // 60), f"{name} failed", 2)
        for world in of.worlds:
            world.call("set", world.keys.stats("hour", hour - 3), "damaged")
            world.call("set", world.keys.stats("minute", minute - 3), "damaged")
    first, second = (of.do(counted) for of in both)
    assert first == second
    assert 12 * 300 + 12 == len(first[0])


def test_another_number_of_partitions(many: Installed, servers: list[str]) -> None:
    """A command with another number of partitions than the installation has is refused, also with one, and changes nothing."""
    many.do(workspaces.add, "acme", "zeckta", Wanted("https://a.example/hooks"), None)
    for wrong, urls in ((4, servers), (1, servers[:1])):
        with installed(urls, wrong) as other, pytest.raises(OtherFormat, match="set it to 8"):
            other.do(workspaces.add, "bluefin", "zeckta", Wanted("https://b.example/hooks"), None)
    assert ["acme"] == many.do(lambda store: store.workspaces.names())
