"""Lists of what has ended, from a real Redis and each kind of archive: each once, in one order, from any place on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.errors import ArchiveUnavailable
from dispatcher.rules.outcomes import Failed
from dispatcher.store.archive.archive import After, Archive
from dispatcher.store.archive.archived_callback import Kept
from dispatcher.store.archive.ends import Step, ends
from dispatcher.store.archive.sqlite import SqliteArchive
from dispatcher.store.archive.which import Which
from dispatcher.store.callbacks import Callbacks
from tests.archive.conftest import Run
from tests.archive.test_archiver import Scene


@pytest.fixture
def scene(redis_url: str, run: Run) -> Iterator[Scene]:
    """Callbacks in Redis and the archive (`b*`), in the archive only (`a*`), in Redis only (`r*`); `*f*` failed."""
    found = Scene(redis_url, run)
    found.world.now += 5000
    for number in range(5):
        found.end(f"af{number}", f"bf{number}", outcome=Failed())
        found.end(f"ad{number}", f"bd{number}")
        found.world.now += number % 2
    keep(found, [f"{both}{n}" for both in ("af", "bf", "ad", "bd") for n in range(5)])
    for number in range(5):
        for one in (f"af{number}", f"ad{number}"):
            found.world.call("delete", found.world.keys.event("acme", one))
            found.world.call("zrem", found.world.keys.ended("acme", "failed"), one)  # type: ignore[arg-type]
    found.world.now += 1
    found.end("rf1", "rf2", outcome=Failed())
    found.end("rd1")
    yield found
    run(found.close())


def keep(scene: Scene, ids: list[str]) -> None:
    """Has the archive know what Redis does not give up yet."""
    entries = [scene.world.call("get", scene.world.keys.event("acme", one)) for one in ids]
    some = [Kept("acme", one, of, "acme https://a.example:443") for one, of in zip(ids, entries, strict=True)]
    scene.world.run(scene.archive.put([one.archived() for one in some]))


def steps(
    scene: Scene, which: Which, after: After | None = None, archive: Archive | None = None, **how: object
) -> list[Step]:
    """The list from a place on."""

    async def read() -> list[Step]:
        callbacks = Callbacks(scene.world.client, scene.world.keys)
        found = ends(callbacks, archive or scene.archive, ["acme"], which, after, **how)  # type: ignore[arg-type]
        return [one async for one in found]

    return scene.world.run(read())


def ids(found: list[Step]) -> list[str]:
    """The eventIds of a list."""
    return [one.event_id for _, one in found if one]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (Which("acme"), 22),
        (Which(), 22),
        (Which("acme", ("failed",)), 12),
        (Which("acme", ("delivered",)), 10),
        (Which("acme", error="http_500"), 12),
        (Which("acme", error="timeout"), 0),
        (Which("acme", origin="https://a.example:443", subscription=""), 22),
        (Which("acme", subscription="crm"), 0),
    ],
)
def test_each_once_in_one_order(scene: Scene, which: Which, expected: int) -> None:
    """What both have, and what one of them has, is listed once, latest end first; from each place on comes the rest."""
    found = steps(scene, which)
    assert (expected, expected) == (len(ids(found)), len(set(ids(found))))
    assert sorted(found, key=lambda one: one[0], reverse=True) == found
    for number, (place, _) in enumerate(found, 1):
        assert ids(found[number:]) == ids(steps(scene, which, place))


def test_between_two_times(scene: Scene) -> None:
    """Only what ended between them, the ends included, is listed."""
    every = [one for _, one in steps(scene, Which("acme")) if one and one.ended_ms]
    times = sorted({one.ended_ms for one in every if one.ended_ms})
    which = Which("acme", since_ms=times[1], until_ms=times[2])
    inside = [one.event_id for one in every if times[1] <= (one.ended_ms or 0) <= times[2]]
    assert inside == ids(steps(scene, which))
    assert 0 < len(inside) < len(every)


def test_what_was_replayed(scene: Scene) -> None:
    """What goes on in Redis, or has ended there otherwise, is not listed as the archive has it from before."""
    scene.world.now += 1000
    for one in ("bf1", "bf2"):
        assert "replayed" == scene.world.run(scene.world.ledger.replay("acme", one))
    found = ids(steps(scene, Which("acme", ("failed",))))
    assert (10, False) == (len(found), bool({"bf1", "bf2"} & set(found)))
    while claimed := scene.world.claim(count=500).callbacks:
        for one in claimed:
            scene.world.settle(one.event_id, one.claim, Failed(), error="http_500")
    found = ids(steps(scene, Which("acme", ("failed",))))
    assert (12, {"bf1", "bf2"}) == (len(found), set(found[:2]))


def test_what_leaves_redis_while_the_list_is_read(redis_url: str, run: Run) -> None:
    """It is listed from the archive, to which it went meanwhile."""
    scene = Scene(redis_url, run)
    for first in range(0, 700, 100):
        scene.end(*(f"f{number}" for number in range(first, first + 100)), outcome=Failed())
        scene.world.now += 1
    wanted = [f"f{number}" for number in range(700)]

    async def read() -> list[str]:
        callbacks, found = Callbacks(scene.world.client, scene.world.keys), list[str]()
        async for _, one in ends(callbacks, scene.archive, ["acme"], Which("acme", ("failed",))):
            if one is None:
                continue
            found.append(one.event_id)
            if len(found) == 10:
                await retire()
        return found

    async def retire() -> None:
        stopping = asyncio.Event()
        task = asyncio.create_task(scene.archiver.run(stopping))
        while (await scene.source.backlog())[0]:
            await asyncio.sleep(0.01)
        stopping.set()
        await task

    found = scene.world.run(read())
    assert (700, set(wanted)) == (len(found), set(found))
    run(scene.close())


def test_the_archive_is_away(scene: Scene, tmp_path: Path) -> None:
    """What Redis has is listed, and it is said that the archive is away; or the list fails, if that was asked for."""
    away = SqliteArchive(tmp_path / "not-there" / "archive.db")
    said: list[ArchiveUnavailable] = []
    found = ids(steps(scene, Which("acme"), archive=away, away=said.append))
    assert {f"bf{number}" for number in range(5)} | {"rf1", "rf2"} == set(found)
    assert ["cannot be used" in str(one) for one in said] == [True]
    with pytest.raises(ArchiveUnavailable):
        steps(scene, Which("acme"), archive=away)
    scene.world.run(away.aclose())
