"""A message as the store knows it, parsed from its record."""

import struct
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import Any

import msgspec
import structlog

from dispatcher.errors import InvalidInput
from dispatcher.model import Status, decode_json
from dispatcher.store.message_record import OF_THE_STATUS, MessageRecord, read_record
from dispatcher.values import MAX_COST, is_deep

MAX_DIGITS = 12
"""Digits of a count; we never write a longer one."""
DAMAGED = ValueError, ArithmeticError, LookupError, TypeError, struct.error, msgspec.MsgspecError
"""What reading a damaged record raises."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as the store knows it; None: not given. Times are ms since 1970."""

    uuid: str
    status: Status
    history: Sequence[tuple[Status, int]]
    """The statuses it went through, with when."""
    sent_ms: int
    src: str
    dest: str
    channel: str
    segments: int | None
    units: int | None
    attempts: int | None
    cost: Decimal | None
    currency: str | None
    campaign_id: str | None
    customer_message_id: str | None
    network: str | None
    total_parts: int | None
    reference: Mapping[str, Any] = field(default_factory=dict)
    provider: Mapping[str, Any] = field(default_factory=dict)
    error_code: str | None = None
    error_message: str | None = None
    names: Set[tuple[str, str]] = frozenset()
    """Each channel and the id its customer knew it by there: customerMessageId, or its own id before one was given."""

    def projected(self, words: Mapping[Status, str]) -> list[tuple[str, int]]:
        """The history in a platform's own status words, each with its start; statuses without a word are left out."""
        steps: list[tuple[str, int]] = []
        for status, at in self.history:
            word = words.get(status)
            if word and (not steps or steps[-1][0] != word):
                steps.append((word, at))
        return steps

    def first(self, *statuses: Status) -> int | None:
        """When it first had one of these statuses."""
        return next((at for status, at in self.history if status in statuses), None)


def newest(messages: Iterable[StoredMessage]) -> dict[str, StoredMessage]:
    """Each message once, by its uuid, in the given order: of several records the one with the newest status."""
    known: dict[str, StoredMessage] = {}
    for one in messages:
        if one.uuid not in known or _changed_ms(known[one.uuid]) < _changed_ms(one):
            known[one.uuid] = one
    return known


def completed(message: StoredMessage, earlier: StoredMessage) -> StoredMessage:
    """The same message, with those details that only an earlier record of it has; its statuses, with their errors and times, stay."""
    lacking = [one.name for one in fields(message) if getattr(message, one.name) in (None, {})]
    told = {name: getattr(earlier, name) for name in lacking if name not in OF_THE_STATUS}
    return replace(message, names=message.names | earlier.names, **told)


def _changed_ms(message: StoredMessage) -> int:
    return max((at for _, at in message.history), default=message.sent_ms)


def stored(uuid: str, raw: bytes) -> StoredMessage | None:
    """Parses a message's record. An unreadable one is logged and gives None, so that it does not hide others."""
    try:
        return message_of(uuid, read_record(raw))
    except DAMAGED:
        log.error("status.unreadable", message=uuid)
        return None


def message_of(uuid: str, record: MessageRecord) -> StoredMessage:
    """A message, from its record. Raises ValueError or ArithmeticError for a damaged one."""
    told = record.details
    return StoredMessage(
        uuid,
        record.status,
        record.history,
        record.sent_ms,
        told.src,
        told.dest,
        told.channel,
        _int(told.segments),
        _int(told.units),
        _int(told.attempts),
        _cost(told.cost),
        told.currency or None,
        record.campaign_id or None,
        told.customer_message_id or None,
        told.network or None,
        _int(told.total_parts),
        _free(uuid, told.reference),
        _free(uuid, told.provider),
        told.error_code or None,
        told.error_message or None,
        frozenset((channel, id_ or uuid) for channel, id_ in record.names),
    )


def _int(text: str) -> int | None:
    if len(text) > MAX_DIGITS:
        raise ValueError("no count")
    return int(text) if text else None


def _cost(text: str) -> Decimal | None:
    cost = Decimal(text) if text else None
    if cost is not None and not 0 <= cost < MAX_COST:
        raise ValueError("no cost")
    return cost


def _free(uuid: str, text: str) -> Mapping[str, Any]:
    """Parses `reference` or `provider`. An unreadable one is logged and left out: the status is still usable."""
    if not text:
        return {}
    try:
        value = decode_json(text.encode())
    except InvalidInput:
        value = None
    if isinstance(value, dict) and not is_deep(value):
        return value
    log.error("status.unreadable", message=uuid, action="answered without reference or provider")
    return {}
