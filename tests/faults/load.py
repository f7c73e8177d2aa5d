"""A producer that enqueues all the time, beside what a fault does; what was interrupted it enqueues again."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dispatcher import Dispatcher
from dispatcher.errors import EnqueueInterrupted
from tests.acceptance.stack import change
from tests.faults.checker import Counts, out_of_order
from tests.faults.scene import Scene

STATUSES = ("SUBMITTED", "SENT", "DELIVERED")
GIVE_UP_SECONDS = 60


class Producer(threading.Thread):
    """Every so often it enqueues a message of each of some workspaces, with all of its statuses."""

    def __init__(self, scene: Scene, workspaces: Sequence[str], every_seconds: float, at_once: int) -> None:
        super().__init__(name="producer")
        self.stopping = threading.Event()
        self.messages: list[list[tuple[str, str]]] = []
        """Workspace and eventId of each message's status changes, in their order."""
        self.error: Exception | None = None
        self._allowed: set[str] = set()
        self._scene = scene
        self._workspaces = workspaces
        self._every_seconds = every_seconds
        self._at_once = at_once

    def run(self) -> None:
        """Enqueues until it is stopped."""
        environment = self._scene.stack.environment
        try:
            with Dispatcher.from_url(
                environment["DISPATCHER_REDIS_URL"], partitions=self._scene.stack.partitions
            ) as dispatcher:
                while not self.stopping.wait(self._every_seconds):
                    batch = self._batch()
                    for first in range(0, len(batch), self._at_once):
                        self._enqueue(dispatcher, batch[first : first + self._at_once])
        except Exception as error:  # the main thread raises it
            self.error = error

    def _batch(self) -> list[dict[str, object]]:
        changes = []
        for name in self._workspaces:
            number = len(self.messages)
            message = {"uuid": f"{name}-{number}", "src": "ACME", "dest": "+233200000001"}
            ids = [f"{name}-{number}-{status.lower()}" for status in STATUSES]
            self.messages.append([(name, one) for one in ids])
            self._scene.event_ids += self.messages[-1]
            changes += [
                change(0, workspace=name, status=status, eventId=one, message=message)
                for status, one in zip(STATUSES, ids, strict=True)
            ]
        return changes

    def _enqueue(self, dispatcher: Dispatcher, changes: list[dict[str, object]]) -> None:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                dispatcher.enqueue_many(changes)
                return
            except EnqueueInterrupted:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
                self._allow_what_may_come_again(changes)

    def _allow_what_may_come_again(self, changes: list[dict[str, object]]) -> None:
        """What went out before a server lost it is new to the ledger when it is enqueued again."""
        received = {one.event_id for one in list(self._scene.recorder.received)}
        again = received.intersection(str(one["eventId"]) for one in changes) - self._allowed
        self._allowed |= again
        self._scene.allowed += len(again)


@contextmanager
def producing(
    scene: Scene, workspaces: Sequence[str], every_seconds: float, at_once: int = 500
) -> Iterator[Producer]:
    """Enqueues within `with`, so many status changes in one call. Raises what the producer raised."""
    producer = Producer(scene, workspaces, every_seconds, at_once)
    producer.start()
    try:
        yield producer
    finally:
        producer.stopping.set()
        producer.join()
    if producer.error:
        raise producer.error


def counted(scene: Scene, producer: Producer) -> Counts:
    """What became of all that was enqueued; with each message's first attempts in the order of its status changes."""
    counts = scene.counted(300)
    counts.problems += out_of_order(scene.ledgers, producer.messages, scene.recorder)
    counts.problems += [
        f"worker {place} has ended: {worker.process.returncode}"
        for place, worker in enumerate(scene.stack.workers)
        if worker.process.poll() not in (None, -9)
    ]
    return counts
