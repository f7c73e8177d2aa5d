"""What `dispatcher check` says of the nodes of a cluster."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dispatcher.rules.partitions import slot_of
from tests.cluster.servers import Cluster
from tests.command import command

P = 8


def checked(
    cluster: Cluster, login: str = "", broker: str = "redis://127.0.0.1:1/0"
) -> "list[dict[str, Any]]":
    """What `check --json` finds; the broker is none that could be reached, if none is given."""
    hosts = ",".join(node.address for node in cluster.nodes[:2])
    done = command(
        f"redis+cluster://{login}{hosts}",
        "check",
        "--json",
        PARTITIONS=str(P),
        BROKER_URL=broker,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def of(subject: str, found: "Sequence[dict[str, Any]]") -> "list[dict[str, Any]]":
    """The findings of a subject."""
    return [one for one in found if one["subject"] == subject]


def verdicts(subject: str, found: "Sequence[dict[str, Any]]") -> "dict[str, int]":
    """How often it has which verdict."""
    return dict(Counter(one["verdict"] for one in of(subject, found)))


def test_valkey_9(cluster: Cluster) -> None:
    """Nothing is wrong with slots of Valkey 9 and nodes that do not need each other; each finding names its node."""
    found = checked(cluster)
    assert ({"ok": 3}, {"ok": 3}) == (verdicts("slots", found), verdicts("coverage", found))
    assert {node.address for node in cluster.primaries()} == {
        one["detail"].partition(": ")[0].removeprefix("redis://").removesuffix("/0")
        for one in of("slots", found)
    }
    assert all("Valkey 9." in one["detail"] for one in of("slots", found) + of("version", found))


def test_a_broker_that_is_a_node(either: Cluster) -> None:
    """A node of a cluster can be reached, and is no broker all the same."""
    [found] = of("celery", checked(either, broker=either.nodes[0].url))
    assert "bad" == found["verdict"]
    assert "a node of a cluster" in found["detail"]


def test_redis_6(redis_6: Cluster) -> None:
    """Redis 6.2 moves slots key by key: a warning of each node, which says what would not."""
    redis_6.heal()
    found = checked(redis_6)
    assert {"warning": 3} == verdicts("slots", found)
    assert all("Valkey 9" in one["advice"] for one in of("slots", found))
    assert {"ok": 3} == verdicts("coverage", found)


def test_a_producer_that_was_not_told_of_partitions(cluster: Cluster) -> None:
    """What it put on the queue of an installation with one is counted: nobody reads it."""
    assert [] == of("unread queue", checked(cluster))
    node = cluster.holder(slot_of("dispatcher:events"))
    for _ in range(2):
        node.run("XADD", "dispatcher:events", "*", "event", "{}")
    [found] = of("unread queue", checked(cluster))
    assert "bad" == found["verdict"]
    assert found["detail"].startswith("2 ")


def test_full_coverage(cluster: Cluster) -> None:
    """A node that refuses everything while another is away is a warning."""
    node = cluster.primaries()[0]
    node.run("CONFIG", "SET", "cluster-require-full-coverage", "yes")
    try:
        found = checked(cluster)
    finally:
        node.run("CONFIG", "SET", "cluster-require-full-coverage", "no")
    assert {"ok": 2, "warning": 1} == verdicts("coverage", found)
    [warning] = [one for one in of("coverage", found) if one["verdict"] == "warning"]
    assert node.address in warning["detail"]
    assert "set cluster-require-full-coverage no on every node" == warning["advice"]


def test_where_one_may_not_ask(cluster: Cluster) -> None:
    """A user who may not read the configuration is told that one of the two is not known."""
    rights = ("reset", "on", ">hush", "~*", "&*", "+@all", "-config")
    for node in cluster.nodes:
        node.run("ACL", "SETUSER", "operator", *rights)
    try:
        found = checked(cluster, login="operator:hush@")
    finally:
        for node in cluster.nodes:
            node.run("ACL", "DELUSER", "operator")
    assert ({"ok": 3}, {"unknown": 3}) == (verdicts("slots", found), verdicts("coverage", found))


def test_the_node_of_the_unread_queue_is_away(cluster: Cluster) -> None:
    """The others are checked all the same, and `stats` counts what they have; it is said that this queue cannot be seen."""
    slot = slot_of("dispatcher:events")
    away = [cluster.holder(slot), cluster.replica(slot)]
    for one in away:
        one.freeze()
    left = [one for one in cluster.nodes if one not in away]
    url = f"redis+cluster://{left[0].address},{left[1].address}"
    done = command(url, "check", "--json", PARTITIONS=str(P), BROKER_URL="redis://127.0.0.1:1/0")
    [found] = of("unread queue", json.loads(done.stdout))
    assert ("unknown", True) == (found["verdict"], "cannot be seen: " in found["detail"])
    [partitions] = of("partitions", json.loads(done.stdout))
    assert "bad" == partitions["verdict"]
    stats = command(url, "stats", "--json", PARTITIONS=str(P), BROKER_URL="redis://127.0.0.1:1/0")
    assert {"count": None, "oldestAt": None} == json.loads(stats.stdout)["partitions"]["unread"], stats
    assert (1, True) == (stats.returncode, "partitions did not answer" in stats.stderr)
