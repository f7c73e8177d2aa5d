"""What has ended goes from a real Redis to each kind of archive: once, as it ended last, and never in the way."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pytest
import redis.asyncio
from structlog.testing import capture_logs

from dispatcher.errors import ArchiveUnavailable, InvalidInput
from dispatcher.rules.outcomes import Delivered, Failed, Outcome
from dispatcher.store import to_archive
from dispatcher.store.archive.archived_callback import ArchivedCallback
from dispatcher.store.archive.sqlite import SqliteArchive
from dispatcher.store.arguments import WITH_ARCHIVE
from dispatcher.store.to_archive import ToArchive
from dispatcher.store.wire import Wire
from dispatcher.worker import archiver
from dispatcher.worker.archiver import Archiver
from dispatcher.worker.message_archiver import Taken
from dispatcher.worker.metrics import Metrics
from tests.archive.conftest import Run
from tests.world import TOKEN, World, callback


class Scene:
    """A ledger that notes what ends, and an archiver."""

    def __init__(self, redis_url: str, run: Run) -> None:
        client = redis.asyncio.Redis.from_url(redis_url)
        wire = self.wire = Wire(client)
        self.world = World(client, wire, runner=run.runner, archives=True)
        self.world.lead()
        self.metrics = Metrics()
        self.source = ToArchive(wire, self.world.keys)
        self.archive = run.archive
        self.leads = True
        self.archiver = Archiver(
            self.source,
            self.world.ledger,
            run.archive,
            self.token,
            self.metrics,
            about={},
            allow=lambda: self.world.installation.raise_format(WITH_ARCHIVE),
            by_archive_alone=self.source.has_fingerprints,
            after_ms=-(10**9),
        )

    async def token(self) -> str | None:
        """Of whoever may retire."""
        return TOKEN if self.leads else None

    async def close(self) -> None:
        """Closes the connections to Redis."""
        await self.wire.close()
        await self.world.client.aclose()

    def end(self, *ids: str, outcome: Outcome | None = None, size: int = 20) -> None:
        """Has callbacks accepted and ended: delivered, unless there is an outcome."""
        error = None if outcome is None else "http_500"
        self.world.accept(*(callback(one, message=f"of-{one}", size=size) for one in ids))
        while claimed := self.world.claim(count=500).callbacks:
            for one in claimed:
                self.world.settle(one.event_id, one.claim, outcome or Delivered(), error=error)

    def go(self, done: Callable[[], bool] | None = None) -> None:
        """Runs the archiver until nothing is noted, or `done` says so."""

        async def until() -> None:
            stopping = asyncio.Event()
            task = asyncio.create_task(self.archiver.run(stopping))
            while not (done() if done else (await self.source.backlog())[0] == 0):
                await asyncio.sleep(0.01)
            stopping.set()
            await task

        self.world.run(asyncio.wait_for(until(), 30))

    def got(self, *ids: str) -> dict[str, ArchivedCallback]:
        """What the archive has of callbacks."""
        found = self.world.run(self.archive.get([("acme", one) for one in ids]))
        assert len({one.id for one in found}) == len(found)
        return {one.id: one for one in found}


@pytest.fixture
def scene(redis_url: str, run: Run) -> Iterator[Scene]:
    """An empty Redis and an empty archive."""
    found = Scene(redis_url, run)
    yield found
    run(found.close())


def test_everything_that_ended(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several batches, as Redis has it; bodies of those that may be replayed come with them. Delivered ones have none."""
    monkeypatch.setattr(archiver, "BATCH", 7)
    ids = [f"e{n}" for n in range(30)]
    scene.end(*ids)
    scene.end("f1", "f2", outcome=Failed())
    kept = {one: scene.world.call("get", scene.world.keys.event("acme", one)) for one in [*ids, "f1", "f2"]}
    body = scene.world.call("get", scene.world.keys.body("acme", "f1"))
    assert 32 == scene.world.run(scene.source.backlog())[0]
    scene.go()
    got = scene.got(*ids, "f1", "f2")
    assert kept == {id_: one.entry() for id_, one in got.items()}
    assert {"acme https://a.example:443"} == {one.endpoint_name for one in got.values()}
    assert {"f1", "f2"} == {id_ for id_, one in got.items() if one.body}
    assert got["f1"].body == body
    assert (32, 0) == (scene.metrics.archived, scene.metrics.archive_errors)


def test_nobody_pays_without_an_archive(scene: Scene, run: Run) -> None:
    """Without an archive nothing is noted."""
    plain = World(scene.world.client, scene.wire, runner=run.runner)
    plain.lead()
    plain.accept(callback("e1"))
    [one] = plain.claim().callbacks
    plain.settle("e1", one.claim, Delivered())
    assert (0, None) == plain.run(scene.source.backlog())


def test_told_again(scene: Scene) -> None:
    """A run that broke off before the ledger had retired them is repeated, and changes nothing."""
    scene.end("e1", "e2")
    noted = scene.world.run(scene.source.batch(scene.world.now, 10))
    scene.world.run(scene.archive.migrate())
    scene.world.run(scene.archive.put([one.archived() for one in noted.kept]))
    scene.end("e3")
    scene.go()
    assert {"e1", "e2", "e3"} == scene.got("e1", "e2", "e3").keys()


def test_replayed_and_ended_again(scene: Scene) -> None:
    """It is there once, as it ended last; while it goes on again its note says nothing."""
    scene.end("e1", outcome=Failed())
    scene.go()
    before = scene.got("e1")["e1"]
    scene.world.now += 90_000_000
    scene.world.lead()
    scene.world.run(scene.world.ledger.restore(before))
    assert "replayed" == scene.world.run(scene.world.ledger.replay("acme", "e1"))
    scene.world.call("xadd", scene.world.keys.to_archive, {"of": "acme e1"})
    scene.go()
    assert before == scene.got("e1")["e1"]
    [one] = scene.world.claim().callbacks
    scene.world.settle("e1", one.claim, Delivered())
    scene.go()
    after = scene.got("e1")["e1"]
    assert ("failed", "delivered", 2) == (before.state, after.state, after.attempts)


def test_what_is_restored_is_forgotten_again(scene: Scene) -> None:
    """What a replay from the archive writes lives as long as any that has ended, also if it is refused then; no list gets shorter."""
    scene.end("e1", outcome=Failed())
    scene.go()
    one = scene.got("e1")["e1"]
    keys = scene.world.keys
    message = keys.message("acme", one.message)
    scene.world.call("set", message, "e0", None, 9 * 604_800_000)
    scene.world.call("delete", keys.endpoint(one.endpoint))
    scene.world.run(scene.world.ledger.restore(one))
    written = [keys.event("acme", "e1"), keys.body("acme", "e1"), keys.endpoint(one.endpoint)]
    assert all(0 < scene.world.call("pttl", key) <= 604_800_000 for key in written)
    assert b"e0 e1" == scene.world.call("get", message)
    assert scene.world.call("pttl", message) > 8 * 604_800_000
    scene.world.call("hset", keys.endpoint(one.endpoint), "stopped", 5)  # an operator's stop stays
    scene.world.call("persist", keys.endpoint(one.endpoint))
    scene.world.call("delete", keys.event("acme", "e1"))
    scene.world.run(scene.world.ledger.restore(one))
    assert -1 == scene.world.call("pttl", keys.endpoint(one.endpoint))


def test_large_bodies(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is cut where its bodies become too many bytes; all come in the end."""
    monkeypatch.setattr(to_archive, "MOST_BYTES", 100_000)
    monkeypatch.setattr(to_archive, "BODIES_AT_ONCE", 2)
    ids = [f"e{n}" for n in range(20)]
    scene.end(*ids, outcome=Failed(), size=30_000)
    noted = scene.world.run(scene.source.batch(scene.world.now + 10**9, 1000))
    assert 4 == len(noted.kept) == len(noted.notes)
    scene.go()
    assert set(ids) == scene.got(*ids).keys()


def test_notes_that_say_nothing(scene: Scene) -> None:
    """Of what Redis has forgotten, and of what no script of ours wrote, the note is dropped; an odd entry is logged."""
    scene.end("e1", "e2", "e3")
    scene.world.call("delete", scene.world.keys.event("acme", "e1"))
    scene.world.call("set", scene.world.keys.event("acme", "e2"), b"x y z 1 d nonsense p m q 5")
    for odd in ({"of": "acme"}, {"of": ""}, {"a": "b", "c": "d"}, {"of": b"\xff \xff"}):
        scene.world.call("xadd", scene.world.keys.to_archive, odd)
    with capture_logs() as logs:
        scene.go()
    assert {"e3"} == scene.got("e1", "e2", "e3").keys()
    assert ["archive.unreadable"] == [one["event"] for one in logs]


def test_one_that_does_not_lead(scene: Scene) -> None:
    """It leaves the notes to the one that does."""
    scene.end("e1")
    scene.leads = False
    looked = 0

    def done() -> bool:
        nonlocal looked
        looked += 1
        return looked > 20

    scene.go(done)
    assert 1 == scene.world.run(scene.source.backlog())[0]


class Fails(SqliteArchive):
    """An archive that is away, or cannot keep some callbacks."""

    away = False
    refused: Collection[str] = ()

    async def put(self, callbacks: Sequence[ArchivedCallback]) -> None:
        """As SqliteArchive.put."""
        if self.away:
            raise ArchiveUnavailable("the archive is away")
        if any(one.id in self.refused for one in callbacks):
            raise InvalidInput("it cannot be kept")
        await super().put(callbacks)


def test_away_and_back(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is away what ended stays noted, which is logged once; when it is back all come, and that is logged."""
    monkeypatch.setattr(archiver, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(archiver, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(archiver, "MOST_SECONDS", 0.05)
    fails = Fails(tmp_path / "fails.db")
    scene.archive = scene.archiver._archive = fails
    fails.away = True
    scene.end("e1", "e2")
    with capture_logs() as logs:
        scene.go(lambda: scene.metrics.archive_errors >= 3)
        assert 2 == scene.world.run(scene.source.backlog())[0]
        fails.away = False
        scene.go()
    assert ["archive.away", "archive.back"] == [one["event"] for one in logs]
    assert {"e1", "e2"} == scene.got("e1", "e2").keys()
    scene.world.run(fails.aclose())


def test_an_archive_that_was_emptied(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another database, without tables, is not the one that knows what Redis has retired: nothing goes there until it is said to be right."""
    monkeypatch.setattr(archiver, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(archiver, "LOOK_SECONDS", 0.01)
    scene.end("e1")
    fresh = SqliteArchive(tmp_path / "fresh.db")
    scene.go()
    scene.archive = scene.archiver._archive = fresh
    scene.end("e2")
    failed = scene.metrics.archive_errors
    with capture_logs() as logs:
        scene.archiver._is_ready = False  # as after a restart
        scene.go(lambda: scene.metrics.archive_errors > failed)
        assert 1 == scene.world.run(scene.source.backlog())[0]
        assert "is DISPATCHER_ARCHIVE_URL right?" in logs[0]["problem"]
        scene.world.run(fresh.migrate())
        scene.go()
    assert {"e2"} == scene.got("e1", "e2").keys()
    scene.world.run(fresh.aclose())


class NotDropped(SqliteArchive):
    """An archive that cannot forget."""

    async def drop_days(self, before: int) -> int:
        """As Archive.drop_days."""
        raise ArchiveUnavailable("out of shared memory")


def test_what_cannot_be_dropped_holds_up_nothing(scene: Scene, tmp_path: Path) -> None:
    """It is logged, and tried again an hour later; callbacks are archived meanwhile."""
    fails = NotDropped(tmp_path / "fails.db")
    scene.archive = scene.archiver._archive = fails
    scene.archiver._keep_days = 30
    scene.end("e1")
    with capture_logs() as logs:
        scene.go()
        scene.end("e2")
        scene.go()
    assert ["archive.not_dropped"] == [one["event"] for one in logs]
    assert {"e1", "e2"} == scene.got("e1", "e2").keys()
    scene.world.run(fails.aclose())


class NoMessages:
    """Takes no messages."""

    asked = 0

    async def take(self, *_args: object) -> Taken:
        """As MessageArchiver.take."""
        self.asked += 1
        raise ArchiveUnavailable("no message is taken")


def test_messages_do_not_hold_up_callbacks(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """While messages cannot be archived, callbacks go on batch by batch; messages are tried after pauses, which is logged once."""
    monkeypatch.setattr(archiver, "BATCH", 5)
    refusing = NoMessages()
    monkeypatch.setattr(scene.archiver, "_messages", refusing)
    ids = [f"e{n}" for n in range(40)]
    scene.end(*ids)
    with capture_logs() as logs:
        began = time.monotonic()
        scene.go()
        took = time.monotonic() - began
    assert set(ids) == scene.got(*ids).keys()
    assert 1 <= refusing.asked <= 1 + took / archiver.FIRST_SECONDS
    assert [("archive.away", "messages")] == [(one["event"], one["what"]) for one in logs]


@pytest.mark.parametrize(
    "entry",
    [
        b"x y z 1 d nonsense p m q 5",
        b"\xff \xff z 1 d 1 \xff m 5 5",
        b"x y z 1 d 1 p m 5 " + b"9" * 40,
        b"x y z " + b"9" * 40 + b" d 1 p m 5 5",
        b"x y z 1 d " + b"9" * 40 + b" p m 5 5",
    ],
)
def test_damaged_entries(scene: Scene, entry: bytes) -> None:
    """One is logged, and holds up no other."""
    scene.end("e1", "e2", "e3")
    scene.world.call("set", scene.world.keys.event("acme", "e2"), entry)
    with capture_logs() as logs:
        scene.go()
    assert {"e1", "e3"} == scene.got("e1", "e2", "e3").keys()
    assert [one["event"] for one in logs] in (["archive.unreadable"], ["archive.refused"])


def test_one_that_cannot_be_kept(scene: Scene, tmp_path: Path) -> None:
    """It is logged, and holds up no other."""
    fails = Fails(tmp_path / "fails.db")
    scene.archive = scene.archiver._archive = fails
    fails.refused = ["e5"]
    ids = [f"e{n}" for n in range(9)]
    scene.end(*ids)
    with capture_logs() as logs:
        scene.go()
    assert set(ids) - {"e5"} == scene.got(*ids).keys()
    assert [("archive.refused", "e5")] == [(one["event"], one["event_id"]) for one in logs]
    scene.world.run(fails.aclose())
