"""Messages go from the message store to the archive, on a real Redis, and no status is lost or taken back by that."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.errors import ArchiveUnavailable, InvalidInput, OtherFormat
from dispatcher.model import StatusChange, iso
from dispatcher.rules.outcomes import Delivered
from dispatcher.store.archive.archive import Archive
from dispatcher.store.archive.archived_message import ArchivedMessage
from dispatcher.store.archive.sqlite import SqliteArchive
from dispatcher.store.archive.stored_messages import MessagesAndArchive
from dispatcher.store.arguments import WITH_ARCHIVE, WITH_MESSAGES, LedgerOptions, ToAccept
from dispatcher.store.connection import connect_async
from dispatcher.store.known_messages import KnownMessages
from dispatcher.store.ledger import Ledger
from dispatcher.store.message_reader import Bounds
from dispatcher.store.messages import Messages
from dispatcher.store.messages_to_archive import Leaving, MessagesToArchive
from dispatcher.store.wire import Wire
from dispatcher.worker.message_archiver import MessageArchiver, Taken
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.recorder import Recorder
from tests.archive.retiring_scene import WEEK_MS, Scene
from tests.messages import change, tell
from tests.world import TOKEN, callback

AFTER_MS = 300_000
HOUR_MS = 3_600_000


class Archived:
    """A message store with an archive, and time that passes when it is told to."""

    def __init__(self, scene: Scene, archive: Archive, url: str) -> None:
        self.scene = scene
        self.archive = archive
        self.metrics = Metrics()
        self.source = MessagesToArchive(scene.wire, scene.keys)
        self.archiver = self.made(archive)
        self.client = connect_async(url)
        self.reading = Wire(self.client)
        self.in_redis = Messages(self.reading.call, scene.keys)
        self.messages = MessagesAndArchive(self.in_redis, archive.messages, WEEK_MS)
        self.recorder = Recorder(WEEK_MS, self.metrics)
        scene.call("set", scene.keys.format, WITH_MESSAGES)

    def made(self, archive: Archive, kept_ms: int = WEEK_MS) -> MessageArchiver:
        """What takes messages to an archive."""
        return MessageArchiver(
            self.source, self.scene.ledger, archive.messages, self.metrics, AFTER_MS, kept_ms
        )

    async def allowed(self) -> None:
        """Every worker knows what is retired."""

    def take(self, archiver: MessageArchiver | None = None) -> Taken:
        """One batch."""
        return self.scene.run((archiver or self.archiver).take(TOKEN, self.scene.now, self.allowed))

    def told(self, *changes: StatusChange, dialect: str = "namirial") -> dict[str, int]:
        """Records status changes; how many were recorded, late and failed by that."""
        before = dict(self.metrics.recorded)
        self.scene.run(tell(self.scene.ledger, self.recorder, changes, dialect))
        return {
            word: count - before.get(word, 0)
            for word, count in self.metrics.recorded.items()
            if count - before.get(word, 0)
        }

    def stored(self) -> set[str]:
        """The message store's keys."""
        found = self.scene.call("keys", f"{self.scene.keys.root}status*")
        return {key.decode().removeprefix(self.scene.keys.root) for key in found}

    def kept(self, *uuids: str) -> set[str]:
        """Those of the messages that the archive has."""
        return {one.uuid for one in self.scene.run(self.archive.messages.get("acme", uuids))}

    def statuses(self, uuid: str = "m1") -> list[str]:
        """What a message went through, wherever it is."""
        found = self.scene.run(self.messages.get("acme", uuid))
        return [status.value for status, _ in found.history] if found else []


@pytest.fixture
def it(scene: Scene, tmp_path: Path, redis_url: str) -> Iterator[Archived]:
    """An empty one."""
    archive = SqliteArchive(tmp_path / "archive.db")
    scene.run(archive.migrate())
    made = Archived(scene, archive, redis_url)
    yield made
    scene.run(made.reading.close())
    scene.run(made.client.aclose())
    scene.run(archive.aclose())


ABOUT = {"reference": {"key": "order 7"}, "customer_message_id": "theirs"}


@pytest.mark.parametrize("dialect", ["namirial", "qlara", "zeckta", "sendexa"])
def test_what_is_over(it: Archived, dialect: str) -> None:
    """Some minutes after its final status a message is in the archive, and Redis has nothing of it but a fingerprint."""
    it.told(
        change("SENT", at_ms=it.scene.now, **ABOUT),
        change("DELIVERED", at_ms=it.scene.now + 5),
        dialect=dialect,
    )
    assert Taken(0, 0) == it.take()
    it.scene.now += AFTER_MS
    assert Taken(1, 1) == it.take()
    assert set() == it.stored()
    assert {"m1"} == it.kept("m1")
    assert ["SENT", "DELIVERED"] == it.statuses()
    assert Taken(0, 0) == it.take()
    assert 1 == it.metrics.archived_messages


def test_what_may_get_another_status_stays(it: Archived) -> None:
    """A message without a final status, or one that may still be read, stays until it has not changed for half of its time."""
    it.told(
        change("SENT", "m1", at_ms=it.scene.now),
        change("DELIVERED", "m2", at_ms=it.scene.now, channel="RCS"),
        change("READ", "m3", at_ms=it.scene.now, channel="RCS"),
    )
    it.scene.now += AFTER_MS
    assert Taken(2, 1) == it.take(), "m2 and m3 are looked at"
    assert {"m3"} == it.kept("m1", "m2", "m3")
    it.scene.now += HOUR_MS
    assert {"recorded": 1} == it.told(change("READ", "m2", at_ms=it.scene.now, channel="RCS"))
    it.scene.now += AFTER_MS
    assert Taken(1, 1) == it.take()
    assert ["DELIVERED", "READ"] == it.statuses("m2")
    it.scene.now += WEEK_MS // 2
    assert Taken(1, 0) == it.take(), "of its week nothing has passed in Redis"
    it.scene.call("pexpire", it.scene.keys.status("acme", "m1"), WEEK_MS // 3)
    it.scene.now += WEEK_MS // 2 + AFTER_MS
    assert Taken(1, 1) == it.take()
    assert {"m1", "m2", "m3"} == it.kept("m1", "m2", "m3")
    assert set() == it.stored()


def test_late(it: Archived) -> None:
    """A status that comes late changes nothing about a message that is over, and is counted as late; its callback goes on."""
    it.told(change("DELIVERED", at_ms=it.scene.now))
    it.scene.now += AFTER_MS
    it.take()
    assert {"late": 1} == it.told(change("SENT", at_ms=it.scene.now))
    assert {"late": 1} == it.told(change("FAILED", at_ms=it.scene.now))
    assert set() == it.stored()
    assert ["DELIVERED"] == it.statuses()
    batch = ToAccept([(it.scene.enqueued(1)[0], callback("e1", message="m1"))])
    it.recorder.add(batch, change("SENT", at_ms=it.scene.now), "namirial", 1)
    accepted = it.scene.run(it.scene.ledger.accept(TOKEN, {}, [], batch))
    assert (["accepted"], ["late"]) == (accepted.words, accepted.recorded)


def test_another_status_of_one_that_was_open(it: Archived) -> None:
    """A status that comes after a message went to the archive without a final one begins a record, which is put together with it."""
    it.told(change("SUBMITTED", at_ms=it.scene.now, network="MTN", **ABOUT))
    it.scene.now += WEEK_MS
    it.take(it.made(it.archive, 3 * WEEK_MS))
    assert set() == it.stored()
    assert {"recorded": 1} == it.told(change("DELIVERED", at_ms=it.scene.now))
    assert ["DELIVERED"] == it.statuses()
    it.scene.now += AFTER_MS
    it.take()
    assert ["SUBMITTED", "DELIVERED"] == it.statuses()
    [found] = it.scene.run(it.messages.with_reference("acme", "order 7", it.scene.now, 9, lambda _: True))
    assert "MTN" == found.network


def test_what_is_delivered_and_long_unread(it: Archived) -> None:
    """When it has gone to the archive, no status takes it back, and its campaign counts it once; a READ is late."""
    about = {"channel": "RCS", "campaign_id": "spring"}
    it.told(change("DELIVERED", at_ms=it.scene.now, **about), dialect="zeckta")
    it.scene.now += WEEK_MS
    assert Taken(1, 1) == it.take(it.made(it.archive, 3 * WEEK_MS))
    for status in ("SENT", "READ"):
        told = change(status, at_ms=it.scene.now, **about)
        assert {"late": 1} == it.told(told, dialect="zeckta")
    assert ["DELIVERED"] == it.statuses()
    campaign = it.scene.run(it.messages.campaign("acme", "spring"))
    assert campaign
    assert 1 == campaign.recipients


def test_a_list_shows_no_outdated_status(it: Archived) -> None:
    """What Redis knows better of is not listed as the archive has it."""
    it.told(change("SENT", at_ms=it.scene.now))
    it.scene.now += WEEK_MS
    it.take(it.made(it.archive, 3 * WEEK_MS))
    it.told(change("BUFFERED", at_ms=it.scene.now))
    sent = it.messages.to_phone(
        "acme", "+233200000001", it.scene.now + 1, 9, lambda one: one.status.value == "SENT"
    )
    assert [] == it.scene.run(sent)


def test_a_fingerprint_that_cannot_be_kept(it: Archived) -> None:
    """A key of the wrong type keeps its messages in Redis, and holds up no others: they are looked at again an hour later."""
    it.told(change("DELIVERED", "m0", at_ms=it.scene.now), change("DELIVERED", "m1", at_ms=it.scene.now + 1))
    it.scene.now += AFTER_MS
    it.take()
    it.told(change("DELIVERED", "m2", at_ms=it.scene.now))
    [(buckets, _)] = it.scene.tables().values()
    every = [it.scene.keys.fingerprint(1, number) for number in range(buckets)]
    for key in every:
        it.scene.call("set", key, "wrong")
    it.scene.now += AFTER_MS
    assert Taken(1, 1) == it.take()
    assert "status:acme:m2" in it.stored()
    assert Taken(0, 0) == it.take()
    it.scene.call("delete", *every)
    it.scene.now += HOUR_MS + AFTER_MS
    assert Taken(1, 1) == it.take()
    assert set() == it.stored()


def test_changed_meanwhile(it: Archived) -> None:
    """A message that changes while it goes to the archive stays in Redis, and goes there again."""
    it.told(change("DELIVERED", channel="RCS", at_ms=it.scene.now))
    it.scene.now += WEEK_MS
    whole = it.archive.messages.put

    async def put(messages: object) -> None:
        await whole(messages)  # type: ignore[arg-type]
        read = change("READ", channel="RCS", at_ms=it.scene.now)
        await tell(it.scene.ledger, it.recorder, [read], "namirial")

    it.archive.messages.put = put  # type: ignore[method-assign]
    assert Taken(1, 1) == it.take(it.made(it.archive, 3 * WEEK_MS))
    it.archive.messages.put = whole  # type: ignore[method-assign]
    assert ["DELIVERED", "READ"] == it.statuses()
    assert "status:acme:m1" in it.stored()
    it.scene.now += AFTER_MS
    assert Taken(1, 1) == it.take()
    assert ["DELIVERED", "READ"] == it.statuses()
    assert set() == it.stored()


def test_campaign(it: Archived) -> None:
    """A campaign's counts stay in Redis, and its messages come in the same order from both; after Redis has forgotten it, the archive counts."""
    sent = [change("SENT", f"m{n}", at_ms=it.scene.now + n, campaign_id="spring") for n in range(4)]
    over = [change("DELIVERED", f"m{n}", at_ms=it.scene.now + 9) for n in (0, 2)]
    it.told(*sent, *over, change("FAILED", "m3", at_ms=it.scene.now + 9), dialect="zeckta")

    def report() -> object:
        campaign = it.scene.run(it.messages.campaign("acme", "spring"))
        return campaign, it.scene.run(it.messages.recipients("acme", "spring", 1, 2))

    before = report()
    it.scene.now += AFTER_MS
    assert Taken(3, 3) == it.take()
    assert before == report()
    it.scene.now += WEEK_MS
    assert Taken(1, 1) == it.take(it.made(it.archive, 3 * WEEK_MS))
    assert before == report()
    assert {"status-campaign:acme:spring", "status-recipients:acme:spring"} == it.stored()
    it.scene.call("delete", *(f"{it.scene.keys.root}{key}" for key in it.stored()))
    assert before == report()
    assert it.scene.run(it.messages.campaign("acme", "autumn")) is None
    assert [] == it.scene.run(it.messages.recipients("acme", "autumn", 0, 9))


def test_by_time(it: Archived) -> None:
    """Messages come in order of when they were sent, each once, wherever they are, page by page; so they do from both."""
    about = {"at_ms": it.scene.now, "customer_message_id": "theirs"}
    from_ms = it.scene.now - 3 * HOUR_MS
    for n in range(30):
        sent_ms = from_ms + (n * 7 % 30) * 6 * 60_000
        it.told(change("SENT", f"m{n:02}", accepted_at=iso(sent_ms), **about), dialect="qlara")
    expected = sorted(range(30), key=lambda n: n * 7 % 30)
    over = [change("DELIVERED", f"m{n:02}", at_ms=it.scene.now + 1) for n in range(0, 30, 2)]
    for step in range(3):
        if step == 1:
            it.told(*over, dialect="qlara")
        if step == 2:
            it.scene.now += AFTER_MS
            assert Taken(15, 15) == it.take()
        found = [
            one.uuid
            for page in range(0, 40, 7)
            for one in it.scene.run(
                it.messages.sent_between(
                    "acme", "SMS", from_ms, from_ms + 2 * HOUR_MS, now_ms=it.scene.now, skip=page, count=7
                )
            )
        ]
        assert [f"m{n:02}" for n in expected if n * 7 % 30 <= 20] == found, step
    delivered = it.scene.run(
        it.messages.sent_between(
            "acme", "SMS", 0, it.scene.now, now_ms=it.scene.now, skip=0, count=100,
            keep=lambda head: head.status.value == "DELIVERED",
        )
    )  # fmt: skip
    assert 15 == len(delivered)
    few = MessagesAndArchive(
        it.in_redis,
        it.archive.messages,
        WEEK_MS,
        Bounds(looked_at=10),
    )
    with pytest.raises(InvalidInput, match="narrow it"):
        it.scene.run(few.sent_between("acme", "SMS", 0, it.scene.now, now_ms=it.scene.now, skip=0, count=100))


def test_a_message_that_is_open_for_days(it: Archived) -> None:
    """It is found by when it was sent for as long as Redis lists it, which is two days longer than it is kept after a change."""
    sent_ms = it.scene.now
    it.told(change("SENT", "m1", accepted_at=iso(sent_ms), at_ms=sent_ms), dialect="qlara")
    it.scene.now += 5 * 24 * HOUR_MS
    it.told(change("BUFFERED", "m1", at_ms=it.scene.now), dialect="qlara")
    asked = {"now_ms": it.scene.now + 3 * 24 * HOUR_MS, "skip": 0, "count": 9}
    found = it.scene.run(it.messages.sent_between("acme", "SMS", sent_ms - 1000, sent_ms + 1000, **asked))
    assert ["m1"] == [one.uuid for one in found]


def test_latest(it: Archived) -> None:
    """The latest messages to a number are those of both places."""
    for n in range(12):
        it.told(change("SENT", f"m{n:02}", at_ms=it.scene.now + n), dialect="namirial")
    it.told(*(change("DELIVERED", f"m{n:02}", at_ms=it.scene.now + 50) for n in range(0, 12, 3)))

    def latest(count: int) -> list[str]:
        found = it.messages.to_phone("acme", "+233200000001", it.scene.now + 9, count, lambda _: True)
        return [one.uuid for one in it.scene.run(found)]

    before = [latest(n) for n in range(1, 13)]
    now = it.scene.now
    it.scene.now += AFTER_MS
    assert Taken(4, 4) == it.take()
    it.scene.now, after = now, it.scene.now
    assert before == [latest(n) for n in range(1, 13)]
    assert [f"m{n:02}" for n in range(8, -1, -1)] == before[-1]
    it.scene.now = after


def test_of_customer(it: Archived) -> None:
    """An id leads to the message that got it last, wherever that is; and a message's own id to it, if it has no other."""
    it.told(change("DELIVERED", "m1", at_ms=it.scene.now, **ABOUT), dialect="qlara")
    it.told(change("DELIVERED", "m2", at_ms=it.scene.now + 1, **ABOUT), dialect="qlara")
    it.told(change("DELIVERED", "m3", at_ms=it.scene.now + 2), dialect="qlara")
    ids = ["theirs", "m3", "m1", "nobody"]

    def found() -> dict[str, str]:
        return {
            id_: one.uuid for id_, one in it.scene.run(it.messages.of_customer("acme", "SMS", ids)).items()
        }

    assert {"theirs": "m2", "m3": "m3"} == found()
    it.scene.now += AFTER_MS
    it.take()
    assert set() == it.stored()
    assert {"theirs": "m2", "m3": "m3"} == found()
    it.told(change("SENT", "m4", at_ms=it.scene.now, **ABOUT), dialect="qlara")
    assert {"theirs": "m4", "m3": "m3"} == found()


@pytest.mark.parametrize("got_since", [False, True])
def test_an_id_that_redis_has_forgotten(it: Archived, *, got_since: bool) -> None:
    """It leads to its message in the archive, unless another one that got it since is there."""
    it.told(change("SENT", "m1", at_ms=it.scene.now, **ABOUT), dialect="qlara")
    if got_since:
        it.told(change("DELIVERED", "m2", at_ms=it.scene.now, **ABOUT), dialect="qlara")
        it.scene.now += AFTER_MS
        assert Taken(1, 1) == it.take()
    it.scene.call("delete", it.scene.keys.status_customer("acme", "SMS", "theirs"))
    it.scene.now += WEEK_MS
    it.take(it.made(it.archive, 3 * WEEK_MS))
    assert not any(key.startswith("status:") for key in it.stored())
    found = it.scene.run(it.messages.of_customer("acme", "SMS", ["theirs"]))
    assert {"theirs": "m2" if got_since else "m1"} == {id_: one.uuid for id_, one in found.items()}


def test_the_archive_is_away(it: Archived, tmp_path: Path) -> None:
    """What waits stays in Redis and is known there; what Redis does not know is not answered."""
    it.told(change("DELIVERED", at_ms=it.scene.now))
    it.scene.now += AFTER_MS
    away = SqliteArchive(tmp_path / "nowhere" / "archive.db")
    with pytest.raises(ArchiveUnavailable):
        it.take(it.made(away))
    reading = MessagesAndArchive(it.in_redis, away.messages, WEEK_MS)
    assert it.scene.run(reading.get("acme", "m1"))
    it.told(change("DELIVERED", "m3", at_ms=it.scene.now, **ABOUT), dialect="qlara")
    assert {"theirs"} == it.scene.run(reading.of_customer("acme", "SMS", ["theirs"])).keys()
    with pytest.raises(ArchiveUnavailable):
        it.scene.run(reading.get("acme", "m2"))
    assert Taken(1, 1) == it.take()
    it.scene.run(away.aclose())


def test_what_cannot_be_archived(it: Archived) -> None:
    """A record that no script of ours wrote, and one that the archive refuses, stay as they are and hold nothing up."""
    for n in range(3):
        it.told(change("DELIVERED", f"m{n}", at_ms=it.scene.now))
    it.scene.call("set", it.scene.keys.status("acme", "m0"), "nonsense")
    it.scene.call("zadd", it.scene.keys.status_due, {"acme gone": 1, "nonsense": 1})
    whole = it.archive.messages.put

    async def put(messages: list[ArchivedMessage]) -> None:
        if any(one.uuid == "m1" for one in messages):
            raise InvalidInput("no such character")
        await whole(messages)

    it.archive.messages.put = put  # type: ignore[method-assign, assignment]
    it.scene.now += AFTER_MS
    assert Taken(5, 1) == it.take()
    assert {"m2"} == it.kept("m0", "m1", "m2")
    assert {"status:acme:m0", "status:acme:m1"} <= it.stored()
    assert Taken(0, 0) == it.take()


def test_where_nothing_is_to_leave(it: Archived) -> None:
    """On the way to do without an archive: what it gets stays in Redis too, without a fingerprint, until Redis forgets it."""
    it.told(change("DELIVERED", at_ms=it.scene.now))
    it.scene.now += AFTER_MS
    staying = MessageArchiver(
        it.source, it.scene.ledger, it.archive.messages, it.metrics, AFTER_MS, WEEK_MS, stays=True
    )
    assert Taken(1, 1) == it.take(staying)
    assert {"m1"} == it.kept("m1")
    assert "status:acme:m1" in it.stored()
    assert "status-due" not in it.stored()
    assert {} == it.scene.tables()


def test_lower_format(it: Archived) -> None:
    """Nothing leaves Redis while the data may be read by workers that do not know of it."""
    it.told(change("DELIVERED", at_ms=it.scene.now))
    it.scene.now += AFTER_MS
    it.scene.call("set", it.scene.keys.format, WITH_ARCHIVE)
    with pytest.raises(OtherFormat):
        it.take()
    assert "status:acme:m1" in it.stored()
    it.scene.call("set", it.scene.keys.format, WITH_MESSAGES)
    it.take()
    assert set() == it.stored()


def test_without_an_archive(it: Archived) -> None:
    """Who has no archive pays nothing: no note, and no look for fingerprints."""
    ledger = Ledger(it.scene.wire.call, it.scene.keys, options=LedgerOptions())
    it.scene.call("set", it.scene.keys.format, 4)
    it.scene.run(tell(ledger, it.recorder, [change("DELIVERED", at_ms=it.scene.now)], "sendexa"))
    assert {"status:acme:m1"} == it.stored()


def test_an_earlier_width(it: Archived) -> None:
    """A partition in which a message was retired says that it knows the message."""
    it.told(change("DELIVERED", at_ms=it.scene.now))
    it.scene.now += AFTER_MS
    it.take()
    known = KnownMessages(it.scene.wire, it.scene.keys)
    asked = [change("SENT", uuid, event_id=f"new-{uuid}") for uuid in ("m1", "m2")]
    assert [True, False] == it.scene.run(known.known(asked))


def test_damaged_lists(it: Archived) -> None:
    """A list of the wrong type keeps no message from going to the archive."""
    it.told(change("DELIVERED", at_ms=it.scene.now, **ABOUT))
    it.scene.call("set", it.scene.keys.status_phone("acme", "+233200000001"), "wrong")
    it.scene.now += AFTER_MS
    assert Taken(1, 1) == it.take()
    assert {"status-phone:acme:+233200000001"} == it.stored()


def test_beside_callbacks(it: Archived) -> None:
    """The fingerprint of a message is none of a callback with that eventId, and the other way round."""
    it.scene.end(callback("m1", message="e1"), outcome=Delivered())
    it.told(change("DELIVERED", "m1", at_ms=it.scene.now))
    it.scene.retire("m1")
    assert {"late": 1} == it.told(change("SENT", "m1", at_ms=it.scene.now))
    assert {"recorded": 1} == it.told(change("SENT", "e1", at_ms=it.scene.now))
    it.scene.now += AFTER_MS
    it.take()
    assert {"late": 1} == it.told(change("SENT", "m1", at_ms=it.scene.now))


def test_broken_off(it: Archived) -> None:
    """A run that broke off after some messages left their lists is finished by the next one."""
    it.told(change("DELIVERED", at_ms=it.scene.now, **ABOUT))
    record = it.scene.call("get", it.scene.keys.status("acme", "m1"))
    one = Leaving("acme", "m1", record, "over", [("phone", "+233200000001")])
    other = Leaving("acme", "m1", b"another record", "over")
    assert 0 == it.scene.run(it.scene.ledger.retire_messages(TOKEN, [other]))
    assert "status:acme:m1" in it.stored()
    assert 1 == it.scene.run(it.scene.ledger.retire_messages(TOKEN, [one, other]))
    assert {"status-reference:acme:" + key.split(":")[-1] for key in it.stored()} == it.stored()
