"""A message that went to the archive without a final status, and got another one since, is one message in every answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.model import iso
from dispatcher.store.archive.archive import Archive
from dispatcher.store.archive.postgres import PostgresArchive
from dispatcher.store.archive.sqlite import SqliteArchive
from dispatcher.store.stored_message import StoredMessage
from tests.archive.retiring_scene import WEEK_MS, Scene
from tests.archive.test_archiving_messages import AFTER_MS, Archived
from tests.messages import change

NUMBER = "+233200000001"


@pytest.fixture(params=["sqlite", "postgres"])
def it(request: pytest.FixtureRequest, scene: Scene, tmp_path: Path, redis_url: str) -> Iterator[Archived]:
    """An empty one, with each kind of archive: PostgreSQL has a row for each time that a message went there."""
    archive: Archive = SqliteArchive(tmp_path / "archive.db")
    if request.param == "postgres":
        import psycopg

        url = request.getfixturevalue("postgres_url")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS dispatcher CASCADE")
        archive = PostgresArchive(url, "the test's PostgreSQL")
    scene.run(archive.migrate())
    made = Archived(scene, archive, redis_url)
    yield made
    scene.run(made.reading.close())
    scene.run(made.client.aclose())
    scene.run(archive.aclose())


def begin(it: Archived, dialect: str, *, again: str = "DELIVERED", **about: object) -> int:
    """A message of now goes to the archive as SUBMITTED; a week later, which is now, it gets another status. When it was sent."""
    sent_ms = it.scene.now
    it.scene.call("hset", it.scene.keys.workspace("acme"), "dialect", dialect)
    it.told(change("SUBMITTED", at_ms=sent_ms, **about), dialect=dialect)
    it.scene.now += WEEK_MS
    it.take(it.made(it.archive, 3 * WEEK_MS))
    assert set() == {key for key in it.stored() if key.startswith("status:")}
    at = {key: value for key, value in about.items() if key == "accepted_at"}
    it.told(change(again, at_ms=it.scene.now, **at), dialect=dialect)
    return sent_ms


def archive_it(it: Archived) -> None:
    """What is over goes to the archive."""
    it.scene.now += AFTER_MS
    it.take()


def shown(found: list[StoredMessage]) -> list[tuple[str, str, int]]:
    """Id, status, and number of statuses."""
    return [(one.uuid, one.status.value, len(one.history)) for one in found]


@pytest.mark.parametrize("knows_time", [True, False])
def test_by_time(it: Archived, *, knows_time: bool) -> None:
    """Lists by time have it once, with its latest status: while Redis has that, and afterwards when it was sent first."""
    about = {"accepted_at": iso(it.scene.now)} if knows_time else {}
    sent_ms = begin(it, "qlara", customer_message_id="theirs", **about)

    def between(from_ms: int, to_ms: int, skip: int = 0) -> list[tuple[str, str, int]]:
        found = it.messages.sent_between(
            "acme", "SMS", from_ms, to_ms, now_ms=it.scene.now, skip=skip, count=9
        )
        return shown(it.scene.run(found))

    assert [("m1", "DELIVERED", 1)] == between(sent_ms, it.scene.now)
    assert [] == between(sent_ms, it.scene.now, skip=1)
    archive_it(it)
    assert [("m1", "DELIVERED", 2)] == between(sent_ms, it.scene.now)
    assert [("m1", "DELIVERED", 2)] == between(sent_ms, sent_ms)
    assert [] == between(sent_ms, it.scene.now, skip=1)
    assert [] == between(sent_ms + 1, it.scene.now)


def test_in_order(it: Archived) -> None:
    """In a list by time it stands where it was sent, also where the rows of a page lie between its own."""
    sent_ms = begin(it, "qlara")
    archive_it(it)
    for n in range(150):
        it.told(
            change("DELIVERED", f"z{n:03}", at_ms=it.scene.now, accepted_at=iso(sent_ms + 1 + n)),
            dialect="qlara",
        )
    archive_it(it)
    found = it.messages.sent_between("acme", "SMS", 0, it.scene.now, now_ms=it.scene.now, skip=0, count=200)
    assert ["m1", *(f"z{n:03}" for n in range(150))] == [one.uuid for one in it.scene.run(found)]


@pytest.mark.parametrize("knows_time", [True, False])
def test_by_number(it: Archived, *, knows_time: bool) -> None:
    """Look-ups by number have it whole, where it was sent first: also if its rows are on two pages."""
    about = {"accepted_at": iso(it.scene.now)} if knows_time else {}
    sent_ms = begin(it, "namirial", **about)
    archive_it(it)
    for n in range(49):
        it.told(change("DELIVERED", f"z{n}", at_ms=it.scene.now, accepted_at=iso(sent_ms + 1 + n)))
    archive_it(it)

    def latest(before_ms: int, count: int) -> list[tuple[str, str, int]]:
        return shown(it.scene.run(it.messages.to_phone("acme", NUMBER, before_ms, count, lambda _: True)))

    newest = [(f"z{n}", "DELIVERED", 1) for n in range(48, -1, -1)]
    assert newest == latest(it.scene.now, 49)
    assert [*newest, ("m1", "DELIVERED", 2)] == latest(it.scene.now, 50)
    assert [("m1", "DELIVERED", 2)] == latest(sent_ms + 1, 50)
    assert [] == latest(sent_ms, 50)


def test_before_the_time_of_its_record(it: Archived) -> None:
    """A page that ends before the record in Redis begins does not show it: the page before has done that."""
    sent_ms = begin(it, "namirial")
    before = it.messages.to_phone("acme", NUMBER, sent_ms + 1, 9, lambda _: True)
    assert [] == it.scene.run(before)
    every = it.messages.to_phone("acme", NUMBER, it.scene.now + 1, 9, lambda _: True)
    assert [("m1", "DELIVERED", 1)] == shown(it.scene.run(every))


def test_by_what_only_the_archive_was_told(it: Archived) -> None:
    """The id of its customer and its reference lead to it, though the later status was without them, and it has them in the answer."""
    begin(it, "qlara", customer_message_id="theirs", network="MTN")
    for _ in range(2):
        [found] = it.scene.run(it.messages.of_customer("acme", "SMS", ["theirs"])).values()
        assert ("DELIVERED", "theirs", "MTN") == (found.status, found.customer_message_id, found.network)
        archive_it(it)


def test_by_reference(it: Archived) -> None:
    """The same with a reference."""
    begin(it, "namirial", reference={"key": "order 7"})
    for _ in range(2):
        found = it.messages.with_reference("acme", "order 7", it.scene.now + 1, 9, lambda _: True)
        assert ["DELIVERED"] == [one.status for one in it.scene.run(found)]
        archive_it(it)


def test_its_campaign(it: Archived) -> None:
    """The archive's list of a campaign has it with its latest status."""
    begin(it, "zeckta", campaign_id="spring")
    archive_it(it)
    it.scene.call("flushdb")
    [found] = it.scene.run(it.messages.recipients("acme", "spring", 0, 9))
    assert "DELIVERED" == found.status
