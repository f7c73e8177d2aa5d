"""Has accept record what status changes say about their messages; callbacks do not depend on it."""

from collections.abc import Sequence

import structlog

from dispatcher.fast_decode import Change
from dispatcher.store.arguments import ToAccept
from dispatcher.store.message_record import arguments
from dispatcher.worker.metrics import Metrics

log = structlog.get_logger()


class Recorder:
    """Adds message records to what accept takes. Errors are logged and counted, and have no other effect."""

    def __init__(self, retention_ms: int, metrics: Metrics | None = None) -> None:
        self._retention_ms = retention_ms
        self._metrics = metrics or Metrics()
        self._fails = False

    def add(self, batch: ToAccept, change: Change, dialect: str, number: int) -> None:
        """Adds what a status change says about its message to a batch.

        `number` is the position in the batch, from 1, of the callback that it causes; 0 if it causes none.
        """
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
        """Counts the results that accept returned; `problem` is why some failed, and is logged once."""
        self._metrics.recorded.update(words)
        if problem and not self._fails:
            log.error("status.unrecorded", problem=problem, action="callbacks go on")
        self._fails = bool(problem)
