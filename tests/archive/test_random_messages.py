"""Statuses of messages, as chance has them, while messages go to the archive: every answer is the one without an archive."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.model import BY_LETTER, StatusChange, iso
from dispatcher.store.archive.sqlite import SqliteArchive
from dispatcher.store.archive.stored_messages import MessagesAndArchive
from dispatcher.store.arguments import WITH_MESSAGES, LedgerOptions
from dispatcher.store.connection import connect_async
from dispatcher.store.keys import Keys
from dispatcher.store.ledger import Ledger
from dispatcher.store.messages import Messages
from dispatcher.store.messages_to_archive import MessagesToArchive
from dispatcher.store.wire import Wire
from dispatcher.worker.message_archiver import MessageArchiver
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.recorder import Recorder
from tests.archive.retiring_scene import WEEK_MS, Scene
from tests.messages import TOKEN, change, tell

UUIDS = [f"m{n:02}" for n in range(25)]
NUMBERS = [f"+2332{n:08}" for n in range(3)]
KEYS, IDS, CAMPAIGNS = ["order 1", "order 2"], ["a", "b", "c"], ["spring", "summer"]


class Twins:
    """Two message stores that are told the same: one has an archive."""

    def __init__(self, scene: Scene, url: str, archive: SqliteArchive) -> None:
        self.scene = scene
        self.client = connect_async(url)
        self.wire = Wire(self.client)
        self.dialect = "namirial"
        self.recorder = Recorder(WEEK_MS, Metrics())
        self.plain_keys, self.keys = Keys("plain"), Keys("twin")
        self.plain_ledger = self.ledger(self.plain_keys, archives=False)
        self.with_archive = self.ledger(self.keys, archives=True)
        self.plain = Messages(self.wire.call, self.plain_keys)
        self.both = MessagesAndArchive(Messages(self.wire.call, self.keys), archive.messages, WEEK_MS)
        source = MessagesToArchive(self.wire, self.keys)
        self.archiver = MessageArchiver(source, self.with_archive, archive.messages, Metrics(), 0, WEEK_MS)

    def ledger(self, keys: Keys, *, archives: bool) -> Ledger:
        """One, led."""
        options = LedgerOptions(archives=archives)
        made = Ledger(self.wire.call, keys, options=options, clock=lambda: self.scene.now)
        self.scene.call("set", keys.format, WITH_MESSAGES if archives else 4)
        self.scene.run(made.lead(TOKEN, 10**9))
        return made

    def tell(self, told: StatusChange) -> None:
        """A status change to both."""
        for ledger in (self.plain_ledger, self.with_archive):
            self.scene.run(tell(ledger, self.recorder, [told], self.dialect))

    def take(self) -> None:
        """Takes what is over to the archive."""

        async def allowed() -> None:
            pass

        self.scene.run(self.archiver.take(TOKEN, self.scene.now, allowed))

    def answers(self, messages: Messages) -> list[Any]:
        """To all that the platform's customers may ask."""
        now, run = self.scene.now, self.scene.run
        found: list[Any] = [run(messages.get_many("acme", UUIDS))]
        match self.dialect:
            case "namirial":
                for number in NUMBERS:
                    found.append(run(messages.to_phone("acme", number, now + 1, 4, lambda _: True)))
                    is_over = messages.to_phone(
                        "acme", number, now - 3000, 50, lambda one: one.status != "SENT"
                    )
                    found.append(run(is_over))
                found += [
                    run(messages.with_reference("acme", key, now + 1, 50, lambda _: True)) for key in KEYS
                ]
            case "qlara":
                ids = [*IDS, *UUIDS[:3]]
                found += [run(messages.of_customer("acme", channel, ids)) for channel in ("SMS", "RCS")]
            case "zeckta":
                for campaign in CAMPAIGNS:
                    found.append(run(messages.campaign("acme", campaign)))
                    found += [run(messages.recipients("acme", campaign, skip, 3)) for skip in (0, 3, 6)]
        return found


@pytest.fixture
def twins(scene: Scene, redis_url: str, tmp_path: Path) -> Iterator[Twins]:
    """Both, empty."""
    archive = SqliteArchive(tmp_path / "archive.db")
    scene.run(archive.migrate())
    made = Twins(scene, redis_url, archive)
    yield made
    for closing in (archive.aclose, made.wire.close, made.client.aclose):
        scene.run(closing())


def same(twins: Twins) -> None:
    """Every answer is."""
    for plain, both in zip(twins.answers(twins.plain), twins.answers(twins.both), strict=True):
        assert plain == both


@pytest.mark.parametrize("dialect", ["namirial", "qlara", "zeckta"])
@pytest.mark.parametrize("seed", range(6))
def test_the_same_answers(twins: Twins, seed: int, dialect: str) -> None:
    """Whatever came in whatever order, late and repeated statuses included."""
    chance = random.Random(seed)
    twins.dialect = dialect
    twins.scene.call("hset", twins.keys.workspace("acme"), "dialect", dialect)
    for _ in range(150):
        twins.scene.now += chance.randrange(1, 2000)
        about: dict[str, Any] = {
            "dest": chance.choice(NUMBERS),
            "channel": chance.choice(["SMS", "SMS", "RCS"]),
        }
        if chance.random() < 0.4:
            about["reference"] = {"key": chance.choice(KEYS)}
        if chance.random() < 0.4:
            about["customer_message_id"] = chance.choice(IDS)
        if chance.random() < 0.4:
            about["campaign_id"] = chance.choice(CAMPAIGNS)
        if chance.random() < 0.2:
            about["accepted_at"] = iso(twins.scene.now - chance.randrange(5000))
        status = chance.choice([*BY_LETTER.values()]).value
        at_ms = twins.scene.now - chance.randrange(3000)
        twins.tell(change(status, chance.choice(UUIDS), at_ms=at_ms, **about))
        if chance.random() < 0.3:
            twins.take()
        if chance.random() < 0.2:
            same(twins)
    twins.take()
    same(twins)
    assert len(twins.scene.call("keys", "twin:status:*")) < len(twins.scene.call("keys", "plain:status:*"))
