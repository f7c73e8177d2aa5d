"""From one Redis to a cluster, whose node fails over and hands on slots meanwhile."""

from pathlib import Path

from dispatcher import Dispatcher
from tests.acceptance.stack import change, running_stack, wait_until
from tests.cluster.partitions import COUNT, SLOTS
from tests.cluster.servers import Cluster

WORKSPACES = ["acme", "bluefin", "crest", "delta", "ember", "fjord", "gusto", "harbor"]


def changes(status: str, first: int, count: int) -> list[dict[str, object]]:
    """A change of each of some messages of all workspaces."""
    return [
        change(number, workspace=name, status=status, eventId=f"{name}-{number}-{status}")
        for number in range(first, first + count)
        for name in WORKSPACES
    ]


def test_from_one_redis_to_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """All that is enqueued on either side, before and after, is delivered once; commands find what began on each."""
    with running_stack(tmp_path) as stack:
        for name in WORKSPACES:
            stack.add_workspace(name)
        worker = stack.start_worker().wait_ready()
        with Dispatcher.from_url(stack.server.url) as old:
            old.enqueue_many(changes("SENT", 0, 5))
            url = f"redis+cluster://{','.join(node.address for node in cluster.nodes)}"
            stack.environment |= {
                "DISPATCHER_REDIS_URL": url,
                "DISPATCHER_BROKER_URL": stack.server.url,
                "DISPATCHER_PARTITIONS": str(COUNT),
                "DISPATCHER_PREVIOUS_REDIS_URL": stack.server.url,
            }
            assert f"copied: {len(WORKSPACES)} workspaces" in stack.cli("grow").stdout
            assert 78 == worker.process.wait(20)
            new = stack.start_worker().wait_ready()
            cluster.fail_over(SLOTS[3])
            old.enqueue_many(changes("DELIVERED", 0, 5) + changes("SENT", 5, 5))
            wait_until(lambda: old.queued() == 0, what="the previous queue is empty")
        with Dispatcher.from_url(url, partitions=COUNT) as dispatcher:
            dispatcher.enqueue_many(changes("SENT", 0, 5) + changes("DELIVERED", 5, 5))
        ids = {str(one["eventId"]) for one in changes("SENT", 0, 10) + changes("DELIVERED", 0, 10)}
        wait_until(lambda: {one.event_id for one in stack.received} >= ids, 40, "all arrive")
        wait_until(lambda: stack.cli_json("stats")["now"]["waiting"] == 0, what="nothing waits")
        assert len(ids) == len(stack.received)
        for number in (0, 7):
            assert "delivered" == stack.event(f"acme-{number}-DELIVERED")["state"]
        assert 0 == new.terminate()
