"""Redis retires what the archive has: a fingerprint stays, by which a repeated eventId is known. On a real Redis."""

import hashlib
import json

import pytest
from msgspec.structs import replace

from dispatcher.errors import NotLeader, OtherFormat, OtherSettings
from dispatcher.model import StatusChange
from dispatcher.rules.callback import Callback
from dispatcher.rules.outcomes import Delivered, Failed
from dispatcher.store.arguments import NOT_ARCHIVED, WITH_ARCHIVE
from dispatcher.store.fingerprints import fingerprint_of, look_ups, read_tables
from dispatcher.store.format import FORMATS, require_format, require_known
from dispatcher.store.known_messages import KnownMessages
from tests.archive.retiring_scene import WEEK_MS, Scene
from tests.world import TOKEN, World, callback


def test_what_is_left(scene: Scene) -> None:
    """Of a callback that was delivered, and of one that failed, one fingerprint each; of their endpoint its record and counters."""
    scene.end(callback("d1", message="a"))
    scene.end(callback("f1", message="b"), outcome=Failed())
    scene.call("set", scene.keys.answer("acme", "f1"), "no")
    body = scene.keys.body("acme", "d1").encode()
    assert 2 == scene.retire("d1", "f1")
    named = {key for key in scene.call("keys", "*") if b"d1" in key or b"f1" in key or b"message" in key}
    assert {body} == named  # it stays for as long as the setting says
    assert [] == scene.call("zrange", scene.keys.ended("acme", "failed"), 0, -1)
    assert 2 == sum(scene.call("scard", key) for key in scene.buckets())
    assert {1: (64, 2)} == scene.tables()


def test_others_of_a_message(scene: Scene) -> None:
    """What still waits stays in its message's list."""
    scene.end(callback("e1"))
    scene.accept(callback("e2"))
    assert 1 == scene.retire("e1")
    assert b"e2" == scene.call("get", scene.keys.message("acme", "m1"))
    assert ["accepted"] == scene.accept(callback("e3"))[1]
    assert ["e2"] == [one.event_id for one in scene.claim().callbacks]  # e3 waits behind it


def test_what_is_not_retired(scene: Scene) -> None:
    """One that is another now, waits, or is gone; and by whom has not the lease, or in data that others may not know."""
    scene.end(callback("e1", message="a"), outcome=Failed())
    text = scene.entry("e1")
    assert text
    assert "replayed" == scene.run(scene.ledger.replay("acme", "e1"))
    scene.accept(callback("e2", message="b"))
    told = [(("acme", "e1"), text), (("acme", "e2"), scene.entry("e2") or b""), (("acme", "e3"), text)]
    assert 0 == scene.run(scene.ledger.retire(TOKEN, told, ()))
    assert scene.entry("e1")
    assert scene.entry("e2")
    with pytest.raises(NotLeader):
        scene.retire("e1", token="other")
    scene.call("set", scene.keys.format, WITH_ARCHIVE - 1)
    assert scene.retire("e1") is None
    assert [] == scene.buckets()


def test_a_damaged_entry_holds_up_no_other(scene: Scene) -> None:
    """Its key has another type; the others are retired."""
    scene.end(callback("e1", message="a"), callback("e2", message="b"))
    text = scene.entry("e1")
    scene.call("delete", scene.keys.event("acme", "e1"))
    scene.call("rpush", scene.keys.event("acme", "e1"), "x")
    told = [(("acme", "e1"), text or b""), (("acme", "e2"), scene.entry("e2") or b"")]
    assert 1 == scene.run(scene.ledger.retire(TOKEN, told, ()))


@pytest.mark.parametrize(
    ("said", "word"), [("d", "duplicate"), ("other", "conflict"), (NOT_ARCHIVED, "accepted")]
)
def test_a_repeated_event(scene: Scene, said: str, word: str) -> None:
    """It stays on the queue until the archive has said what it knows; then it is what it was before, or new."""
    scene.end(callback("e1"))
    scene.retire("e1")
    [entry] = scene.enqueued(1)
    assert ["retired"] == scene.accept(callback("e1"), entries=[entry])[1]
    assert 1 == scene.call("xlen", scene.keys.events)
    assert [word] == scene.accept(callback("e1"), entries=[entry], archived={"e1": said})[1]
    assert 0 == scene.call("xlen", scene.keys.events)
    assert (word == "conflict") == bool(scene.call("xlen", scene.keys.rejected))
    assert (word == "accepted") == bool(scene.entry("e1"))


def test_others_of_the_batch_go_on(scene: Scene) -> None:
    """Those before and behind it, also of its message and endpoint."""
    scene.end(callback("e1"))
    scene.retire("e1")
    words = scene.accept(callback("e0", message="n"), callback("e1"), callback("e2"))[1]
    assert ["accepted", "retired", "accepted"] == words
    assert {"e0", "e2"} == {one.event_id for one in scene.claim().callbacks}


def fan_out(subscription: str | None = None) -> list[Callback]:
    """The callbacks of one status change: for a subscription, if there is one, and then its own."""
    own = callback("e1")
    if subscription is None:
        return [own]
    other = callback(f"e1.{subscription}", endpoint=f"acme.{subscription} https://b.example:443")
    return [replace(other, workspace="acme"), own]


@pytest.mark.parametrize("before", ["billing", None])
def test_a_repeated_event_with_subscriptions(scene: Scene, before: str | None) -> None:
    """A status change that is known by its own callback causes none for a subscription that was added since."""
    first = fan_out(before)
    entry = scene.enqueued(1) * len(first)
    scene.accept(*first, entries=entry)
    for name in {one.endpoint for one in first}:
        for one in scene.claim(name).callbacks:
            scene.settle(one.event_id, one.claim, Delivered(), endpoint=name)
    assert len(first) == scene.retire(*(one.event_id for one in first))
    again = fan_out("billing")
    entry = scene.enqueued(1) * 2
    assert ["retired"] == scene.accept(*again, entries=entry)[1]
    assert 1 == scene.call("xlen", scene.keys.events)
    said = {"e1": "d", "e1.billing": "d" if before else NOT_ARCHIVED}
    assert ["duplicate"] == scene.accept(*again, entries=entry, archived=said)[1]
    assert scene.entry("e1.billing") is None
    assert 0 == scene.call("xlen", scene.keys.events)


def test_sets_of_numbers(scene: Scene) -> None:
    """However many are retired, no set becomes a hash table, which takes seven times the memory: then a new table begins."""
    ids = scene.made_up(40_000)
    tables = scene.tables()
    assert [1, 2] == sorted(tables)
    assert tables[2][0] == 8 * tables[1][0]
    assert 40_000 == sum(count for _, count in tables.values())
    pipe = scene.client.pipeline(transaction=False)
    for key in scene.buckets():
        pipe.object("encoding", key)
    assert {b"intset"} == set(scene.run(pipe.execute()))
    assert ["retired"] * 2 == scene.accept(callback(ids[0]), callback(ids[-1], message="n"))[1]


def test_as_many_buckets_as_the_time_before_needed(scene: Scene) -> None:
    """A quarter of the retention later a table begins, for what came in the one before; then for less."""
    scene.made_up(14_000)
    scene.now += WEEK_MS // 8
    scene.made_up(1, 50_000)
    scene.now += WEEK_MS // 8
    scene.made_up(500, 60_000)
    assert {1: (64, 14_001), 2: (73, 500)} == scene.tables()
    scene.now += WEEK_MS // 4
    scene.made_up(1, 70_000)
    assert (64, 1) == scene.tables()[3]


def test_life(scene: Scene) -> None:
    """A fingerprint is known for the retention, and then forgotten with its table; each set has that as its time to live."""
    scene.end(callback("e1"))
    scene.retire("e1")
    scene.call("delete", *scene.buckets(), scene.keys.fingerprints)
    scene.now = int(scene.call("time")[0]) * 1000  # Redis's own clock: what has a time to live is to be there
    scene.call("delete", scene.keys.intake)
    scene.lead()
    scene.made_up(3)
    for key in [*scene.buckets(), scene.keys.fingerprints]:
        assert WEEK_MS < scene.call("pttl", key) <= WEEK_MS + WEEK_MS // 4
    scene.now += WEEK_MS
    assert ["retired"] == scene.accept(callback("x1"))[1]
    scene.made_up(1, 100)
    scene.now += WEEK_MS // 4 + 1
    assert ["accepted"] == scene.accept(callback("x1"))[1]
    scene.made_up(1, 200)
    assert [2, 3] == sorted(scene.tables())


def test_restored(scene: Scene) -> None:
    """A callback that is put back to be replayed is known by its entry, and retired again when it has ended."""
    scene.end(callback("e1"), outcome=Failed())
    text = scene.entry("e1")
    scene.retire("e1")
    scene.call("set", scene.keys.event("acme", "e1"), text)
    assert ["duplicate"] == scene.accept(callback("e1"))[1]
    assert 1 == scene.retire("e1")
    assert {1: (64, 1)} == scene.tables()


def test_as_the_script(scene: Scene) -> None:
    """Python finds a fingerprint where the script has put it."""
    scene.end(callback("é1", message="a"))
    scene.retire("é1")
    spread, fingerprint = fingerprint_of("acme", "é1")
    assert fingerprint < 2**52
    assert hashlib.sha1("acme é1".encode()).hexdigest()[:8] == f"{spread:08x}"
    [table] = read_tables(scene.call("hgetall", scene.keys.fingerprints))
    [command] = look_ups(scene.keys, [table], "acme", "é1")
    assert 1 == scene.run(scene.client.execute_command(*command))


def test_asked_by_another_partition(scene: Scene) -> None:
    """A partition knows the eventIds that it has retired: a message that began there stays there."""
    scene.end(callback("e1"))
    scene.retire("e1")
    assert scene.wire
    known = KnownMessages(scene.wire, scene.keys)
    asked = [
        StatusChange(
            event_id=id_,
            workspace="acme",
            status="SENT",
            timestamp="2026-06-09T13:04:57Z",
            message={"uuid": f"of-{id_}", "src": "ACME", "dest": "+233200000001"},
        )
        for id_ in ("e1", "e2")
    ]
    assert [True, False] == scene.run(known.known(asked))


def test_a_worker_without_an_archive(scene: Scene) -> None:
    """It gets no lease: it would accept again what it does not know."""
    plain = World(scene.client, scene.wire, runner=scene._runner)
    scene.call("delete", scene.keys.intake)
    assert plain.lead("plain") is None
    scene.call("set", scene.keys.format, WITH_ARCHIVE - 1)
    assert plain.lead("plain") is not None


def test_while_an_earlier_version_works(scene: Scene) -> None:
    """Nothing may be retired while a worker is alive that does not know fingerprints; the line names it."""
    scene.call("set", scene.keys.format, WITH_ARCHIVE - 1)
    for name, formats in {
        "new@host/1": FORMATS,
        "old@host/2": FORMATS[: FORMATS.index(WITH_ARCHIVE)],
    }.items():
        scene.run(scene.ledger.wake(1, name, json.dumps({"format": FORMATS[0], "formats": formats})))
    with pytest.raises(
        OtherFormat, match=r"^worker old@host/2 is of a version that does not know archives.*docs/archive.md"
    ):
        scene.run(require_known(scene.installation, WITH_ARCHIVE))
    scene.run(scene.ledger.leave("old@host/2"))
    scene.run(require_known(scene.installation, WITH_ARCHIVE))
    assert str(WITH_ARCHIVE) == scene.run(scene.installation.format())
    with pytest.raises(OtherSettings, match="set DISPATCHER_ARCHIVE_URL"):
        require_format(str(WITH_ARCHIVE), archives=False)
    require_format(str(WITH_ARCHIVE), archives=True)
