"""Whether the receiver of an endpoint is gone for good, by what each partition of its workspace knows of it. No I/O.

Each partition keeps its own history of an endpoint, because its callbacks are sent from there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Rule(Enum):
    """What must hold for long; the value is how reasons begin."""

    GONE = "it answered 410 to every attempt"
    FAILING = "every attempt failed"


@dataclass(frozen=True, slots=True)
class History:
    """What one partition knows of an endpoint's attempts; times are in ms since 1970, and 0 if there is nothing to know."""

    failing_ms: int = 0
    """Since when every attempt failed."""
    gone_ms: int = 0
    """Since when every attempt was answered 410."""
    last_tried_ms: int = 0
    """Until when callbacks were accepted for it or failed: attempts later than that are not known."""

    def since(self, rule: Rule) -> int:
        """Since when the rule's condition holds here; if it does not, the last time that there may have been an attempt."""
        held = self.gone_ms if rule is Rule.GONE else self.failing_ms
        return held or self.last_tried_ms


def since_everywhere(rule: Rule, since_ms: int, latest_ms: int, others: Iterable[History]) -> int:
    """Since when the rule's condition holds in all partitions; 0 if in one of them it began, or was broken, after `latest_ms`.

    `since_ms` is since when it holds in the partition that asks. A partition that has tried nothing since `latest_ms` agrees.
    """
    since = max((since_ms, *(one.since(rule) for one in others)))
    return since if since <= latest_ms else 0
