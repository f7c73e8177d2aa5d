"""Connections to Redis that break leave nothing behind in a worker."""

import sys
from pathlib import Path

from tests.acceptance.stack import Stack, wait_until

COUNTING = """
import os
from celery import bootsteps
from tasks.app import app

class Count(bootsteps.StartStopStep):
    def start(self, consumer):
        consumer.hub.call_soon(lambda: os.write(1, b"callbacks %d\\n" % len(consumer.hub.on_tick)))

app.steps["consumer"].add(Count)
app.worker_main(["worker"])
"""
"""A worker that says how many callbacks its event loop has, each time it has connected."""


def test_callbacks_of_lost_connections_go(stack: Stack) -> None:
    """After three restarts of Redis, Celery's event loop has no more callbacks, the process no more descriptors."""
    worker = stack.start_worker(sys.executable, "-c", COUNTING)

    def said() -> list[str]:
        return [line for line in worker.log.splitlines() if line.startswith("callbacks")]

    def wait_connected(times: int) -> None:
        wait_until(lambda: len(said()) == times, what=f"connection {times}")

    def descriptors() -> int:
        return len(list(Path(f"/proc/{worker.process.pid}/fd").iterdir()))

    wait_connected(1)
    at_first = descriptors()
    for times in range(1, 4):
        wait_connected(times)
        stack.server.kill()
        stack.server.start()
    wait_connected(4)
    assert ["callbacks 1"] * 4 == said()
    wait_until(lambda: descriptors() <= at_first, what="as many descriptors as at first")
