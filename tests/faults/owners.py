"""Faults of who leads a partition: an owner that dies, one that stalls, and two that both think they do."""

import json
import signal
import time
from pathlib import Path

from dispatcher.rules.partitions import Partitioning
from dispatcher.store.members import partitions_of
from tests.acceptance.stack import Worker, wait_until
from tests.faults.catalogue import fault, in_flight
from tests.faults.checker import Counts
from tests.faults.load import counted, producing
from tests.faults.scene import Scene

COUNT = 16
WORKSPACES = ("acme", "bluefin", "crest", "delta", "ember", "fjord")
STALL_SECONDS = 10.0


def divided(scene: Scene) -> None:
    """Makes 16 partitions of the stack's Redis, and the workspaces."""
    scene.stack.environment["DISPATCHER_PARTITIONS"] = str(COUNT)
    for name in WORKSPACES:
        scene.stack.add_workspace(name)


def owned(scene: Scene, *workers: Worker) -> None:
    """Waits until the workers are ready, each leads some partition, and all are led."""
    for worker in workers:
        worker.wait_ready()
    wait_until(lambda: scene.ledgers.owned() and all(_owns(scene, one) for one in workers), 30, "owners")


def _owns(scene: Scene, worker: Worker) -> frozenset[int]:
    """The partitions that a worker leads, as its heartbeat says."""
    client = scene.stack.redis
    found = [json.loads(client.get(key) or "{}") for key in client.scan_iter("dispatcher:{*}:worker:*")]
    owns = [partitions_of(one["owns"]) for one in found if one.get("pid") == worker.process.pid]
    return frozenset().union(*owns)


def _owner(scene: Scene, workers: list[Worker], workspace: str) -> int:
    """The place of the worker that leads a workspace's partition."""
    home = Partitioning(COUNT).home(workspace)
    found = wait_until(
        lambda: [place for place, one in enumerate(workers) if home in _owns(scene, one)], 30, "its owner"
    )
    return int(found[0])


def _seconds_until_served(scene: Scene, workspace: str, name: str) -> float:
    """How long a new status change of a workspace waits until it is POSTed."""
    began = time.monotonic()
    scene.enqueue(1, workspace=workspace, eventId=name, message={"uuid": name, "src": "A", "dest": "+1"})
    wait_until(lambda: any(one.event_id == name for one in scene.recorder.received), 30, "it to be POSTed")
    return time.monotonic() - began


@fault(
    36,
    "The owner of partitions is killed: another leads them within 6 s (the time shown), nothing is lost, order is kept.",
    duplicates=in_flight,
)
def partition_owner_killed(scene: Scene) -> Counts:
    scene.slowest = 0.3
    divided(scene)
    workers = [scene.worker(ready=False), scene.worker(ready=False)]
    longest = 0.0
    with producing(scene, WORKSPACES, 0.2) as producer:
        for turn in range(2 if scene.short else 10):
            owned(scene, *workers)
            workspace = scene.chance.choice(WORKSPACES)
            victim = _owner(scene, workers, workspace)
            scene.in_the_midst()
            workers[victim].kill()
            scene.allowed += scene.leased()
            longest = max(longest, _seconds_until_served(scene, workspace, f"after-{turn}"))
            workers[victim] = scene.worker(ready=False)
    counts = counted(scene, producer)
    counts.seconds = longest
    return counts


@fault(
    36,
    "The owner stalls for 10 s just before it accepts, and goes on: another leads within 6 s (the time shown), the late accept is "
    "refused, nothing is accepted twice or lost.",
    duplicates=in_flight,
)
def partition_owner_stalled(scene: Scene) -> Counts:
    scene.slowest = 0.3
    divided(scene)
    first = scene.worker("before_accept", "stalls", ready=False)
    owned(scene, first)
    second = scene.worker(ready=False)
    owned(scene, first, second)
    workspace = next(one for one in WORKSPACES if Partitioning(COUNT).home(one) in _owns(scene, first))
    with producing(scene, WORKSPACES, 0.2) as producer:
        scene.in_the_midst()
        began = time.monotonic()
        scene.enqueue(
            1, workspace=workspace, eventId="stalls", message={"uuid": "stalls", "src": "A", "dest": "+1"}
        )
        wait_until(lambda: _is_stopped(first), 30, "it to stall")
        scene.allowed += scene.leased()
        took = _seconds_until_served(scene, workspace, "after")
        time.sleep(max(0.0, began + STALL_SECONDS - time.monotonic()))
        first.process.send_signal(signal.SIGCONT)
        wait_until(lambda: first.lines("fault.accept_refused"), 30, "the late accept to be refused")
    counts = counted(scene, producer)
    counts.seconds = took
    posts = sum(one.event_id == "stalls" for one in scene.recorder.received)
    counts.problems += [f"{posts} POSTs of what was accepted late"] * (posts != 1)
    return counts


def _is_stopped(worker: Worker) -> bool:
    return Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@fault(
    36,
    "Two workers think that they own the same partitions, and leases vanish again and again: accepts of the one that "
    "lost its lease are refused, nothing is repeated or lost, first attempts are in order.",
)
def two_owners(scene: Scene) -> Counts:
    scene.slowest = 0.1
    divided(scene)
    workers = [scene.worker("alone", ready=False), scene.worker("alone", ready=False)]
    for worker in workers:
        worker.wait_ready()
    wait_until(scene.ledgers.owned, 30, "owners")
    with producing(scene, WORKSPACES, 0.02, at_once=1) as producer:
        for _ in range(40 if scene.short else 200):
            time.sleep(0.2)
            scene.stack.redis.delete(scene.ledgers.keys_for(scene.chance.choice(WORKSPACES)).intake)
    counts = counted(scene, producer)
    refused = sum(len(worker.lines("fault.accept_refused")) for worker in workers)
    counts.problems += ["no accept of an owner that had lost its lease was refused"] * (not refused)
    return counts
