"""What a check says of one thing."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `advice` says what to do."""

    subject: str
    verdict: Verdict
    detail: str
    advice: str = ""


def not_allowed(subject: str, advice: str, what: str = "INFO is") -> Finding:
    """What cannot be known, because this user or service may not ask."""
    return Finding(subject, Verdict.UNKNOWN, f"{what} forbidden", advice)
