"""The result of a check."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check turned out."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked; `advice` says what to do."""

    subject: str
    verdict: Verdict
    detail: str
    advice: str = ""


def not_allowed(subject: str, advice: str, what: str = "INFO is") -> Finding:
    """The finding for something that this user or service may not query."""
    return Finding(subject, Verdict.UNKNOWN, f"{what} forbidden", advice)
