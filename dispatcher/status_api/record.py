"""Keeps what status changes say about their messages, beside the ledger; callbacks never wait for it."""

import re
import struct
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2s

import msgspec
import structlog

from dispatcher.dialects import dialects
from dispatcher.errors import RedisUnavailable
from dispatcher.keys import Keys
from dispatcher.metrics import Metrics
from dispatcher.model import Status, StatusChange, encode_json, timestamp_ms
from dispatcher.scripts import Scripts
from dispatcher.wire import Argument, Call

SLOT_MS = 600_000
"""Messages are listed by the ten minutes in which they were sent."""

log = structlog.get_logger()

MAX_REFERENCE_KEY = 1024
"""Characters; a message is not looked up by a longer one."""
LETTERS = {
    Status.UNKNOWN: "u",
    Status.SCHEDULED: "c",
    Status.QUEUED: "q",
    Status.PROCESSING: "p",
    Status.SUBMITTED: "m",
    Status.SENT: "s",
    Status.BUFFERED: "b",
    Status.DELIVERED: "d",
    Status.FAILED: "f",
    Status.UNDELIVERABLE: "n",
    Status.EXPIRED: "e",
    Status.REJECTED: "j",
    Status.READ: "r",
}
"""What stands for a status in Redis; lua/record.lua has their ranks."""
STATUSES = {letter.encode(): status for status, letter in LETTERS.items()}
READ_ON = ("RCS", "WHATSAPP")
"""Channels on which a message can be read."""
MAX_TOLD = 16_000
"""Bytes; where more is told, `provider` is not kept, and if need be `reference` neither."""
OF_THE_STATUS = ("error_code", "error_message")
"""What is told of a status alone: the next one starts without it."""
MAX_SENT_MS = 9_999_999_999_999
"""Thirteen digits: the year 2286."""
_HEAD, _STEP = re.compile(rb"(.)(\d{13})\d{6}(\d{4})", re.DOTALL), struct.Struct(">cqH")


class Told(msgspec.Struct, array_like=True, frozen=True):
    """What a status change says of its message, kept as one msgpack array; `""`: nobody told."""

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


class Record(msgspec.Struct, frozen=True):
    """What is kept of a message."""

    status: Status
    history: list[tuple[Status, int]]
    """The statuses it went through, with when (ms since 1970)."""
    sent_ms: int
    """When it was sent: `acceptedAt` where the first status change says it, else when that happened."""
    campaign_id: str
    """Where the platform looks messages up by it."""
    told: Told
    """All that was told, the latest last."""


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Told).decode


def told_by(change: StatusChange) -> Told:
    """What a status change says of its message."""
    message, error = change.message, change.error
    return Told(
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


def read_record(raw: bytes) -> Record:
    """What the script wrote. Raises ValueError for anything else."""
    match = _HEAD.match(raw)
    if not match:
        raise ValueError("no record of a message")
    place = match.end() + int(match[3])
    campaign = raw[match.end() : place].decode()
    history: list[tuple[Status, int]] = []
    known: dict[str, str] = {}
    while place < len(raw):
        letter, at, length = _STEP.unpack_from(raw, place)
        place += _STEP.size
        history.append((STATUSES[letter], at))
        if length:
            told = msgspec.structs.asdict(_unpack(raw[place : place + length]))
            known |= {name: value for name, value in told.items() if value or name in OF_THE_STATUS}
        place += length
    return Record(STATUSES[match[1]], history, int(match[2]), campaign, Told(**known))


def _shorter(told: Told) -> bytes:
    without_provider = _pack(msgspec.structs.replace(told, provider=""))
    if len(without_provider) <= MAX_TOLD:
        return without_provider
    return _pack(msgspec.structs.replace(told, provider="", reference=""))


def reference_digest(key: str) -> str:
    """What a reference is looked up by, whatever its length."""
    return blake2s(key.encode(), digest_size=8).hexdigest()


def arguments(change: StatusChange, dialect: str, digest: str) -> list[Argument]:
    """A status change as the script takes it, with what its platform looks messages up by; nothing, where it says nothing.

    `digest` is the ledger's; empty where the ledger does not take the change, because it causes no callback.
    """
    message, at, letter = change.message, timestamp_ms(change.timestamp), LETTERS[change.status]
    if change.status is Status.READ and message.channel not in READ_ON:
        return []
    sent = min(max(0, timestamp_ms(message.accepted_at) if message.accepted_at else at), MAX_SENT_MS)
    by = looked_up_by(change, dialects()[dialect].LOOKED_UP_BY, sent)
    told = _pack(told_by(change))
    if len(told) > MAX_TOLD:
        told = _shorter(told_by(change))
    step = _STEP.pack(letter.encode(), at, len(told))
    name, id_, uuid = change.workspace, change.event_id, message.uuid
    return [name, id_, digest, uuid, letter, at, sent, step[:-2], step[-2:] + told, len(by) // 2, *by]


def looked_up_by(change: StatusChange, what: Collection[str], sent_ms: int) -> list[str]:
    """What a message is looked up by, and which, in turn."""
    message, by = change.message, []
    if "phone" in what:
        by += ["phone", message.dest]
    key = message.reference.get("key") if message.reference and "reference" in what else None
    if isinstance(key, str) and 0 < len(key) <= MAX_REFERENCE_KEY:
        by += ["reference", reference_digest(key)]
    if message.customer_message_id and "customer" in what:
        by += ["customer", f"{message.channel}:{message.customer_message_id}"]
    if "time" in what:
        by += ["time", f"{message.channel}:{sent_ms // SLOT_MS}"]
    if message.campaign_id and "campaign" in what:
        by += ["campaign", message.campaign_id]
    return by


class Recorder:
    """Runs the script; whatever goes wrong is logged and counted, and nothing else.

    `clock` replaces Redis's TIME in tests (ms since 1970).
    """

    def __init__(
        self,
        call: Call,
        keys: Keys,
        url: str,
        retention_ms: int,
        metrics: Metrics | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._scripts = Scripts(call, keys, url)
        self._retention_ms = retention_ms
        self._metrics = metrics or Metrics()
        self._clock = clock
        self._fails = False

    def prepare(self, change: StatusChange, dialect: str, digest: str) -> list[Argument]:
        """What `record` takes of one status change; nothing, where that breaks or there is nothing to keep."""
        try:
            return arguments(change, dialect, digest)
        except Exception:
            log.exception("status.unrecorded", workspace=change.workspace, event_id=change.event_id)
            self._metrics.recorded["failed"] += 1
            return []

    async def load(self) -> None:
        """Has Redis know the script, so that what is recorded is not behind what is accepted. Raises RedisUnavailable."""
        try:
            await self._scripts.load("record")
        except RedisUnavailable:
            raise
        except Exception as error:
            self._say(error)

    async def record(self, prepared: Sequence[Sequence[Argument]]) -> None:
        """Keeps what status changes say. Raises nothing."""
        args = [argument for one in prepared for argument in one]
        if not args:
            return
        now: Argument = self._clock() if self._clock else ""
        try:
            reply, _ = await self._scripts.run("record", now, self._retention_ms, *args)
            self._metrics.recorded.update(reply[2].decode().split())
            self._fails = False
        except RedisUnavailable:
            return  # nothing is accepted then either, and it comes again
        except Exception as error:
            self._metrics.recorded["failed"] += len(prepared)
            self._say(error)

    def _say(self, error: Exception) -> None:
        if not self._fails:
            log.error("status.unrecorded", problem=str(error), action="callbacks go on")
        self._fails = True


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
