"""What a worker says of itself each second, and how busy it is."""

import json
import os
import time
from collections import deque
from typing import Any

from dispatcher.model import iso
from dispatcher.store.format import FORMAT, FORMATS
from dispatcher.worker.load import Load
from dispatcher.worker.metrics import Metrics
from dispatcher.worker.slots import Slots
from dispatcher.worker.turns import Turns

HEARTBEAT_SECONDS = 1.0
PROBES = 20
"""Most probes of `check --live` that a heartbeat names, the latest ones."""


class Heartbeat:
    """One worker's heartbeat; whoever writes it to Redis asks for its text."""

    def __init__(
        self, name: str, turns: Turns, slots: Slots, load: Load, metrics: Metrics | None = None
    ) -> None:
        self.name = name
        self.load = load
        self._turns = turns
        self._slots = slots
        self._metrics = metrics or Metrics()
        self._started_ms = round(time.time() * 1000)
        self._next = 0.0
        self._probes: deque[str] = deque(maxlen=PROBES)

    def measure(self, owned: int) -> None:
        """Measures the load, and notes it in the metrics; `owned` is the number of partitions that this worker leads."""
        self.load.look()
        metrics = self._metrics
        metrics.loop_lag_seconds = self.load.lag_seconds
        metrics.turns, metrics.in_flight = len(self._turns), self._slots.taken
        metrics.leads_intake, metrics.partitions_owned = owned > 0, owned

    def answer(self, probe: str) -> None:
        """Shows `check --live` that a hint reached this worker through Celery: the next heartbeat names the probe."""
        self._probes.append(probe)
        self._next = 0.0

    @property
    def is_due(self) -> bool:
        """Whether one is due: every second, and after a probe."""
        return time.monotonic() >= self._next

    def if_due(self, *, leads: bool, watched: bool, **more: Any) -> str:
        """The heartbeat as JSON if one is due; else empty.

        `leads` says whether this worker leads intake, `watched` whether it publishes attempts; `more` are further fields.
        """
        if not self.is_due:
            return ""
        self._next = time.monotonic() + HEARTBEAT_SECONDS
        return json.dumps(
            {
                "pid": os.getpid(),
                "format": FORMAT,
                "formats": FORMATS,
                "startedAt": iso(self._started_ms),
                "leadsIntake": leads,
                "turns": len(self._turns),
                "inFlight": self._slots.taken,
                "probes": list(self._probes),
                "watched": watched,
                **more,
            }
        )
