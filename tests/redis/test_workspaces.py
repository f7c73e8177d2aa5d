"""Workspaces in a real Redis."""

import asyncio
import json
from typing import Any
from unittest.mock import Mock

import pytest
from cryptography.fernet import Fernet

from dispatcher import Dispatcher
from dispatcher.errors import AlreadyExists, InvalidInput, NotFound, RedisUnavailable, StillWaiting
from dispatcher.rules.decide import Policy
from dispatcher.rules.outcomes import State
from dispatcher.rules.workspace import Workspace
from dispatcher.store import connection
from dispatcher.store.connection import POOL, connect, connect_async
from dispatcher.store.keys import Keys, endpoint_id
from dispatcher.store.replies import Hint
from dispatcher.store.sealing import SecretBox
from dispatcher.store.workspace_cache import WorkspaceCache
from dispatcher.store.workspaces import Resealed, Workspaces
from dispatcher.worker.claimer import Claimer
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.redis_watch import RedisWatch
from dispatcher.worker.settler import Settler
from dispatcher.worker.slots import Slots
from dispatcher.worker.turn import Turn, TurnParts
from tests.command import command
from tests.messages import change
from tests.world import World, callback

URL = "https://a.example/hooks"


@pytest.fixture
def workspaces(world: World) -> Workspaces:
    """Workspaces with readable secrets."""
    return Workspaces(world.client, world.keys, SecretBox())


def test_add_and_read(world: World, workspaces: Workspaces) -> None:
    """A workspace is read back as it was made, with a secret of its own."""
    made = world.run(workspaces.add("acme", "zeckta", URL, now_ms=5, max_concurrency=7))
    found = world.run(workspaces.require("acme"))
    assert ("acme", "zeckta", URL, made.secrets, 5, 7, None) == (
        found.id,
        found.dialect,
        found.callback_url,
        found.secrets,
        found.created_ms,
        found.max_concurrency,
        found.problem,
    )
    assert made.secrets[0].text not in repr(found)
    assert ["acme"] == world.run(workspaces.names())


@pytest.mark.parametrize(
    ("name", "dialect", "url", "secret", "says"),
    [
        ("a b", "zeckta", URL, None, "1 to 64 letters"),
        ("acme\n", "zeckta", URL, None, "1 to 64 letters"),
        ("acme", "twilio", URL, None, "unknown dialect 'twilio'"),
        ("acme", "zeckta", "http://a.example/", None, "must be https"),
        ("acme", "zeckta", URL, "hush", "starts with whsec_"),
        ("acme", "zeckta", URL, "whsec_aHVzaA==", "24 to 64 bytes"),
    ],
)
def test_refused(
    world: World, workspaces: Workspaces, name: str, dialect: str, url: str, secret: str | None, says: str
) -> None:
    """What cannot be used is refused with a reason that never holds the secret; nothing is made."""
    with pytest.raises(InvalidInput, match=says) as caught:
        world.run(workspaces.add(name, dialect, url, now_ms=1, secret=secret))
    assert "aHVzaA" not in str(caught.value)
    assert [] == world.run(workspaces.names())


def test_added_once(world: World, workspaces: Workspaces) -> None:
    """A workspace is not made over another one."""
    first = world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    with pytest.raises(AlreadyExists):
        world.run(workspaces.add("acme", "sendexa", URL, now_ms=2))
    assert first.secrets == world.run(workspaces.require("acme")).secrets


def test_update(world: World, workspaces: Workspaces) -> None:
    """An update changes what it names and the revision, and keeps the rest."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    before = world.run(workspaces.require("acme"))
    world.run(workspaces.update("acme", now_ms=1, callback_url="https://b.example/"))
    after = world.run(workspaces.require("acme"))
    assert ("https://b.example/", before.secrets, "zeckta") == (
        after.callback_url,
        after.secrets,
        after.dialect,
    )
    assert before.revision != after.revision
    with pytest.raises(NotFound):
        world.run(workspaces.update("nobody", now_ms=1, max_concurrency=2))
    with pytest.raises(InvalidInput):
        world.run(workspaces.update("acme", now_ms=1, max_concurrency=0))


def test_cache(world: World, workspaces: Workspaces) -> None:
    """A cached workspace is read again when its revision is another one; an unknown one is never cached."""
    cache = WorkspaceCache(workspaces)
    assert None is world.run(cache.get("acme"))
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    first = world.run(cache.get("acme"))
    assert first
    world.run(workspaces.update("acme", now_ms=1, max_concurrency=3))
    assert first is world.run(cache.get("acme"))
    revision = world.run(workspaces.require("acme")).revision
    newer = world.run(cache.get("acme", revision))
    assert newer
    assert 3 == newer.max_concurrency


SAME: list[dict[str, Any]] = [
    {},
    {"callback_url": URL},
    {"max_concurrency": 7},
    {"rate_per_second": 2},
    {"ordering": "strict"},
    {"headers": {"X-Key": "hush"}},
    {"headers": {"X-None": ""}},
    {"callback_url": URL, "max_concurrency": 7, "rate_per_second": 2.0, "headers": {"X-Key": "hush"}},
]
OTHER: list[dict[str, Any]] = [
    {"callback_url": URL + "/2"},
    {"callback_url": URL, "max_concurrency": 8},
    {"rate_per_second": 2.5},
    {"ordering": "latest"},
    {"headers": {"X-Key": "hush!"}},
    {"headers": {"X-Key": ""}},
]


@pytest.mark.parametrize("sealed", [False, True])
def test_revision_changes_with_a_change_only(world: World, sealed: bool) -> None:
    """What is there already is not written, sealed or not; anything else is, and the change says what was before it."""
    box = SecretBox([Fernet.generate_key().decode()]) if sealed else SecretBox()
    there = Workspaces(world.client, world.keys, box)
    made = world.run(
        there.add(
            "acme", "zeckta", URL, now_ms=1, max_concurrency=7, rate_per_second=2.0, ordering="strict",
            headers={"X-Key": "hush"},
        )
    )  # fmt: skip
    raw = world.call("hgetall", world.keys.workspace("acme"))
    for given in SAME:
        same = world.run(there.update("acme", now_ms=1, **given))
        assert (made, made, raw) == (same, same.before, world.call("hgetall", world.keys.workspace("acme")))
    assert made.revision == world.run(there.replace_callback_url("acme", URL)).revision
    for given in OTHER:
        before = world.run(there.require("acme"))
        after = world.run(there.update("acme", now_ms=1, **given))
        assert before == after.before
        assert before.revision != after.revision


class Held(Workspaces):
    """Workspaces whose reads are held up on their way back, until the test lets them go; it counts them."""

    reads = 0

    def hold(self) -> None:
        self.go = asyncio.Event()

    async def get(self, workspace: str) -> Workspace | None:
        """What was there when it was asked for."""
        self.reads += 1
        found = await super().get(workspace)
        await self.go.wait()
        return found


def held(world: World) -> tuple[Held, WorkspaceCache]:
    found = Held(world.client, world.keys, SecretBox(), allow_http=True)
    found.hold()
    return found, WorkspaceCache(found)


async def settled(reads: Held, count: int) -> None:
    """So many reads have begun."""
    async with asyncio.timeout(5):
        while reads.reads < count:
            await asyncio.sleep(0)


def test_one_read_for_all_who_wait(world: World, workspaces: Workspaces) -> None:
    """A thousand callbacks of a workspace that changed read it once; each gets what is there now, those of the change before it too."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    cache = WorkspaceCache(workspaces)
    first = world.run(cache.get("acme"))
    older = world.run(workspaces.update("acme", now_ms=1, max_concurrency=3)).revision
    changed = world.run(workspaces.update("acme", now_ms=1, max_concurrency=4))
    before = world.call("info", "commandstats")["cmdstat_hgetall"]["calls"]

    async def ask() -> list[Workspace | None]:
        found = await asyncio.gather(*(cache.get("acme", older) for _ in range(1000)))
        return [*found, await cache.get("acme", older), await cache.get("acme", changed.revision)]

    assert [changed] * 1002 == world.run(ask())
    assert 1 == world.call("info", "commandstats")["cmdstat_hgetall"]["calls"] - before
    assert first != changed


def test_cache_is_bounded(world: World, workspaces: Workspaces) -> None:
    """Beyond its bound the cache forgets the workspace that it read first, and reads it again when asked."""
    names = ["a", "b", "c"]
    for name in names:
        world.run(workspaces.add(name, "zeckta", URL, now_ms=1))
    cache = WorkspaceCache(workspaces, most=2)

    def reads(name: str) -> int:
        before = world.call("info", "commandstats")["cmdstat_hgetall"]["calls"]
        found = world.run(cache.get(name))
        assert found
        assert name == found.id
        return int(world.call("info", "commandstats")["cmdstat_hgetall"]["calls"] - before)

    assert [1, 1, 1] == [reads(name) for name in names]
    assert [0, 0, 1] == [reads(name) for name in ("b", "c", "a")]


def test_read_begun_before_the_change_is_not_shared(world: World, workspaces: Workspaces) -> None:
    """Who knows of a newer revision does not get what was read before it, and neither does who asks after it."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    reads, cache = held(world)

    async def work() -> list[int | None]:
        old = asyncio.create_task(cache.get("acme"))
        await settled(reads, 1)
        changed = await workspaces.update("acme", now_ms=1, max_concurrency=3)
        newer = asyncio.create_task(cache.get("acme", changed.revision))
        await settled(reads, 2)
        reads.go.set()
        found = [await newer, await old, await cache.get("acme", changed.revision)]
        return [one.max_concurrency if one else None for one in found]

    assert [3, None, 3] == world.run(work())
    assert 2 == reads.reads


def test_read_begun_before_it_was_forgotten_is_not_kept(world: World, workspaces: Workspaces) -> None:
    """What accept refused is not brought back by a read that was under way."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    reads, cache = held(world)

    async def work() -> int | None:
        old = asyncio.create_task(cache.get("acme"))
        await settled(reads, 1)
        await workspaces.update("acme", now_ms=1, max_concurrency=3)
        cache.forget("acme")
        reads.go.set()
        await old
        found = await cache.get("acme")
        return found.max_concurrency if found else None

    assert 3 == world.run(work())


def test_one_who_waits_is_cancelled(world: World, workspaces: Workspaces) -> None:
    """The others get what they wait for."""
    made = world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    reads, cache = held(world)

    async def work() -> Workspace | None:
        first, second = (asyncio.create_task(cache.get("acme", made.revision)) for _ in range(2))
        await settled(reads, 1)
        first.cancel()
        await asyncio.wait([first])
        reads.go.set()
        return await second

    assert (made, 1) == (world.run(work()), reads.reads)


def test_failed_read_is_not_kept(redis_url: str) -> None:
    """All who wait are told that Redis is away; who asks next asks it again, and what was known stays known."""

    async def work() -> tuple[list[type[BaseException]], Workspace | None, Workspace | None]:
        client = connect_async(redis_url)
        there = Workspaces(client, Keys(), SecretBox())
        made = await there.add("acme", "zeckta", URL, now_ms=1)
        cache = WorkspaceCache(there)
        await cache.get("acme")
        in_the_way = connect_async(redis_url)
        await in_the_way.config_set("maxclients", 1)
        await client.connection_pool.disconnect()
        asked = (cache.get("acme", "newer") for _ in range(5))
        failed = await asyncio.gather(*asked, return_exceptions=True)
        known = await cache.get("acme")
        await in_the_way.config_set("maxclients", 1000)
        again = await cache.get("acme", "newer")
        await client.aclose()
        await in_the_way.aclose()
        assert made == again
        return [type(one) for one in failed], known, again

    failed, known, again = asyncio.run(work())
    assert [RedisUnavailable] * 5 == failed
    assert known == again


def test_many_at_once_wait_for_a_connection(world: World, workspaces: Workspaces) -> None:
    """More reads at once than a client has connections end well, each of another workspace."""
    names = [f"w{number}" for number in range(4 * POOL["max_connections"])]
    for name in names:
        world.run(workspaces.add(name, "zeckta", URL, now_ms=1))
    cache = WorkspaceCache(workspaces)

    async def ask() -> list[Workspace | None]:
        return await asyncio.gather(*(cache.get(name) for name in names))

    assert names == [one.id for one in world.run(ask()) if one]


def test_no_connection_in_time_is_redis_unavailable(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a connection for too long is told so, by the asyncio client and by the other one."""
    monkeypatch.setitem(connection.POOL, "max_connections", 1)
    monkeypatch.setitem(connection.POOL, "timeout", 0.01)

    async def work() -> None:
        client = connect_async(redis_url)
        async with client.pipeline() as pipe:
            await pipe.watch("x")  # has the connection
            with pytest.raises(RedisUnavailable):
                await Workspaces(client, Keys(), SecretBox()).get("acme")
        await client.aclose()

    asyncio.run(work())
    with connect(redis_url) as client, client.pipeline() as pipe:
        pipe.watch("x")
        with pytest.raises(RedisUnavailable):
            Dispatcher(client).enqueue(change(at_ms=0))


DAMAGED: dict[str, tuple[tuple[str | bytes, ...], str]] = {
    "a number that is none": (("hset", "max_concurrency", "many"), "invalid literal for int"),
    "a field that is gone": (("hdel", "dialect"), "it has no dialect"),
    "bytes that are no text": (("hset", "callback_url", b"\xff"), "can't decode"),
    "another type": (("set", "x"), "its key is of another type"),
}


@pytest.mark.parametrize(("damage", "why"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_hides_no_other(
    world: World,
    workspaces: Workspaces,
    redis_url: str,
    damage: tuple[Any, ...],
    why: str,
) -> None:
    """All are listed, and the damaged one says what is wrong; it cannot be changed, but removed."""
    for name in "a", "b", "c":
        world.run(workspaces.add(name, "zeckta", URL, now_ms=1))
    name, *args = damage
    world.call(name, world.keys.workspace("b"), *args)
    found = {one.id: one.problem for one in world.run(workspaces.all())}
    assert (found["a"], found["c"], why in str(found["b"])) == (None, None, True)
    assert why in str(world.run(workspaces.require("b")).problem)
    with pytest.raises(
        InvalidInput, match=r"workspace 'b': its record in Redis is damaged: .*; nothing was changed"
    ):
        world.run(workspaces.update("b", now_ms=1, ordering="strict"))
    said = command(redis_url, "workspace", "list")
    assert [line.split()[:2] for line in said.stdout.splitlines() if line.split()[0] in "abc"] == [
        ["a", "zeckta"],
        ["b", "damaged"],
        ["c", "zeckta"],
    ]
    assert "workspace b: its record in Redis is damaged" in said.stderr
    listed = json.loads(command(redis_url, "workspace", "list", "--json").stdout)
    assert [one["problem"] is None for one in listed] == [True, False, True]
    refused = command(redis_url, "workspace", "update", "b", "--ordering", "strict")
    assert (refused.returncode, "nothing was changed" in refused.stderr) == (2, True)
    assert command(redis_url, "workspace", "remove", "b").returncode == 0
    assert world.run(workspaces.names()) == ["a", "c"]


def test_callback_whose_workspace_cannot_be_read(world: World) -> None:
    """It goes back unsent, without an attempt, and it is Redis that was away: no fault of the callback's."""
    world.accept(callback("e1"))
    metrics = Metrics()

    async def work() -> None:
        away = connect_async("redis://127.0.0.1:1")
        parts = TurnParts(
            ledger=world.ledger,
            claimer=Claimer(world.ledger),
            settler=Settler(world.ledger),
            sender=Mock(),  # nothing is sent
            workspaces=WorkspaceCache(Workspaces(away, world.keys, SecretBox())),
            watch=RedisWatch(metrics),
            policy=Policy(),
            slots=Slots(10),
            alerts=Mock(),
            tail=Mock(),
            metrics=metrics,
        )
        await Turn(Hint(endpoint_id("acme https://a.example:443"), "acme"), parts).run()
        await away.aclose()

    world.run(work())
    assert (State.PENDING, ()) == (world.event("e1").state, tuple(world.event("e1").attempts))
    assert world.now + 1000 == world.event("e1").next_attempt_ms
    assert ({}, True) == (dict(metrics.attempts), metrics.redis_errors > 0)
    world.now += 1000
    world.deliver_all()


def test_remove(world: World, workspaces: Workspaces) -> None:
    """A workspace with waiting callbacks is removed only by force, and they are due at once then."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    world.accept(callback("e1"))
    world.run(world.ledger.stop(endpoint_id("acme https://a.example:443")))
    with pytest.raises(StillWaiting, match="1 callback of"):
        world.run(workspaces.remove("acme", world.ledger))
    assert 1 == world.run(workspaces.remove("acme", world.ledger, force=True))
    assert [] == world.run(workspaces.names())
    with pytest.raises(NotFound):
        world.run(workspaces.remove("acme", world.ledger))
    assert world.now == world.call("zscore", world.keys.lane(endpoint_id("acme https://a.example:443")), "e1")
    world.deliver_all()


def test_stopped_endpoints_go_with_their_workspace(world: World, workspaces: Workspaces) -> None:
    """One for which nothing waits is no longer stopped, and is forgotten like any other."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    world.accept(callback("e1"))
    world.deliver_all()
    endpoint = endpoint_id("acme https://a.example:443")
    world.run(world.ledger.stop(endpoint))
    world.run(workspaces.remove("acme", world.ledger))
    assert world.call("pttl", world.keys.endpoint(endpoint)) > 0
    assert world.now == world.call("zscore", world.keys.endpoints, endpoint)


def test_encrypted(world: World) -> None:
    """With Fernet keys no secret is readable in Redis, and without them they cannot be opened."""
    sealed = Workspaces(world.client, world.keys, SecretBox([Fernet.generate_key().decode()]))
    made = world.run(sealed.add("acme", "zeckta", URL, now_ms=1))
    assert made.secrets[0].text.encode() not in world.call("hget", world.keys.workspace("acme"), "secrets")
    assert made.secrets == world.run(sealed.require("acme")).secrets
    blind = world.run(Workspaces(world.client, world.keys, SecretBox()).require("acme"))
    assert (True, ()) == (bool(blind.problem), blind.secrets)


def test_rotated_secret(world: World, workspaces: Workspaces) -> None:
    """The old secret signs beside the new one for the grace time, first in order, and not after it."""
    first = world.run(workspaces.add("acme", "zeckta", URL, now_ms=1000)).secrets[0]
    rotated = world.run(workspaces.rotate_secret("acme", now_ms=2000, grace_ms=500))
    second = rotated.secrets[-1]
    assert [first.text, second.text] == [secret.text for secret in rotated.live_secrets(2499)]
    assert [second.text] == [secret.text for secret in rotated.live_secrets(2500)]
    assert None is second.expires_ms


def test_three_live_secrets(world: World, workspaces: Workspaces) -> None:
    """A fourth live secret is refused; a grace time of 0 ends the others at once."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    for _ in range(2):
        world.run(workspaces.rotate_secret("acme", now_ms=2, grace_ms=1000))
    with pytest.raises(InvalidInput, match="3 secrets are live"):
        world.run(workspaces.rotate_secret("acme", now_ms=3, grace_ms=1000))
    assert 3 == len(world.run(workspaces.require("acme")).live_secrets(3))
    assert 1 == len(world.run(workspaces.rotate_secret("acme", now_ms=3, grace_ms=0)).secrets)


def test_grace_is_not_extended(world: World, workspaces: Workspaces) -> None:
    """A secret that is ending already ends no later by another rotation."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1))
    world.run(workspaces.rotate_secret("acme", now_ms=1, grace_ms=100))
    rotated = world.run(workspaces.rotate_secret("acme", now_ms=50, grace_ms=1000))
    assert [101, 1050, None] == [secret.expires_ms for secret in rotated.secrets]


def test_headers(world: World, workspaces: Workspaces) -> None:
    """Headers are set, changed and removed one by one, whatever their case."""
    world.run(workspaces.add("acme", "zeckta", URL, now_ms=1, headers={"X-A": "1", "X-B": "2"}))
    changed = world.run(workspaces.update("acme", now_ms=1, headers={"x-a": "3", "X-B": ""}))
    assert {"x-a": "3"} == changed.headers
    with pytest.raises(InvalidInput, match="dispatcher's own"):
        world.run(workspaces.update("acme", now_ms=1, headers={"Host": "x"}))
    assert {"x-a": "3"} == world.run(workspaces.require("acme")).headers


def test_a_damaged_workspace_keeps_no_other_from_new_encryption(world: World, redis_url: str) -> None:
    """The others are encrypted under the newest key, and the command names the damaged one."""
    keys = Fernet.generate_key().decode()
    plain = Workspaces(world.client, world.keys, SecretBox())
    for name in ("acme", "broken", "calm"):
        world.run(plain.add(name, "zeckta", URL, now_ms=1))
    world.call("hset", world.keys.workspace("broken"), "secrets", "by hand")
    found = command(redis_url, "workspace", "rotate-encryption", SECRET_KEYS=keys)
    assert (1, "the secrets of 2 workspaces are encrypted under the newest key\n") == (
        found.returncode,
        found.stdout,
    )
    assert "error: others are not: broken: " in found.stderr
    for name in ("acme", "calm"):
        assert b"whsec_" not in world.call("hget", world.keys.workspace(name), "secrets")


def test_rotated_encryption(world: World) -> None:
    """All secrets are written anew under the newest key; the old one opens nothing any more."""
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    plain = Workspaces(world.client, world.keys, SecretBox())
    made = world.run(plain.add("acme", "zeckta", URL, now_ms=1, headers={"X-Key": "hush"}))
    for keys in ([old], [new, old]):
        assert Resealed(1) == world.run(
            Workspaces(world.client, world.keys, SecretBox(keys)).rotate_encryption()
        )
    found = world.run(Workspaces(world.client, world.keys, SecretBox([new])).require("acme"))
    assert (made.secrets, {"X-Key": "hush"}, None) == (found.secrets, found.headers, found.problem)
    assert world.run(Workspaces(world.client, world.keys, SecretBox([old])).require("acme")).problem
    assert b"hush" not in b"".join(world.call("hgetall", world.keys.workspace("acme")).values())
