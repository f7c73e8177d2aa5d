"""A worker's metrics, as plain numbers; `tasks/prometheus.py` exports them to Prometheus.

Labels come from closed lists, so the number of series is bounded: no eventId, URL or workspace is ever a label.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from dispatcher.rules.outcomes import REJECTIONS

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets for an attempt's duration."""
LONG_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 3600.0, 21_600.0, 86_400.0)
"""Upper bounds of the buckets for the time from acceptance to delivery."""


class Histogram:
    """How many values fell into each bucket; the last bucket is for values above all bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Adds a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Metrics:
    """Metrics of one worker process since its start."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        """Status changes by result: accepted, superseded, duplicate, conflict, full, no_callback."""
        self.recorded: Counter[str] = Counter(recorded=0, late=0, conflict=0, failed=0)
        """Status changes by result in the message store."""
        self.rejected: Counter[str] = Counter(dict.fromkeys(REJECTIONS, 0))
        """Rejected entries by reason."""
        self.forwarded = 0
        """Entries that were put on the queue of another partition, which their workspace belongs to."""
        self.attempts: Counter[tuple[str, str]] = Counter()
        """Attempts by outcome and error word (`none` after a 2xx)."""
        self.ended: Counter[str] = Counter(failed=0, expired=0, superseded=0)
        """Callbacks that ended without being delivered, by state."""
        self.attempt_seconds = Histogram(SECONDS)
        self.delivery_seconds = Histogram(LONG_SECONDS)
        """From acceptance to delivery."""
        self.breakers: Counter[str] = Counter(opened=0, closed=0)
        """Endpoints that paused (opened) and recovered (closed)."""
        self.redis_errors = 0
        self.archived = 0
        self.archived_messages = 0
        """Callbacks that were put into the archive."""
        self.archive_errors = 0
        """Batches that the archive did not take."""
        self.archive_seconds = Histogram(SECONDS)
        """Duration of a batch."""
        self.lease_losses = 0
        """Results that were not recorded, because the callback's lease was lost."""
        self.turns = 0
        self.in_flight = 0
        self.loop_lag_seconds = 0.0
        """How much later than planned the loop last woke up."""
        self.hints_unpublished = 0
        """How often the broker did not take hints."""
        self.broker_connected = False
        """Whether hints can come: Celery is connected to the broker."""
        self.alerts_not_sent = 0
        """POSTs of alerts that the operator's URL did not take."""
        self.leads_intake = False
        self.partitions_owned = 0
        """How many partitions this worker leads."""
