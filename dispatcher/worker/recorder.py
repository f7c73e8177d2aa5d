"""Has accept keep what status changes say of their messages; callbacks do not depend on it."""

from collections.abc import Sequence

import structlog

from dispatcher.model import StatusChange
from dispatcher.store.arguments import ToAccept
from dispatcher.store.message_record import arguments
from dispatcher.worker.metrics import Metrics

log = structlog.get_logger()


class Recorder:
    """Has accept keep what status changes say; whatever goes wrong is logged and counted, and nothing else."""

    def __init__(self, retention_ms: int, metrics: Metrics | None = None) -> None:
        self._retention_ms = retention_ms
        self._metrics = metrics or Metrics()
        self._fails = False

    def add(self, batch: ToAccept, change: StatusChange, dialect: str, number: int) -> None:
        """Adds what a status change says to what is to be accepted; `number` is that of its callback there, 0: it causes none."""
        try:
            told = arguments(change, dialect)
        except Exception:
            log.exception("status.unrecorded", workspace=change.workspace, event_id=change.event_id)
            self._metrics.recorded["failed"] += 1
            return
        if told:
            batch.kept_ms = self._retention_ms
            batch.records += (number, *told)

    def count(self, words: Sequence[str], problem: str) -> None:
        """What became of it; `problem` is why some failed."""
        self._metrics.recorded.update(words)
        if problem and not self._fails:
            log.error("status.unrecorded", problem=problem, action="callbacks go on")
        self._fails = bool(problem)
