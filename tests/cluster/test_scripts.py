"""The ledger's scripts on a cluster."""

from dispatcher.rules.outcomes import Delivered, EndpointHealth, Retry
from tests.cluster.partitions import COUNT, KEYS, SLOTS, Partitions
from tests.cluster.servers import Cluster
from tests.leaks import leaked_keys
from tests.world import callback


def test_ledger(of_either: Partitions) -> None:
    """A callback is accepted, tried in vain, tried again and delivered in partitions of each node, and leaves no key behind."""
    for partition in range(0, COUNT, 3):
        world = of_either.world(partition)
        assert ["accepted"] == world.accept(callback("e1"))[1]
        [one] = world.claim().callbacks
        world.settle("e1", one.claim, Retry(1000), health=EndpointHealth.UP)
        world.now += 1001
        [one] = world.claim().callbacks
        assert (False, True) == world.settle("e1", one.claim, Delivered(), health=EndpointHealth.UP)
        assert ("delivered", 2) == (world.event("e1").state, len(world.event("e1").attempts))
        assert ["duplicate"] == world.accept(callback("e1"))[1]
        assert [] == leaked_keys(world)
    assert 3 == len({of_either.servers.node(one) for one in range(COUNT)})


def test_functions_of_each_node(partitions: Partitions, cluster: Cluster) -> None:
    """Each node gets the library of functions when the first partition there needs it; its replica has it too."""
    for node in cluster.primaries():
        node.run("FUNCTION", "FLUSH")
    for partition in range(COUNT):
        partitions.world(partition).claim()
    assert [1] * 3 == [len(node.run("FUNCTION", "LIST")) for node in cluster.primaries()]


def test_keys_of_a_partition_stay_on_its_node(partitions: Partitions, cluster: Cluster) -> None:
    """All keys that the scripts write for a partition lie in its slot."""
    world = partitions.world(5)
    world.accept(callback("e1"), callback("e2", message="m2"), claim=1)
    keys = [(node, key) for node in cluster.primaries() for key in node.run("KEYS", "*")]
    assert len(keys) > 8
    assert {(cluster.holder(SLOTS[5]), True)} == {(node, key.startswith(KEYS[5].root)) for node, key in keys}
