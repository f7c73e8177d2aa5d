"""Message records: what status changes say about messages.

Accept keeps them apart from the ledger; callbacks do not need them.
"""

import re
import struct
from collections.abc import Collection, Iterator
from hashlib import blake2s

import msgspec

from dispatcher.fast_decode import Change
from dispatcher.model import (
    BY_LETTER,
    LETTERS,
    Status,
    accepted_ms,
    decode_json,
    encode_json,
    is_time,
    timestamp_ms,
)
from dispatcher.rules.dialects import dialect_of
from dispatcher.store.wire import Argument

SLOT_MS = 600_000
"""Messages are listed in slots of ten minutes, by the time they were sent."""

MAX_REFERENCE_KEY = 1024
"""Characters; a message cannot be looked up by a longer one."""
STATUSES = {letter.encode(): status for letter, status in BY_LETTER.items()}
READ_ON = ("RCS", "WHATSAPP")
"""Channels on which a message can be read."""
MAX_TOLD = 16_000
"""Bytes of details per status change; above that, `provider` is dropped, and `reference` too if still needed."""
RANKS = {
    "u": -1, "c": 0, "q": 10, "p": 20, "m": 30, "s": 40, "b": 40, "d": 100, "f": 100, "n": 100, "e": 100, "j": 100, "r": 110,
}  # fmt: skip
"""By the letters of statuses; as lua/lib/message_steps.lua has them."""
FINAL = 100
"""The rank from which on no other may follow, but for READ after DELIVERED."""
OF_THE_STATUS = ("error_code", "error_message")
"""Fields of one status only: the next status does not inherit them."""
MAX_SENT_MS = 9_999_999_999_999
"""Thirteen digits: the year 2286."""
_HEAD, _STEP = re.compile(rb"(.)(\d{13})\d{6}(\d{4})", re.DOTALL), struct.Struct(">cqH")


class Details(msgspec.Struct, array_like=True, frozen=True):
    """What a status change says about its message, kept as one msgpack array; `""`: not given."""

    src: str
    dest: str
    channel: str
    segments: str = ""
    units: str = ""
    attempts: str = ""
    cost: str = ""
    currency: str = ""
    customer_message_id: str = ""
    network: str = ""
    total_parts: str = ""
    reference: str = ""
    """JSON."""
    provider: str = ""
    """JSON."""
    error_code: str = ""
    error_message: str = ""


class MessageRecord(msgspec.Struct, frozen=True):
    """The stored record of a message."""

    status: Status
    history: list[tuple[Status, int]]
    """The statuses it went through, with when (ms since 1970)."""
    sent_ms: int
    """When it was sent: `acceptedAt` of the first status change if given, else the time of that change."""
    campaign_id: str
    """Empty unless the platform looks messages up by campaign."""
    details: Details
    """The details of all status changes, merged; later values replace earlier ones."""
    names: frozenset[tuple[str, str]]
    """Each channel and customerMessageId that it has had (`""`: before one was given)."""


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Details).decode


def details_of(change: Change) -> Details:
    """The details in a status change."""
    message, error = change.message, change.error
    return Details(
        message.src,
        message.dest,
        message.channel,
        _text(message.segments),
        _text(message.units),
        _text(message.attempts),
        "" if message.cost is None else format(message.cost, "f"),
        message.currency or "",
        message.customer_message_id or "",
        message.network or "",
        _text(message.total_parts),
        encode_json(message.reference).decode() if message.reference else "",
        encode_json(message.provider).decode() if message.provider else "",
        error.code if error else "",
        (error.message or "") if error else "",
    )


def may_follow(status: Status, other: Status) -> bool:
    """Whether another status may follow one, as lua/lib/message_steps.lua decides it for one that has not been."""
    before, after = RANKS[LETTERS[status]], RANKS[LETTERS[other]]
    if before >= FINAL:
        return status is Status.DELIVERED and other is Status.READ
    return after > before or (after == before and status is not other)


class Head(msgspec.Struct, frozen=True):
    """The start of a record: enough to filter a message without decoding the rest."""

    uuid: str
    status: Status
    sent_ms: int


def read_head(uuid: str, raw: bytes) -> Head | None:
    """Parses the start of a record; None if the script did not write it."""
    status, sent = STATUSES.get(raw[:1]), raw[1:14]
    return Head(uuid, status, int(sent)) if status and sent.isdigit() else None


def read_record(raw: bytes) -> MessageRecord:
    """Parses a record. Raises ValueError, LookupError, TypeError, struct.error or MsgspecError for a damaged one."""
    match = _HEAD.match(raw)
    if not match:
        raise ValueError("no record of a message")
    place = match.end() + int(match[3])
    campaign = raw[match.end() : place].decode()
    history: list[tuple[Status, int]] = []
    known: dict[str, str] = {}
    names: set[tuple[str, str]] = set()
    for step, at, details in _steps(raw, place):
        history.append((step, at))
        if details:
            told = msgspec.structs.asdict(details)
            known |= {name: value for name, value in told.items() if value or name in OF_THE_STATUS}
            names.add((known.get("channel", ""), known.get("customer_message_id", "")))
    status = STATUSES[match[1]]
    if not history or history[-1][0] is not status or not all(is_time(at) for _, at in history):
        raise ValueError("no statuses, or one at no time")
    return MessageRecord(status, history, int(match[2]), campaign, Details(**known), frozenset(names))


def _steps(raw: bytes, place: int) -> Iterator[tuple[Status, int, Details | None]]:
    """The statuses of a record, which begin at `place`: when each was reached, and its details if they are not those before."""
    while place < len(raw):
        letter, at, length = _STEP.unpack_from(raw, place)
        place += _STEP.size
        yield STATUSES[letter], at, _unpack(raw[place : place + length]) if length else None
        place += length


def lists_of(raw: bytes) -> list[tuple[str, str]]:
    """Kind and name of each list that may lead to a message, whatever its platform (lua/unlist.lua). Raises as read_record."""
    match = _HEAD.match(raw)
    if not match:
        raise ValueError("no record of a message")
    slot = int(match[2]) // SLOT_MS
    found: dict[tuple[str, str], None] = {}
    for _, _, told in _steps(raw, match.end() + int(match[3])):
        if told is None:
            continue
        found[("phone", told.dest)] = found[("time", f"{told.channel}:{slot}")] = None
        if told.customer_message_id:
            found[("customer", f"{told.channel}:{told.customer_message_id}")] = None
        key = _key_of(told.reference)
        if key:
            found[("reference", reference_digest(key))] = None
    return [*found]


def _key_of(reference: str) -> str:
    """A reference's key, from its JSON; empty if it has none."""
    value = decode_json(reference.encode()) if reference else None
    key = value.get("key") if isinstance(value, dict) else None
    return key if isinstance(key, str) else ""


def _shorter(told: Details) -> bytes:
    without_provider = _pack(msgspec.structs.replace(told, provider=""))
    if len(without_provider) <= MAX_TOLD:
        return without_provider
    return _pack(msgspec.structs.replace(told, provider="", reference=""))


def reference_digest(key: str) -> str:
    """The digest by which a reference key is looked up; short, whatever the key's length."""
    return blake2s(key.encode(), digest_size=8).hexdigest()


def arguments(change: Change, dialect: str) -> list[Argument]:
    """The arguments of lua/accept.lua for a status change, with its platform's lookup keys.

    Empty for READ on a channel on which messages cannot be read.
    """
    message, at, letter = change.message, timestamp_ms(change.timestamp), LETTERS[change.status]
    if change.status is Status.READ and message.channel not in READ_ON:
        return []
    sent = min(max(0, accepted_ms(message) or at), MAX_SENT_MS)
    by = looked_up_by(change, dialect_of(dialect).LOOKED_UP_BY, sent)
    told = _pack(details_of(change))
    if len(told) > MAX_TOLD:
        told = _shorter(details_of(change))
    step = _STEP.pack(letter.encode(), at, len(told))
    return [change.workspace, message.uuid, letter, at, sent, step[:-2], step[-2:] + told, len(by) // 2, *by]


def looked_up_by(change: Change, what: Collection[str], sent_ms: int) -> list[str]:
    """The lookup keys of a message: kind and value, in turn."""
    message, by = change.message, []
    if "phone" in what:
        by += ["phone", message.dest]
    key = message.reference.get("key") if message.reference and "reference" in what else None
    if isinstance(key, str) and 0 < len(key) <= MAX_REFERENCE_KEY:
        by += ["reference", reference_digest(key)]
    if message.customer_message_id and "customer" in what and ":" not in message.channel:
        by += ["customer", f"{message.channel}:{message.customer_message_id}"]
    if "time" in what:
        by += ["time", f"{message.channel}:{sent_ms // SLOT_MS}"]
    if message.campaign_id and "campaign" in what:
        by += ["campaign", message.campaign_id]
    return by


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
