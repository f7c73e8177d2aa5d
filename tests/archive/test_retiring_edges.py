"""What could make a retired callback happen again, be lost or stick: settings and clocks that change, keys and runs that break."""

import asyncio
from functools import partial
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from dispatcher.errors import RedisUnavailable
from dispatcher.rules.outcomes import Failed
from dispatcher.store.archive.archived_callback import Kept
from dispatcher.store.archive.history import CallbacksAndArchive
from dispatcher.store.archive.sqlite import SqliteArchive
from dispatcher.store.archive.which import Which
from dispatcher.store.arguments import WITH_ARCHIVE, LedgerOptions
from dispatcher.worker import put_off, retired
from tests.archive import test_repeated
from tests.archive.conftest import Run
from tests.archive.retiring_scene import WEEK_MS, Scene
from tests.archive.test_repeated import KEYS, Installed, line
from tests.world import TOKEN, World, callback


def test_previous_redis(scene: Scene) -> None:
    """After `grow`, the previous Redis's format reads `5 grown into 2`: its callbacks are to be retired all the same."""
    scene.call("set", scene.keys.format, f"{WITH_ARCHIVE} grown into 2")
    scene.end(callback("e1"))
    assert 1 == scene.retire("e1")


def test_previous_redis_led_without_archive(scene: Scene) -> None:
    """A worker without the setting must not lead the previous Redis."""
    scene.call("set", scene.keys.format, f"{WITH_ARCHIVE} grown into 2")
    plain = World(scene.client, scene.wire, runner=scene._runner)
    scene.call("delete", scene.keys.intake)
    assert plain.lead("plain") is None


def test_hash_of_wrong_type(scene: Scene) -> None:
    """`mend` sets aside what stops all acceptance."""
    scene.call("set", scene.keys.fingerprints, "x")
    [entry] = scene.enqueued(1)
    scene.run(scene.ledger.mend(["x"]))
    assert ["accepted"] == scene.accept(callback("e1"), entries=[entry])[1]


def test_set_of_wrong_type(scene: Scene) -> None:
    """The same of one set of fingerprints."""
    scene.end(callback("e1"))
    scene.retire("e1")
    [key] = scene.buckets()
    scene.call("delete", key)
    scene.call("set", key, "x")
    [entry] = scene.enqueued(1)
    scene.run(scene.ledger.mend(["x"]))
    assert ["broken"] != scene.accept(callback("e1"), entries=[entry])[1]


def test_retention_raised(scene: Scene) -> None:
    """What is retired after the retention was raised is known for the new one."""
    day = WEEK_MS // 7
    short = Scene(scene.client, scene.wire, runner=scene._runner, archives=True, retention_ms=day)
    short.now = scene.now
    short.end(callback("e1"))
    short.retire("e1")
    scene.now += day
    scene.end(callback("e2", message="b"))
    assert 1 == scene.retire("e2")
    scene.now += day
    assert ["retired"] == scene.accept(callback("e2", message="b"))[1]


def test_purged(scene: Scene) -> None:
    """`purge ended` removes the body of a delivered callback too, retired or not."""
    scene.end(callback("e1"))
    scene.retire("e1")
    scene.run(scene.ledger.forget("acme", ["e1"]))
    assert not scene.call("exists", scene.keys.body("acme", "e1"))


def test_ended_and_begun_again(scene: Scene) -> None:
    """`archive end --at-once`, and later an archive again: the first table's number is used again, with sets of before."""
    scene.now = int(scene.call("time")[0]) * 1000
    scene.call("delete", scene.keys.intake)
    scene.lead()
    scene.made_up(1)
    scene.run(scene.installation.end_archive())
    scene.call("set", scene.keys.format, WITH_ARCHIVE)
    scene.now += WEEK_MS  # the table of before is kept for a quarter of a week more
    scene.call("delete", scene.keys.intake)
    scene.lead()
    scene.made_up(1)
    assert ["retired"] == scene.accept(callback("x0"))[1]


def kept(id_: str, digest: str, ended: int, message: str) -> Kept:
    return Kept(
        "acme", id_, f"{digest} T s 1000 d 1 E {message} 9 {ended}".encode(), "acme https://a.example:443"
    )


def test_an_event_id_used_again(run: Run) -> None:
    """After its retention an eventId is new; the archive is to say what it was last, and to keep that."""
    run(run.archive.put([kept("e1", "aaaa", 5, "m1").archived()]))
    run(run.archive.put([kept("e1", "bbbb", 1_000_000, "m2").archived()]))
    found = run(run.archive.get([("acme", "e1")]))
    assert {("acme", "e1"): "bbbb"} == run(run.archive.digests([("acme", "e1")]))
    assert "m2" in [one.message for one in found]


def test_listed_while_it_is_retired(scene: Scene, tmp_path: Path) -> None:
    """`event list --message` while a callback goes to the archive: it is in one of the two."""

    class Archive(SqliteArchive):
        async def of_message(self, workspace, message):  # type: ignore[no-untyped-def]
            found = await super().of_message(workspace, message)
            entry = await scene.client.get(scene.keys.event("acme", "e1"))
            if entry:
                await self.put([Kept("acme", "e1", entry, "acme https://a.example:443").archived()])
                await scene.ledger.retire(TOKEN, [(("acme", "e1"), entry)], ())
            return found

    scene.end(callback("e1"))
    archive = Archive(tmp_path / "a.db")
    scene.run(archive.migrate())
    found = scene.run(CallbacksAndArchive(scene.callbacks, archive).of_message("acme", "m1"))
    assert ["e1"] == [one.event_id for one in found]
    scene.run(archive.aclose())


def test_a_second_less_than_retention(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With DISPATCHER_ARCHIVE_AFTER_SECONDS a second less than the retention, nothing leaves Redis as a fingerprint."""
    monkeypatch.setattr(test_repeated, "LedgerOptions", partial(LedgerOptions, retention_ms=4000))

    async def scenario() -> None:
        archive = SqliteArchive(tmp_path / "archive.db")
        await archive.migrate()
        reader = Installed(redis_url, archive)
        reader.archiver._after_ms = 3000
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        stopping = asyncio.Event()
        async with reader.running():
            task = asyncio.create_task(reader.archiver.run(stopping))
            for number in range(10):
                await reader.enqueue(line(number))
                await reader.until_empty()
                await reader.delivered()
                await asyncio.sleep(0.2)
            await asyncio.sleep(4)
            stopping.set()
            await task
        found = await reader.client.hgetall(KEYS.fingerprints)
        await reader.close()
        await archive.aclose()
        assert not found

    asyncio.run(scenario())


def test_a_stale_answer(redis_url: str, tmp_path: Path) -> None:
    """A leader that lost the lead and leads again must not use what the archive said before."""

    async def scenario() -> None:
        archive = SqliteArchive(tmp_path / "archive.db")
        await archive.migrate()
        one = Installed(redis_url, archive)
        await one.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        async with one.running():
            await one.enqueue(line(1))
            await one.until_empty()
            await one.delivered()
            await one.until_retired()
        assert 1 == await archive.remove([("acme", "e1")])
        answers = one.intake._acceptor._retired
        assert answers
        answers.said([("acme", "e1")])  # as when its entry is put off
        await asyncio.sleep(0.2)
        one.intake._follow()
        two = Installed(redis_url, archive)
        async with two.running():
            await two.enqueue(line(1))
            await two.until_empty()
            assert ["e1"] == await two.delivered()
            await two.until_retired()
        one.intake._stop.clear()
        async with one.running():
            await one.enqueue(line(1))
            await one.until_empty()
            assert [] == await one.delivered()
        await one.close()
        await two.close()
        await archive.aclose()

    asyncio.run(scenario())


def test_broken_off(scene: Scene) -> None:
    """A run of `retire` that breaks off in its first table has left a fingerprint that is found (here: a right is missing)."""
    scene.end(callback("e1", message="a"))
    scene.end(callback("e2", message="b"), outcome=Failed())
    texts = [(("acme", id_), scene.entry(id_) or b"") for id_ in ("e1", "e2")]
    scene.call("execute_command", "ACL", "SETUSER", "default", "-zrem")
    try:
        with pytest.raises((RedisUnavailable, ResponseError), match="run th"):
            scene.run(scene.ledger.retire(TOKEN, texts, ()))
    finally:
        scene.call("execute_command", "ACL", "SETUSER", "default", "+@all")
    assert scene.entry("e1") is None
    assert ["retired"] == scene.accept(callback("e1", message="a"))[1]


def test_settled_late(scene: Scene) -> None:
    """A worker whose lease ran out tells the outcome of its attempt after the callback was delivered by another and retired."""
    scene.accept(callback("e1"))
    [first] = scene.claim().callbacks
    scene.now += 10**6
    scene.run(scene.ledger.wake([], 0)) if False else None
    found = scene.claim().callbacks
    scene.settle("e1", found[0].claim if found else first.claim)
    assert 1 == scene.retire("e1")
    assert scene.entry("e1") is None
    assert (
        "0"
        == (
            scene.call(
                "hget",
                scene.keys.endpoint(
                    __import__("dispatcher.store.keys").store.keys.endpoint_id("acme https://a.example:443")
                ),
                "waiting",
            )
            or b"0"
        ).decode()
    )


def test_full(scene: Scene) -> None:
    """A full Redis: callbacks are retired, and a repeated event is decided."""
    scene.end(callback("e1"))
    [entry] = scene.enqueued(1)
    scene.call("config_set", "maxmemory", 1)
    try:
        assert 1 == scene.retire("e1")
        assert ["retired"] == scene.accept(callback("e1"), entries=[entry])[1]
        assert ["duplicate"] == scene.accept(callback("e1"), entries=[entry], archived={"e1": "d"})[1]
    finally:
        scene.call("config_set", "maxmemory", 0)


def test_clock_steps_back(scene: Scene) -> None:
    """A clock that steps back some times does not make tables of ever more, nearly empty, sets."""
    scene.made_up(500)
    for number in range(5):
        scene.now -= 1000
        scene.made_up(500, 1000 * (number + 1))
    assert max(buckets for buckets, _ in scene.tables().values()) <= 64


def test_archiver_of_the_previous_redis(redis_url: str, tmp_path: Path) -> None:
    """Notes of the previous Redis leave it, so that later ones come to the archive, too."""

    async def scenario() -> None:
        archive = SqliteArchive(tmp_path / "archive.db")
        await archive.migrate()
        reader = Installed(redis_url, archive)
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        puts: list[int] = []
        put = archive.put

        async def counted(callbacks):  # type: ignore[no-untyped-def]
            puts.append(len(callbacks))
            await put(callbacks)

        archive.put = counted  # type: ignore[method-assign]

        async def allow() -> (
            None
        ):  # as require_known of the previous Redis's keys: its own_format is high enough
            pass

        reader.archiver._allow = allow
        await reader.client.set(KEYS.format, "5 grown into 2")
        stopping = asyncio.Event()
        async with reader.running():
            for first in range(0, 1500, 500):
                await reader.enqueue(*(line(number) for number in range(first, first + 500)))
                await reader.until_empty()
                await reader.delivered()
            task = asyncio.create_task(reader.archiver.run(stopping))
            await asyncio.sleep(5)
            stopping.set()
            await task
        left = await reader.client.xlen(KEYS.to_archive)
        with_archive = len((await archive.ended(Which(), None, 2000)).found)
        await reader.close()
        await archive.aclose()
        assert 1500 == with_archive
        assert not left

    asyncio.run(scenario())


def test_answers_of_later_entries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As many answers as are remembered wait for entries far behind: those in front, which are tried first, are asked for all the same."""
    monkeypatch.setattr(retired, "MOST_REMEMBERED", 4)

    async def scenario() -> None:
        archive = SqliteArchive(tmp_path / "archive.db")
        await archive.migrate()
        answers = retired.RetiredCallbacks(archive)
        answers.said([("acme", f"later{n}") for n in range(4)])
        await asyncio.sleep(0.2)
        for _ in range(5):
            found = answers.said([("acme", "first")])
            await asyncio.sleep(0.2)
        await archive.aclose()
        assert not isinstance(found, retired.Fault)

    asyncio.run(scenario())


def test_a_flow_of_repeated_events(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated events are decided about as fast as they come, though more are on the queue than are remembered (scaled down)."""
    monkeypatch.setattr(retired, "MOST_REMEMBERED", 200)

    async def scenario() -> None:
        archive = SqliteArchive(tmp_path / "archive.db")
        await archive.migrate()
        reader = Installed(redis_url, archive)
        await reader.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)
        async with reader.running():
            await reader.enqueue(*(line(number) for number in range(3000)))
            await reader.until_empty()
            await reader.delivered()
            await reader.until_retired()
            monkeypatch.setattr(put_off, "FIRST_SECONDS", 1.0)
            monkeypatch.setattr(put_off, "MOST_SECONDS", 10.0)
            for first in range(0, 3000, 200):
                await reader.enqueue(*(line(number) for number in range(first, first + 200)))
                await asyncio.sleep(0.5)
            left = await reader.client.xlen(KEYS.events)
        await reader.close()
        await archive.aclose()
        assert left < 500

    asyncio.run(scenario())
