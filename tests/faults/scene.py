"""A stack with a recording receiver, a seed, and what is known of the run."""

import asyncio
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.acceptance.stack import CELERY, Stack, Worker, running_stack, wait_until
from tests.faults.checker import Counts, Recorder, check, pending
from tests.faults.ledgers import Ledgers

HOOKS = Path(__file__).parent / "hooks"


class Scene:
    """One run of one fault."""

    def __init__(
        self, stack: Stack, seed: int, *, short: bool, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self.stack = stack
        self.short = short
        self.tell = tell
        self.chance = random.Random(seed)
        self.recorder = Recorder()
        self.event_ids: list[tuple[str, str]] = []
        self.allowed = 0
        """POSTs that may be repeated: those in flight at each kill."""
        self.answer: Callable[[web.Request, int], Any] | None = None
        self.failure_rate = 0.0
        self.slowest = 0.0
        """Seconds an answer takes at most, by chance."""
        self.notes: list[str] = []
        self.cluster_client: Any = None
        """Where the ledgers are, if not on the stack's Redis."""
        stack.received = self.recorder.received
        stack.answer = self._answer
        stack._receiver._on_received = self.recorder.note

    async def _answer(self, request: web.Request, number: int) -> web.Response:
        self.recorder.begin(request)
        try:
            if self.answer:
                response: web.Response = await self.answer(request, number)
                return response
            await asyncio.sleep(self.chance.uniform(0, self.slowest))
            return web.Response(status=503 if self.chance.random() < self.failure_rate else 200)
        finally:
            self.recorder.end(request)

    def enqueue(self, count: int = 1, *, workspace: str = "acme", **fields: Any) -> list[str]:
        """Enqueues changes of new messages; their eventIds."""
        first = len(self.event_ids)
        made = self.stack.enqueue(count, first=first, workspace=workspace, **fields)
        self.event_ids += [(workspace, event_id) for event_id in made]
        return made

    def worker(
        self,
        fault: str = "",
        argument: str = "",
        *,
        ready: bool = True,
        output: int | None = None,
        **settings: str,
    ) -> Worker:
        """Starts a worker, with a fault built in if one is named; `output`: what it writes to in place of its log."""
        environment = {f"DISPATCHER_{name}": value for name, value in settings.items()}
        if fault:
            path = os.pathsep.join([str(HOOKS), *filter(None, [os.environ.get("PYTHONPATH")])])
            environment |= {"PYTHONPATH": path, "FAULT": fault, "FAULT_ARGUMENT": argument}
        several = self.stack.partitions > 1  # of which each worker leads some: their names differ
        command = (*CELERY, "-n", f"n{len(self.stack.workers)}@%h") if several else ()
        worker = self.stack.start_worker(*command, output=output, **environment)
        return worker.wait_ready() if ready else worker

    @property
    def ledgers(self) -> Ledgers:
        """What is in Redis."""
        return Ledgers(self.cluster_client or self.stack.redis, self.stack.partitions)

    def leased(self) -> int:
        """Callbacks in workers' hands now."""
        return self.ledgers.leased()

    def in_the_midst(self) -> None:
        """Waits until callbacks are in workers' hands, and for a moment more, so that what happens next meets them."""
        wait_until(self.leased, 60, "callbacks in workers' hands")
        time.sleep(self.chance.uniform(0, 0.05))

    def counted(self, seconds: float = 120) -> Counts:
        """Waits until everything has come to its end, and counts."""
        began = time.monotonic()

        def over() -> bool:
            return self.ledgers.queue_length() == 0 and pending(self.ledgers, self.event_ids) == 0

        wait_until(over, seconds, "everything to come to its end")
        took = time.monotonic() - began
        wait_until(lambda: not self.ledgers.scheduled(), 10, "nothing to be scheduled")
        counts = check(self.ledgers, self.event_ids, self.recorder)
        counts.seconds = took
        return counts


def play(
    fault: "Callable[[Scene], Counts]", folder: Path, seed: int, **options: Any
) -> "tuple[Counts, Scene]":
    """Runs one fault on a stack of its own."""
    with running_stack(folder) as stack:
        scene = Scene(stack, seed, **options)
        return fault(scene), scene
