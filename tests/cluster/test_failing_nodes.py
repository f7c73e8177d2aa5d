"""A node that is killed, frozen or demoted: its own partitions pause until another has taken over, and no others do."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from redis.exceptions import RedisError

from dispatcher.errors import RedisUnavailable
from dispatcher.store import wire
from dispatcher.store.cluster import ClusterServers
from dispatcher.store.connection import translated
from tests.cluster.node import ClusterNode, wait
from tests.cluster.partitions import COUNT, KEYS, SLOTS, Partitions
from tests.cluster.servers import Cluster, frozen
from tests.world import callback

P = 5
"""The partition whose node fails."""


@pytest.fixture
def partitions(
    cluster: Cluster, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Partitions]:
    """For them two seconds without an answer are a time-out."""
    monkeypatch.setattr(wire, "SOCKET_TIMEOUT_SECONDS", 2.0)
    monkeypatch.setattr(wire, "WATCH_SECONDS", 0.1)
    servers = ClusterServers([f"{cluster.nodes[0].url}?socket_timeout=2&socket_connect_timeout=2"], KEYS)
    yield Partitions(servers, runner)
    runner.run(servers.aclose())


async def until_it_works(partitions: Partitions) -> list[str]:
    """Counts in the partition until that succeeds; the errors before."""
    errors: list[str] = []
    for _ in range(200):
        try:
            with translated(""):
                await partitions.count(P)
        except RedisUnavailable as error:
            errors.append(str(error))
        else:
            return errors
    raise AssertionError(errors)


async def others_go_on(
    partitions: Partitions, away: ClusterNode, end: "asyncio.Task[list[str]]"
) -> list[int]:
    """How often it counted, until the task ends, in each partition of other nodes: none may fail."""
    others = [number for number in range(COUNT) if partitions.servers.node(number).name != away.address]

    async def count(partition: int) -> int:
        counted = 0
        while not end.done():
            counted = await partitions.count(partition)
            await asyncio.sleep(0.01)
        return counted

    return await asyncio.gather(*map(count, others))


@pytest.mark.parametrize("fail", [ClusterNode.kill, ClusterNode.freeze], ids=["killed", "frozen"])
def test_node_away(partitions: Partitions, cluster: Cluster, fail: Callable[[ClusterNode], None]) -> None:
    """The partition works again once the replica has taken over, with what it held; all others work all the time."""
    for _ in range(3):
        world = partitions.world(P)
        world.accept(callback("e1"))
        for number in range(COUNT):
            partitions.run(partitions.count(number))
        old, new = cluster.holder(SLOTS[P]), cluster.replica(SLOTS[P])
        assert 1 == old.run("WAIT", 1, 5000)
        bystanders = [node for node in cluster.primaries() if node is not old]

        async def scene(old: ClusterNode = old) -> tuple[list[str], list[int]]:
            fail(old)
            again = asyncio.create_task(until_it_works(partitions))
            counted = await others_go_on(partitions, old, again)
            return await again, counted

        try:
            errors, counted = partitions.run(scene())
        except RedisError:
            cluster.taken_over(new)
            if all(node.is_primary for node in bystanders):
                raise
            cluster.heal()  # a busy machine took another node away as well: once more
        else:
            break
    else:
        pytest.fail("each time another node was away as well")
    assert (new.address, True) == (partitions.servers.node(P).name, new.is_primary)
    assert errors
    assert all(f"Redis at redis://{old.address}/0 (partition {P}) " in error for error in errors), errors
    assert (True, True) == (len(counted) >= COUNT // 2, min(counted) > 10)
    assert ["e1"] == world.deliver_all()


def test_callers_that_wait_less_than_a_time_out(partitions: Partitions, cluster: Cluster) -> None:
    """Who gives up on a silent node sooner than its calls fail, as forwarding and heartbeats do, finds the new primary too."""
    partitions.run(partitions.count(P))
    old, new = cluster.holder(SLOTS[P]), cluster.replica(SLOTS[P])
    assert 1 == old.run("WAIT", 1, 5000)

    async def until_it_answers() -> int:
        for _ in range(50):
            with suppress(TimeoutError, RedisError, RedisUnavailable):
                async with asyncio.timeout(0.2):
                    return await partitions.count(P)
        raise AssertionError("it goes on asking the old primary")

    with frozen(old):
        cluster.taken_over(new)
        assert 2 == partitions.run(until_it_answers())


def test_comes_back_as_a_replica(partitions: Partitions, cluster: Cluster) -> None:
    """Work goes on across a second fail-over, back to the node that was killed first."""
    partitions.run(partitions.count(P))
    old, new = cluster.holder(SLOTS[P]), cluster.replica(SLOTS[P])
    old.kill()
    cluster.taken_over(new)
    partitions.run(until_it_works(partitions))
    old.start()
    old.wait()
    cluster.settle()
    assert old is cluster.fail_over(SLOTS[P])
    assert 3 == partitions.run(partitions.count(P))
    assert old.address == partitions.servers.node(P).name


@pytest.mark.parametrize("how", [(), ("FORCE",)], ids=["in agreement", "by force"])
def test_fail_over_by_hand(of_either: Partitions, either: Cluster, how: tuple[str, ...]) -> None:
    """A fail-over that an operator asks for goes unnoticed: the old primary says MOVED."""
    of_either.run(of_either.count(P))
    assert 1 == either.holder(SLOTS[P]).run("WAIT", 1, 5000)
    new = either.fail_over(SLOTS[P], *how)
    wait(lambda: either.holder(SLOTS[P]) is new, "the old primary knows")
    either.settle()
    assert 2 == of_either.run(of_either.count(P))


def test_no_other_node_left_to_ask(partitions: Partitions, cluster: Cluster) -> None:
    """If all nodes are frozen, each call says so in one line; when they go on, so do the partitions."""
    partitions.run(partitions.count(P))
    for node in cluster.nodes:
        node.freeze()

    async def scene() -> list[BaseException | int]:
        first = await asyncio.gather(*map(partitions.count, range(COUNT)), return_exceptions=True)
        return first + await asyncio.gather(*map(partitions.count, range(COUNT)), return_exceptions=True)

    found = partitions.run(scene())
    for node in cluster.nodes:
        node.thaw()
    assert 2 * COUNT == len([one for one in found if isinstance(one, Exception)])
    assert {f"None of {len(cluster.nodes)} nodes says which node of the cluster holds what."} == {
        str(one).partition(". ")[0] + "." for one in found[COUNT:]
    }
    cluster.settle()
    partitions.run(until_it_works(partitions))


def test_one_connection_to_each_node(partitions: Partitions, cluster: Cluster) -> None:
    """However many partitions a node holds, their scripts share one connection."""

    async def scene() -> None:
        await asyncio.gather(*(partitions.count(number) for number in range(COUNT) for _ in range(5)))

    partitions.run(scene())
    for node in cluster.primaries():
        mine = [c for c in node.client.client_list(_type="normal") if c["cmd"] == "eval"]
        assert 1 == len(mine)
