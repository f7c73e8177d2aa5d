"""What a version of another format wrote is brought to this one, or refused in one line; two never write side by side."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from dispatcher.errors import OtherFormat
from dispatcher.rules.outcomes import Retry
from dispatcher.store.format import FORMAT, FORMATS, agree, require_format
from tests.world import World, callback

FORMAT_1 = Path(__file__).parent / "data" / "format-1.json"
"""What a worker of format 1 left: callbacks that wait, retry, are leased or delivered, by the commands that make them."""
A, B = "acme https://a.example:443", "beta https://b.example:443"
KNOWN = {"waits": A, "behind": A, "done": A, "gone": A, "retries": B, "hands": B}


def load_format_1(world: World) -> None:
    """Puts it into Redis."""
    load(world, FORMAT_1)


def load(world: World, data: Path) -> None:
    """Puts into Redis what a version left: the commands that make it, with the ms that each key lives (-1: for ever)."""
    for command, key, content, ttl in json.loads(data.read_text()):
        match command:
            case "SET":
                world.call("set", key, b64decode(content))
            case "HSET":
                world.call("hset", key, mapping=content)
            case "ZADD":
                world.call("zadd", key, dict(content))
            case "RPUSH":
                world.call("rpush", key, *content)
            case "SADD":
                world.call("sadd", key, *content)
        if ttl > 0:
            world.call("pexpire", key, ttl)


async def nobody() -> dict[str, Any]:
    """No worker is alive."""
    return {}


def migrate(world: World) -> None:
    """As a worker does at its start."""
    world.run(agree(world.ledger, world.run(world.installation.format()), nobody))


def test_data_of_format_1_is_taken_over(world: World) -> None:
    """Callbacks that the commit before had accepted come to their ends, in their order, and are known when they come again."""
    load_format_1(world)
    migrate(world)
    assert str(FORMAT) == world.run(world.installation.format())
    assert [b"acme", b"beta"] == world.call("zrange", world.keys.schedule, 0, -1)
    word = world.accept(callback("done", message="m2", digest="CCCCCCCC" + "x" * 8))[1]
    other = world.accept(callback("done", message="m2", digest="CCCCCCCD" + "x" * 8))[1]
    assert (["duplicate"], ["conflict"]) == (word, other)
    delivered: list[str] = []
    for _ in range(4):
        world.now += world.ledger.options.lease_ms + 61_000
        for lost in world.run(world.ledger.wake()).lost:
            world.settle(
                lost.event_id,
                lost.claim,
                Retry(0),
                endpoint=lost.endpoint_name,
                error="worker_lost",
                losses=1,
            )
        delivered += world.deliver_all(A, B)
    assert {"waits", "behind", "gone", "retries", "hands"} == set(delivered)
    assert delivered.index("waits") < delivered.index("behind")
    assert all(world.event(event_id, name.split()[0]).ended for event_id, name in KNOWN.items())
    assert [0, 0] == [world.call("zcard", key) for key in (world.keys.schedule, world.keys.expiries)]


def test_migration_that_breaks_off_is_done_by_the_next(world: World) -> None:
    """Some endpoints at a time are moved; the number is there only when all are."""
    load_format_1(world)
    left, found = world.run(world.ledger.migrate(1, FORMAT))
    assert (1, "", "") == (left, found, world.run(world.installation.format()))
    migrate(world)
    for workspace in ("acme", "beta"):
        assert 1 == world.call("zcard", world.keys.schedule_of(workspace))
    assert 0 == world.call("exists", f"{world.keys.root}schedule-1")


def test_nothing_there_is_this_format(world: World) -> None:
    """An empty Redis gets the number, once."""
    migrate(world)
    migrate(world)
    assert str(FORMAT) == world.run(world.installation.format())


@pytest.mark.parametrize("number", ["1", str(FORMATS[-1] + 1)])
def test_another_format_is_refused(world: World, number: str) -> None:
    """Data of a format that this version does not write is left as it is, and the line says what to do."""
    world.call("set", world.keys.format, number)
    with pytest.raises(OtherFormat, match=f"format {number}.*one version at a time") as caught:
        migrate(world)
    assert 1 == len(str(caught.value).splitlines())
    assert number == world.run(world.installation.format())


def test_older_worker_alive(world: World) -> None:
    """While a worker of the version before is alive nothing is changed, and the line names it."""
    load_format_1(world)
    before = world.call("zrange", world.keys.schedule, 0, -1)

    async def older() -> dict[str, Any]:
        return {"old@host/1": {"pid": 1}, "new@host/2": {"format": FORMAT}}

    with pytest.raises(OtherFormat, match="old@host/1"):
        world.run(agree(world.ledger, "", older))
    assert (before, "") == (
        world.call("zrange", world.keys.schedule, 0, -1),
        world.run(world.installation.format()),
    )


def test_running_worker_meets_another_format(world: World) -> None:
    """A worker that finds another number than its own at a wake stops: it is told by each wake."""
    world.call("set", world.keys.format, FORMATS[-1] + 1)
    with pytest.raises(OtherFormat):
        require_format(world.run(world.ledger.wake()).format)


def test_number_that_is_lost(world: World) -> None:
    """Where somebody emptied Redis under running workers, or the number could not be written, no schedule is harmed."""
    world.accept(callback("e1"))
    before = world.call("zrange", world.keys.schedule, 0, -1, withscores=True)
    migrate(world)
    world.call("delete", world.keys.format)
    migrate(world)
    assert before == world.call("zrange", world.keys.schedule, 0, -1, withscores=True)
    assert ["e1"] == world.deliver_all()


@pytest.mark.parametrize("name", ["format", "count"])
@pytest.mark.parametrize("value", [b"\xff\xfe", b"two", b"2 grown", b"-1", ["1"]], ids=str)
def test_written_over(world: World, name: str, value: bytes | list[str]) -> None:
    """What somebody wrote over the format or the number of partitions is refused in one line that names the key."""
    world.call("delete", world.keys.format)
    key = getattr(world.keys, name)
    world.call(
        "rpush" if isinstance(value, list) else "set", key, *([value] if isinstance(value, bytes) else value)
    )
    with pytest.raises(
        OtherFormat, match=f"^the key {key} was written over: it holds .*A key was written over by hand"
    ):
        world.run(world.installation.format())
    world.call("delete", key)
