"""Reads an entry of the ledger as lua/lib/entry.lua writes it."""

from collections.abc import Iterable

import msgspec

from dispatcher.errors import InvalidInput, visible
from dispatcher.model import BY_LETTER, Status, is_time
from dispatcher.rules.outcomes import ENDS, Attempt, State


class Entry(msgspec.Struct, frozen=True):
    """What the ledger knows about one callback. Times are ms since 1970."""

    event_type: str
    status: Status
    accepted_ms: int
    state: State
    claims: int
    """How often it was leased."""
    endpoint: str
    """The endpoint's id."""
    message_uuid: str
    expires_ms: int
    ended_ms: int | None
    attempts: list[Attempt]
    """All attempts, including those before a replay."""
    extra: dict[str, str]
    """Rare fields, by their names in lua/lib/entry.lua."""

    @property
    def ended(self) -> bool:
        """Whether its state is final."""
        return self.state in ENDS

    @property
    def attempts_before(self) -> int:
        """Number of attempts made before its replay."""
        return int(self.extra.get("base", 0))


def read_entry(raw: bytes) -> Entry:
    """Parses the value of an `event` key. Raises InvalidInput if no script of ours wrote it."""
    try:
        return _read(raw)
    except (ValueError, KeyError):
        shown = visible(raw[:80].decode(errors="replace"))
        raise InvalidInput(
            f"not an entry of the ledger, under one of its `event` keys: {shown!r}; delete that key"
        ) from None


def _read(raw: bytes) -> Entry:
    head, *records = raw.decode().split("\n")
    _digest, event_type, status, accepted, state, claims, endpoint, message, life, ended, *extra = head.split(
        " "
    )
    accepted_ms = _time(int(accepted))
    return Entry(
        event_type,
        BY_LETTER[status],
        accepted_ms,
        State.DELIVERED if state == "d" else State(state),
        int(claims),
        endpoint,
        message,
        _time(accepted_ms + int(life)),
        None if ended == "-" else _time(accepted_ms + int(ended)),
        [_read_record(record, accepted_ms) for record in records],
        _extra(extra),
    )


def _time(ms: int) -> int:
    if not is_time(ms):
        raise ValueError("no time")
    return ms


def _extra(texts: Iterable[str]) -> dict[str, str]:
    extra = dict(one.split("=", 1) for one in texts)
    int(extra.get("base", 0))
    return extra


def write_record(attempt: Attempt) -> str:
    """An attempt as an entry keeps it, without its start: duration in ms, HTTP status (`-` for none), error if any."""
    status = "-" if attempt.http_status is None else attempt.http_status
    return f"{attempt.duration_ms} {status}" + (f" {attempt.error}" if attempt.error else "")


def _read_record(text: str, accepted_ms: int) -> Attempt:
    started, duration, status, *error = text.split(" ")
    return Attempt(
        _time(accepted_ms + int(started)),
        int(duration),
        None if status == "-" else int(status),
        error[0] if error else None,
    )
