"""A change while one server of a workspace is away: it is made wherever partitions answer, told, and complete once it is repeated."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from dispatcher.errors import PartlyDone
from dispatcher.rules.endpoint_name import EndpointName
from dispatcher.store.check_finding import Verdict
from dispatcher.store.format import FORMAT
from dispatcher.store.keys import endpoint_id
from dispatcher.store.stored_callback import Waiting
from tasks import wiring
from tasks.actions import endpoints, purge, rejected, workspaces
from tasks.actions.check_servers import copies
from tasks.actions.rejected import Choice
from tasks.actions.workspaces import Wanted
from tasks.redis_server import RedisServer
from tests.command import command
from tests.divided import Installed, installed, two_servers
from tests.world import TOKEN, World, callback

P = 4
NAME, ENDPOINT = "acme", "acme https://a.example:443"
URL, NEW = "https://a.example/hooks", "https://new.example/hooks"


class Scene:
    """acme is spread over four partitions; those of its second and fourth part lie on a server that goes."""

    def __init__(self, servers: list[RedisServer], many: Installed) -> None:
        self.many = many
        self.urls = [one.url for one in servers]
        home, away, *_ = self.parts = many.partitioning.all_of(NAME, P)
        self.away = servers[away % 2]
        self.there = [many.worlds[n] for n in self.parts if n % 2 == home % 2]
        """Its home and another part, which go on answering."""

    def do(self, *action: Any, **how: Any) -> Any:
        """What an action on the whole installation does."""
        return self.many.do(*action, **how)

    def run(self, *args: str) -> tuple[int, str, str]:
        """Exit code and output of a command."""
        found = command(" ".join(self.urls), *args, PARTITIONS=str(P), BROKER_URL=self.urls[0])
        return found.returncode, found.stdout, found.stderr

    def has(self, world: World, *fields: str) -> list[str]:
        """Fields of acme's record in a partition."""
        return [found.decode() for found in world.call("hmget", world.keys.workspace(NAME), *fields)]

    def trail(self) -> list[str]:
        """What was changed, as the trail of acme's home says."""
        return [one.what for one in self.do(lambda store: store.audit.latest(100, NAME))]


@pytest.fixture
def scene(server_program: str, tmp_path: Path) -> Iterator[Scene]:
    """Two servers, both there."""
    with (
        two_servers(server_program, tmp_path) as servers,
        installed([one.url for one in servers], P) as many,
    ):
        many.do(workspaces.add, NAME, "zeckta", Wanted(URL, width=P), None)
        yield Scene(servers, many)


def accepted(scene: Scene) -> list[str]:
    """A callback waits in each of acme's partitions; their eventIds, those of the server that goes last."""
    for n in scene.parts:
        world = scene.many.worlds[n]
        world.accept(callback(f"e{n}", endpoint=ENDPOINT, message=f"m{n}", timestamp_ms=world.now))
    away = scene.parts[1] % 2
    return [f"e{n}" for n in sorted(scene.parts, key=lambda n: n % 2 == away)]


def test_a_workspace_is_changed_where_partitions_answer(scene: Scene) -> None:
    """All that answer have the change at once; what is said copies it to the others once they are back."""
    scene.away.kill()
    for words in (["--callback-url", NEW, "--no-check"], ["--max-concurrency", "9"]):
        code, _, told = scene.run("workspace", "update", NAME, *words)
        assert 3 == code, told
    assert [[NEW, "9"]] * 2 == [scene.has(world, "callback_url", "max_concurrency") for world in scene.there]
    named = " and not yet in partitions " + ", ".join(str(n) for n in sorted(scene.parts[1::2]))
    assert named in told.replace(f"{scene.parts[1]}, {scene.parts[3]}", named.rpartition("partitions ")[2])
    again = told.rpartition("`dispatcher ")[2].partition("`")[0]
    scene.away.start()
    assert 0 == scene.run(*again.split())[0]
    for n in scene.parts:
        with redis.Redis.from_url(scene.urls[n % 2]) as client:
            key = scene.many.worlds[n].keys.workspace(NAME)
            assert [NEW.encode(), b"9"] == client.hmget(key, "callback_url", "max_concurrency")


@pytest.mark.parametrize(
    ("made", "secrets"),
    [
        (["workspace", "rotate-secret", NAME], "secrets"),
        (["subscription", "add", NAME, "crm", "--callback-url", URL, "--no-check"], "secrets:crm"),
    ],
)
def test_a_secret_is_shown(scene: Scene, made: list[str], secrets: str) -> None:
    """A secret that signs from now on is shown, and in the trail, although not every partition has it yet."""
    scene.away.kill()
    code, out, told = scene.run(*made, "--json")
    assert 3 == code, told
    assert "is stored, and not yet in partitions" in told
    secret = json.loads(out)["secret"]
    assert secret in scene.has(scene.there[1], secrets)[0]
    scene.away.start()
    assert f"{made[0]}.{made[1].replace('-', '_')}" in scene.trail()


@pytest.mark.parametrize("of", [["workspace", "update", NAME], ["subscription", "update", NAME, "default"]])
@pytest.mark.parametrize("moves", [[], ["--move-waiting"]])
def test_a_new_url_is_told(scene: Scene, of: list[str], moves: list[str]) -> None:
    """The change of a URL is told also where what waits for the one before cannot be seen, with what to run for that later."""
    accepted(scene)
    scene.away.kill()
    code, out, told = scene.run(*of, "--callback-url", NEW, "--no-check", *moves)
    named = "workspace acme" if of[0] == "workspace" else "subscription default of workspace acme"
    assert (3, f"{named} is changed\n") == (code, out), told
    assert ("not all that waits" if moves else "2 callbacks wait for the server of the previous URL") in told
    again = told.partition("for that very URL: dispatcher ")[2].splitlines()[0]
    scene.away.start()
    assert 0 == scene.run(*again.split(), "--no-check")[0]
    new = endpoint_id("acme https://new.example:443")
    assert [1, 1] == [world.call("zcard", world.keys.lane(new)) for world in scene.there]


def test_a_list_of_names_that_was_written_over(scene: Scene) -> None:
    """Where the list of workspaces of another partition is of another type, its copy of the record stays as it was, and the key is named."""
    part = scene.there[1]
    part.call("delete", part.keys.workspaces)
    part.call("set", part.keys.workspaces, "by hand")
    code, _, told = scene.run("workspace", "update", NAME, "--max-concurrency", "9")
    assert (1, True) == (code, f"the key {part.keys.workspaces} was written over" in told), told
    assert part.call("hget", part.keys.workspace(NAME), "max_concurrency") is None


def test_a_workspace_is_made(scene: Scene) -> None:
    """The secret of one that is made while a server is away is shown too."""
    scene.away.kill()
    code, out, told = scene.run("workspace", "add", "new", "--dialect", "zeckta", "--width", str(P), "--json")
    home = scene.many.partitioning.home("new")
    if scene.many.worlds[home] in scene.there:
        assert 3 == code, told
        assert json.loads(out)["secret"].startswith("whsec_")
    else:
        assert (3, "") == (code, out)


def test_waiting_callbacks_end_where_partitions_answer(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch is cancelled where partitions answer; what was done is in the trail, and the command fails at its end."""
    monkeypatch.setattr(purge, "BATCH", 1)
    ids = accepted(scene)
    waiting = scene.do(purge_list)

    async def cancel(store: wiring.Store) -> None:
        await store.endpoints.get(EndpointName.parse(ENDPOINT))
        scene.away.kill()
        await purge.cancel(store, NAME, None, waiting, progress)

    with pytest.raises(PartlyDone, match="It is done where partitions answer, and not in partitions"):
        scene.do(cancel)
    assert all(world.event(id_).ended for world, id_ in zip(scene.there, there(scene, ids), strict=True))
    scene.away.start()
    [entry] = scene.do(lambda store: store.audit.latest(1, NAME))
    assert ("callbacks.cancel", 2) == (entry.what, entry.after["cancelled"])


def there(scene: Scene, ids: list[str]) -> list[str]:
    """Those of the ids that the partitions which answer have, in the order of these."""
    return [id_ for world in scene.there for id_ in ids if id_ == f"e{world.keys.partition}"]


def progress(batches: Any) -> Any:
    """Shows nothing."""
    return batches


async def purge_list(store: wiring.Store) -> list[Any]:
    """What waits for acme."""
    return [one async for one in store.callbacks.pending(NAME)]


def test_an_endpoint_stops_where_partitions_answer(scene: Scene) -> None:
    """It is stopped in all that answer, and that is in the trail; repeated, it is stopped in all."""
    accepted(scene)
    origin = ENDPOINT.partition(" ")[2]
    known = scene.do(lambda store: store.endpoints.get(EndpointName.parse(ENDPOINT)))
    scene.away.kill()
    code, _, told = scene.run("endpoint", "stop", NAME, origin)
    assert (3, True) == (code, "and not in partitions" in told), told
    for world in scene.there:
        assert world.call("hexists", world.keys.endpoint(endpoint_id(ENDPOINT)), "stopped")
    scene.away.start()
    assert "endpoint.stop" in scene.trail()
    scene.do(endpoints.stop, known, resume=False)
    for n in scene.parts:
        with redis.Redis.from_url(scene.urls[n % 2]) as client:
            key = scene.many.worlds[n].keys.endpoint(endpoint_id(ENDPOINT))
            assert client.hexists(key, "stopped")


def test_other_changes_are_made_where_partitions_answer(scene: Scene) -> None:
    """So it is with what is forgotten, erased, moved, retried and expedited; each says that it is not complete."""
    ids = accepted(scene)
    key = endpoint_id(ENDPOINT)
    scene.away.kill()

    async def each(store: wiring.Store) -> dict[str, Any]:
        store.workspaces._partitions._holders[key].update(scene.parts)  # type: ignore[attr-defined]  # as read before
        waiting = [Waiting(id_) for id_ in ids]
        results = {}
        for what, change in (
            ("retry", lambda: store.ledger.retry(key)),
            ("expedite", lambda: store.ledger.expedite(key)),
            ("cancel", lambda: store.ledger.cancel(key, waiting)),
            ("forget", lambda: store.ledger.forget(NAME, ids[:1])),
            ("erase", lambda: store.ledger.erase(NAME, ids)),
            ("move", lambda: store.ledger.move(NAME, URL, NEW, "acme https://new.example:443", waiting)),
        ):
            with pytest.raises(PartlyDone) as raised:
                await change()
            results[what] = raised.value.result
        return results

    results = scene.do(each)
    assert results.pop("retry").made_due >= 0
    assert {"expedite": None, "cancel": 2, "forget": 1, "erase": (1, 0), "move": 0} == results


def test_rejected_entries(scene: Scene) -> None:
    """Entries are put back, and removed, where partitions answer."""
    for n in scene.parts:
        world = scene.many.worlds[n]
        for _ in range(2):
            [entry] = world.enqueued(1)
            world.run(world.ledger.reject(TOKEN, [(entry, "invalid", "why", NAME, "e")]))
    ids = [one.id for one in scene.do(lambda store: store.rejected.newest(100, lambda _: True))]
    assert 8 == len(ids)
    ids.sort(
        key=lambda id_: int(id_.partition(":")[0]) % 2 != scene.parts[1] % 2
    )  # those of the server that goes first
    scene.away.kill()
    with pytest.raises(PartlyDone):
        scene.do(rejected.requeue, Choice(None, None, None), ids[::2])
    with pytest.raises(PartlyDone):
        scene.do(rejected.remove, Choice(None, None, None), ids[1::2])
    for world in scene.there:
        assert 0 == world.call("xlen", world.keys.rejected)
        assert 1 == world.call("xlen", world.keys.events)


def test_check_names_what_is_not_copied(scene: Scene) -> None:
    """Parts that have a workspace's record of before, or none, are named with what copies it; a narrow one is not."""
    scene.do(workspaces.add, "narrow", "zeckta", Wanted(URL), None)
    assert [] == scene.do(copies)
    _, older, none, _ = scene.parts
    for n, change in ((older, ("hset", "revision", "before")), (none, ("delete",))):
        world = scene.many.worlds[n]
        world.call(change[0], world.keys.workspace(NAME), *change[1:])
    [found] = scene.do(copies)
    assert (Verdict.BAD, "dispatcher workspace update acme --width 4") == (found.verdict, found.advice)
    assert f"acme (partition {older}, {none})" in found.detail
    assert 0 == scene.run(*found.advice.split()[1:])[0]
    assert [] == scene.do(copies)


def test_an_api_key_is_revoked_while_the_previous_redis_is_away(server_program: str, tmp_path: Path) -> None:
    """It is refused at once, also one that was copied; repeated once that Redis is back, the key is gone there too."""
    with two_servers(server_program, tmp_path) as (previous, new):
        with installed([previous.url], 1) as before:
            before.do(workspaces.add, NAME, "zeckta", Wanted(URL), None)
        copied = command(previous.url, "workspace", "api-key", "add", NAME, "--name", "k", "--json")
        key = json.loads(copied.stdout)["apiKey"]
        grown = {"PARTITIONS": str(P), "PREVIOUS_REDIS_URL": previous.url, "BROKER_URL": new.url}
        assert 0 == command(new.url, "grow", **grown).returncode

        def revoked() -> tuple[int, str]:
            found = command(new.url, "workspace", "api-key", "revoke", NAME, key, **grown)
            return found.returncode, found.stderr

        with redis.Redis.from_url(new.url) as client, redis.Redis.from_url(previous.url) as old:
            previous.kill()
            code, told = revoked()
            assert (3, True) == (code, "and not in partition 4: repeat it" in told), told
            assert "api_key.revoke" in told, "it is in the trail"
            assert not [*client.scan_iter("*api-key*")]
            code, told = revoked()
            assert (3, True) == (code, "the previous Redis" in told), told
            previous.start()
            old.set("dispatcher:format", f"{FORMAT} grown into {P}")  # it keeps nothing here
            old.sadd("dispatcher:api-keys:acme", key.partition(".")[0])
            old.hset(f"dispatcher:api-key:{key.partition('.')[0]}", "workspace", NAME)
            assert 0 == revoked()[0]
            assert not [*old.scan_iter("*api-key*")]
            assert 1 == revoked()[0], "there is no such key"


def test_secrets_are_encrypted_anew_where_homes_answer(scene: Scene) -> None:
    """A workspace whose home is away keeps no other from it, and what was done is in the trail; repeated, it is complete."""
    here = scene.parts[0] % 2
    names = [f"w{n}" for n in range(40)]
    away = next(name for name in names if scene.many.partitioning.home(name) % 2 != here)
    last = next(name for name in reversed(names) if scene.many.partitioning.home(name) % 2 == here)
    for name in (away, last):
        scene.do(workspaces.add, name, "zeckta", Wanted(URL, width=P), None)
    keys = "ooZrYtpdh6jtHN0tmidHPUvWvrSK3jMO8rL52j7wJ78="
    scene.away.kill()
    found = command(
        " ".join(scene.urls),
        "workspace",
        "rotate-encryption",
        PARTITIONS=str(P),
        BROKER_URL=scene.urls[0],
        SECRET_KEYS=keys,
    )
    assert (3, True) == (found.returncode, "and not in partition" in found.stderr), found
    world = scene.many.of(last)
    assert b"whsec_" not in world.call("hget", world.keys.workspace(last), "secrets")
    assert "workspace.rotate_encryption" in found.stderr
