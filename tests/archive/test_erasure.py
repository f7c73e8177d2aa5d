"""What is erased is gone from a real Redis and each kind of archive, its events stay known, and nothing else is touched."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
import redis

from dispatcher.errors import NotFound, RedisUnavailable
from dispatcher.rules.outcomes import Delivered, Failed, Retry
from dispatcher.store import message_record
from dispatcher.store.archive.archived_callback import Kept
from dispatcher.store.archive.archived_message import ArchivedMessage, archived
from dispatcher.store.archive.which import Which
from dispatcher.store.arguments import ToAccept
from dispatcher.store.keys import endpoint_id
from dispatcher.store.ledger import Ledger
from dispatcher.store.messages import Messages
from dispatcher.store.traces import Wanted
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.recorder import Recorder
from tasks import wiring
from tasks.actions import erase
from tasks.actions.erase import Counts
from tests.divided import Installed, installed
from tests.messages import RETENTION_MS, change, tell
from tests.world import TOKEN, World, callback

NUMBER, OTHER = "+233200000001", "+233200000002"
AT = 1_800_000_000_000
ENDPOINT = "acme https://a.example:443"
ENDS = {"delivered": Delivered(), "failed": Failed(), "waiting": Retry(3_600_000)}


class Scene:
    """An installation with an archive, in which workspace acme has messages to people."""

    def __init__(self, it: Installed, url: str) -> None:
        self.it = it
        self.plain = redis.Redis.from_url(url)
        self.world: World = it.of("acme")

    def do(self, action: Any, *args: Any, **named: Any) -> Any:
        """The result of an action."""
        return self.it.do(action, *args, **named)

    def erase(self, **wanted: str) -> Counts:
        """Erases something of acme; before that, counting it changes nothing and finds as much."""
        before = self.everything()
        found = self.do(erase.count, Wanted("acme", **wanted))
        assert before == self.everything()
        done: Counts = self.do(erase.erase, Wanted("acme", **wanted))
        assert found == done
        return done

    def everything(self) -> dict[bytes, Any]:
        """All keys but those of the audit trail, and their values."""
        found: dict[bytes, Any] = {}
        for key in self.plain.keys("*"):
            match self.plain.type(key):
                case b"string":
                    found[key] = self.plain.get(key)
                case b"list":
                    found[key] = self.plain.lrange(key, 0, -1)
                case b"zset":
                    found[key] = self.plain.zrange(key, 0, -1, withscores=True)
                case b"hash":
                    found[key] = self.plain.hgetall(key)
                case b"stream":
                    found[key] = self.plain.xrange(key)
        return {key: value for key, value in found.items() if not key.endswith(b":audit")}

    def has(self, text: str) -> list[bytes]:
        """The keys that have a text in their name or value, but for workspaces, whose secrets are random."""
        found = self.everything().items()
        return [key for key, value in found if b":workspace:" not in key and text in f"{key!r} {value!r}"]

    def message(self, uuid: str, number: str = NUMBER, *, dialect: str = "zeckta", **of: str) -> None:
        """A message of which callbacks wait, were delivered and failed, and two more are in the archive only."""
        ids = {word: f"{word}-{uuid[1:]}" for word in ENDS}
        self.told(uuid, number, dialect, **of)
        for id_ in ids.values():
            self.world.accept(self.callback(id_, uuid, number))
        for word, outcome in ENDS.items():  # they wait for one another
            [one] = self.world.claim(ENDPOINT).callbacks
            error = None if word == "delivered" else "http_500"
            self.world.settle(ids[word], one.claim, outcome, endpoint=ENDPOINT, error=error)
        newest = self.world.keys.newest(endpoint_id(ENDPOINT), uuid)  # as the order `latest` keeps it
        self.world.call("set", newest, "1", px=RETENTION_MS)
        self.world.call("set", self.world.keys.answer("acme", ids["failed"]), f"no {number}", px=RETENTION_MS)
        self.do(self._archive, uuid, number, [f"old-{uuid[1:]}-{n}" for n in range(2)])

    @staticmethod
    async def _archive(store: wiring.Store, uuid: str, number: str, ids: list[str]) -> None:
        assert store.archive
        entry = f"0123456789abcdef T s 1800000000000 failed 1 e {uuid} 1 35\n3 12 500 http_500".encode()
        body = f"https://a.example\n{number}".encode()
        await store.archive.put([Kept("acme", one, entry, ENDPOINT, b"no", body).archived() for one in ids])

    def callback(self, id_: str, uuid: str, number: str = NUMBER) -> Any:
        """A callback as intake renders it."""
        made = callback(id_, message=uuid, timestamp_ms=self.world.now)
        return msgspec.structs.replace(made, body=f'{{"to":"{number}","id":"{uuid}"}}'.encode())

    def told(self, uuid: str, number: str = NUMBER, dialect: str = "zeckta", **of: str) -> None:
        """Tells the message store of a message."""
        made = change("SENT", uuid, at_ms=self.world.now, dest=number, **of)
        self.world.run(tell(self.world.ledger, Recorder(RETENTION_MS, Metrics()), [made], dialect))

    def enqueue(self, raw: bytes) -> str:
        """Puts text on the queue."""
        return str(self.world.call("xadd", self.world.keys.events, {"event": raw}).decode())

    def reject(self, raw: bytes, workspace: str = "acme") -> None:
        """Rejects an entry with this text."""
        why = [(self.enqueue(raw), "invalid", "why", workspace, "")]
        self.world.run(self.world.ledger.reject(TOKEN, why))

    def archived(self) -> set[str]:
        """The messages that the archive knows."""

        async def find(store: wiring.Store) -> set[str]:
            assert store.archive
            page = await store.archive.ended(Which(), None, 1000)
            return {one.message for one in page.found}

        return set(self.do(find))

    def erased(self, *ids: str) -> set[str]:
        """Those that the archive knows as erased."""

        async def find(store: wiring.Store) -> set[str]:
            assert store.archive
            return {id_ for _, id_ in await store.archive.erased([("acme", one) for one in ids])}

        return set(self.do(find))

    def audited(self) -> Any:
        """The last entry of the trail."""

        async def find(store: wiring.Store) -> Any:
            return (await store.audit.latest(1))[0]

        return self.do(find)


async def prepare(store: wiring.Store) -> None:
    """Makes the workspace, and the archive's tables."""
    assert store.archive
    await store.archive.migrate()
    await store.workspaces.add("acme", "zeckta", "https://a.example/hooks", now_ms=1)


@pytest.fixture(params=["sqlite", "postgres", "sqlite of 8 partitions"])
def scene(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[Scene]:
    """An empty Redis and an empty archive."""
    kind, _, partitions = request.param.partition(" of ")
    url = f"sqlite:///{tmp_path}/archive.db"
    if kind == "postgres":
        url = request.getfixturevalue("postgres_url")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS dispatcher CASCADE")
    with installed([redis_url], int((partitions or "1").split()[0]), archive_url=url) as it:
        found = Scene(it, redis_url)
        found.do(prepare)
        yield found
        found.plain.close()


def test_message(scene: Scene) -> None:
    """Its callbacks, wherever they are, its record and what was rejected or waits on the queue are gone; another message's stay."""
    scene.message("m1", NUMBER, campaign_id="spring")
    scene.message("m2", NUMBER, campaign_id="spring")
    raw = change("DELIVERED", "m1").to_json()
    scene.reject(raw[:-1])
    scene.enqueue(raw)
    scene.enqueue(change("DELIVERED", "m2").to_json())
    other = set(scene.has("m2"))
    expected = Counts(queued=1, waiting=1, callbacks=3, messages=1, rejected=1, archived=2)
    assert expected == scene.erase(message="m1")
    assert [] == scene.has("m1")
    assert other == set(scene.has("m2"))
    assert {"m2"} == scene.archived()
    ids = [f"{word}-1" for word in ("delivered", "failed", "waiting", "old")]
    assert {*ids[:3]} == scene.erased(*ids, "delivered-2")
    keys = scene.world.keys
    assert b"1" == scene.world.call("hget", keys.status_campaign("acme", "spring"), "s")
    assert [b"m2"] == scene.world.call("lrange", keys.status_recipients("acme", "spring"), 0, -1)
    for id_ in ids[:3]:
        raw = scene.world.call("get", keys.event("acme", id_))
        assert (b"-", b"erased", b"-") == (raw.split()[0], raw.split()[4], raw.split()[7])
        assert 0 < scene.world.call("pttl", keys.event("acme", id_))
    assert Counts() == scene.erase(message="m1")


def test_an_erased_event_does_not_happen_again(scene: Scene) -> None:
    """Enqueued again, it is a duplicate even if its content differs now, causes no callback, and tells the message store nothing."""
    scene.message("m1")
    scene.erase(message="m1")
    again = scene.callback("delivered-1", "m1", OTHER)
    [entry] = scene.world.enqueued(1)
    batch = ToAccept([(entry, msgspec.structs.replace(again, digest="another"))])
    Recorder(RETENTION_MS, Metrics()).add(batch, change("SENT", "m1"), "namirial", 1)
    accepted = scene.world.run(scene.world.ledger.accept(TOKEN, {}, [], batch))
    assert ["duplicate"] == accepted.words
    assert [] == scene.has(NUMBER) == scene.has(OTHER)
    assert 0 == scene.world.call("xlen", scene.world.keys.events)
    assert Counts() == scene.do(erase.erase, Wanted("acme", message="m1"))


def test_what_is_written_down(scene: Scene) -> None:
    """The trail says who erased how much, and neither the number nor the message."""
    scene.message("m1")
    scene.erase(number=NUMBER)
    entry = scene.audited()
    assert ("erase.phone", "acme") == (entry.what, entry.workspace)
    assert 3 == entry.after["callbacks"]
    assert not {"m1", NUMBER, NUMBER[1:]} & set(str(entry).replace("'", " ").split())


@pytest.mark.parametrize("dialect", ["zeckta", "namirial", "qlara", "sendexa"])
def test_phone(scene: Scene, dialect: str) -> None:
    """All messages to a number, however it was written, on every platform; those to others stay."""
    about = {"reference": {"key": "order-7"}, "customer_message_id": "theirs"}
    scene.message("m1", NUMBER, dialect=dialect, **about)  # type: ignore[arg-type]
    scene.message("m2", "00" + NUMBER[1:], dialect=dialect)
    scene.message("m3", OTHER, dialect=dialect)
    scene.reject(b'{"dest": "' + NUMBER.encode() + b'", ', workspace="")
    scene.reject(b'{"dest": "' + NUMBER.encode() + b'9"')
    scene.enqueue(change("DELIVERED", "m9", dest=NUMBER).to_json())
    scene.enqueue(change("DELIVERED", "m9", dest=NUMBER, workspace="bluefin").to_json())
    expected = Counts(queued=1, waiting=2, callbacks=6, messages=2, rejected=1, archived=4)
    assert expected == scene.erase(number=f"{NUMBER[:4]} {NUMBER[4:]}")
    left = [key for key in scene.has(NUMBER[1:]) if not key.endswith((b":events", b":rejected"))]
    assert [] == left
    assert [] == scene.has("m1") + scene.has("m2")
    assert {"m3"} == scene.archived()
    assert 1 == scene.world.call("xlen", scene.world.keys.rejected)
    assert Counts() == scene.erase(number=NUMBER)


def test_workspace(scene: Scene) -> None:
    """All of its messages and callbacks are gone; a stub of each event stays."""
    scene.message("m1", NUMBER, dialect="namirial", reference={"key": "order-7"})  # type: ignore[arg-type]
    scene.message("m2", OTHER, campaign_id="spring")
    scene.reject(change("DELIVERED", "m1").to_json())
    scene.enqueue(change("DELIVERED", "m1").to_json())
    scene.enqueue(change("DELIVERED", "m9", workspace="bluefin").to_json())
    expected = Counts(queued=1, waiting=2, callbacks=6, messages=2, rejected=1, archived=4)
    assert expected == scene.erase()
    for text in ("m1", "m2", "order-7", "spring", OTHER):
        assert [] == scene.has(text), text
    assert 0 == scene.world.call("exists", scene.world.keys.ended("acme", "failed"))
    assert set() == scene.archived()
    assert {"old-1-0", "failed-2"} == scene.erased("old-1-0", "failed-2")
    assert Counts() == scene.do(erase.erase, Wanted("acme"))
    with pytest.raises(NotFound):
        scene.do(erase.count, Wanted("acne"))


def test_what_is_being_sent(scene: Scene) -> None:
    """It is left, with all that leads to it, and the next run erases it."""
    scene.told("m1")
    scene.world.accept(scene.callback("e1", "m1"))
    [one] = scene.world.claim(ENDPOINT).callbacks
    assert Counts(messages=1, sending=1) == scene.do(erase.count, Wanted("acme", number=NUMBER))
    assert Counts(sending=1) == scene.do(erase.erase, Wanted("acme", number=NUMBER))
    scene.world.settle("e1", one.claim, Failed(), endpoint=ENDPOINT, error="http_500")
    assert Counts(callbacks=1, messages=1) == scene.erase(number=NUMBER)
    assert [] == scene.has(NUMBER)


def kept_messages(scene: Scene, *uuids: str) -> set[str]:
    """Those of the messages that the archive has."""

    async def find(store: wiring.Store) -> set[str]:
        assert store.archive
        return {one.uuid for one in await store.archive.messages.get("acme", uuids)}

    return set(scene.do(find))


@pytest.mark.parametrize("by", ["number", "message", "workspace"])
def test_messages_of_the_archive(scene: Scene, by: str) -> None:
    """Messages that only the archive has are erased too, and are not put again."""

    async def put(store: wiring.Store) -> None:
        assert store.archive
        await store.archive.messages.put([message("m1", NUMBER[1:]), message("m2", OTHER)])

    scene.do(put)
    wanted = {"number": {"number": NUMBER}, "message": {"message": "m1"}, "workspace": {}}[by]
    assert Counts(archived_messages=2 if by == "workspace" else 1) == scene.erase(**wanted)
    scene.do(put)
    assert (set() if by == "workspace" else {"m2"}) == kept_messages(scene, "m1", "m2")


@pytest.mark.parametrize("wanted", [{"message": "m1"}, {"number": NUMBER}, {}])
def test_what_waits_for_the_archive(scene: Scene, wanted: dict[str, str]) -> None:
    """That the archive was to look at an erased message is forgotten too; another message's note stays."""
    scene.told("m1")
    due = scene.world.keys.status_due
    scene.world.call("zadd", due, {"acme m1": 1, "bluefin m1": 2})
    scene.erase(**wanted)
    assert [b"bluefin m1"] == scene.world.call("zrange", due, 0, -1)


@pytest.mark.parametrize("number", ["+233 20 000 0001", "00233-20-000-0001", "(233) 200000001"])
def test_number_in_another_writing(scene: Scene, number: str) -> None:
    """A message that only the archive has is found by its number, however that is written."""

    async def put(store: wiring.Store) -> None:
        assert store.archive
        await store.archive.messages.put([message("m1", number), message("m2", OTHER)])

    scene.do(put)
    assert Counts(archived_messages=1) == scene.erase(number=NUMBER)
    assert {"m2"} == kept_messages(scene, "m1", "m2")


def test_campaign_of_a_message_of_the_archive(scene: Scene) -> None:
    """The counts of a campaign stay in Redis when its messages go to the archive: one that is erased then leaves them too."""
    scene.told("m1", NUMBER, campaign_id="spring")
    scene.told("m2", OTHER, campaign_id="spring")
    record = scene.world.call("get", scene.world.keys.status("acme", "m1"))

    async def put(store: wiring.Store) -> None:
        assert store.archive
        await store.archive.messages.put([archived("acme", "m1", record, AT, "zeckta")])

    scene.do(put)
    scene.world.call("delete", scene.world.keys.status("acme", "m1"))
    assert Counts(archived_messages=1) == scene.erase(message="m1")
    assert [] == scene.has("m1")
    assert b"1" == scene.world.call("hget", scene.world.keys.status_campaign("acme", "spring"), "s")


def message(uuid: str, number: str) -> ArchivedMessage:
    """A message that was delivered."""
    record = b"d" + b"%013d%06d%04d" % (AT, 24, 0)
    step = message_record.arguments(change("DELIVERED", uuid, dest=number), "zeckta")
    return archived("acme", uuid, record + bytes(step[5]) + bytes(step[6]), AT, "zeckta")  # type: ignore[arg-type]


@pytest.mark.parametrize("broken", ["cancel", "erase", "unlist"])
def test_broken_off(scene: Scene, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """If Redis goes away in the middle, the same command finishes it later; what was done is in the trail."""
    scene.message("m1", NUMBER, campaign_id="spring")
    scene.message("m2", NUMBER, campaign_id="spring")
    whole, calls = getattr(Ledger, broken), []

    async def once(self: Ledger, *args: Any) -> Any:
        calls.append(args)
        if len(calls) > 1:
            raise RedisUnavailable("gone")
        return await whole(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, broken, once)
        with pytest.raises(RedisUnavailable):
            scene.do(erase.erase, Wanted("acme", number=NUMBER))
    assert "erase.phone" == scene.audited().what
    assert scene.has(NUMBER)
    scene.do(erase.erase, Wanted("acme", number=NUMBER))
    assert [] == scene.has(NUMBER)
    assert [] == scene.has("m1") + scene.has("m2")
    assert set() == scene.archived()
    messages = Messages(scene.world.client.execute_command, scene.world.keys)
    assert scene.world.run(messages.campaign("acme", "spring")) is None
