"""Keeps what status changes say about their messages, beside the ledger; callbacks never wait for it."""

from collections.abc import Callable, Collection, Sequence
from hashlib import blake2s

import msgspec
import structlog

from dispatcher.dialects import dialects
from dispatcher.errors import RedisUnavailable
from dispatcher.keys import Keys
from dispatcher.metrics import Metrics
from dispatcher.model import StatusChange, encode_json, timestamp_ms
from dispatcher.scripts import Scripts
from dispatcher.wire import Argument, Call

SLOT_MS = 600_000
"""Messages are listed by the ten minutes in which they were sent."""

log = structlog.get_logger()


class Record(msgspec.Struct, array_like=True, frozen=True):
    """What is kept of a message, as one msgpack array; `""`: nobody told. lua/record.lua knows the order."""

    status: str
    steps: list[str | int]
    """Statuses that it went through, each followed by when (ms since 1970)."""
    sent_ms: int
    """When it was sent: `acceptedAt` where the first status change says it, else when that happened."""
    src: str
    dest: str
    channel: str
    segments: str = ""
    units: str = ""
    attempts: str = ""
    cost: str = ""
    currency: str = ""
    campaign_id: str = ""
    """Where the platform looks messages up by it."""
    customer_message_id: str = ""
    network: str = ""
    part: str = ""
    total_parts: str = ""
    accepted_ms: str = ""
    reference: str = ""
    """JSON."""
    provider: str = ""
    """JSON."""
    error_code: str = ""
    error_message: str = ""


_pack = msgspec.msgpack.Encoder().encode


def record_of(change: StatusChange, looked_up_by: Collection[str]) -> Record:
    """What a status change says about its message."""
    message, error, at = change.message, change.error, timestamp_ms(change.timestamp)
    accepted = timestamp_ms(message.accepted_at) if message.accepted_at else None
    return Record(
        change.status.value,
        [change.status.value, at],
        accepted or at,
        message.src,
        message.dest,
        message.channel,
        _text(message.segments),
        _text(message.units),
        _text(message.attempts),
        "" if message.cost is None else format(message.cost, "f"),
        message.currency or "",
        (message.campaign_id or "") if "campaign" in looked_up_by else "",
        message.customer_message_id or "",
        message.network or "",
        _text(message.part),
        _text(message.total_parts),
        _text(accepted),
        encode_json(message.reference).decode() if message.reference else "",
        encode_json(message.provider).decode() if message.provider else "",
        error.code if error else "",
        (error.message or "") if error else "",
    )


def reference_digest(key: str) -> str:
    """What a reference is looked up by, whatever its length."""
    return blake2s(key.encode(), digest_size=8).hexdigest()


def arguments(change: StatusChange, dialect: str, digest: str) -> list[Argument]:
    """A status change as the script takes it, with what its platform looks messages up by.

    `digest` is the ledger's; empty where the ledger does not take the change, because it causes no callback.
    """
    by = dialects()[dialect].LOOKED_UP_BY
    record, message = record_of(change, by), change.message
    key = message.reference.get("key") if message.reference and "reference" in by else None
    customer = message.customer_message_id if "customer" in by else None
    return [
        change.workspace,
        change.event_id,
        digest,
        message.uuid,
        record.status,
        record.steps[1],
        record.sent_ms,
        _pack(record),
        message.dest if "phone" in by else "",
        reference_digest(key) if isinstance(key, str) and key else "",
        f"{message.channel}:{customer}" if customer else "",
        f"{message.channel}:{record.sent_ms // SLOT_MS}" if "time" in by else "",
        record.campaign_id,
    ]


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
        """What `record` takes of one status change; nothing, where that breaks."""
        try:
            return arguments(change, dialect, digest)
        except Exception:
            log.exception("status.unrecorded", workspace=change.workspace, event_id=change.event_id)
            self._metrics.recorded["failed"] += 1
            return []

    async def record(self, prepared: Sequence[Sequence[Argument]]) -> None:
        """Keeps what status changes say. Raises nothing."""
        args = [argument for one in prepared for argument in one]
        if not args:
            return
        now: Argument = self._clock() if self._clock else ""
        try:
            reply, _ = await self._scripts.run("record", now, self._retention_ms, *args)
            self._metrics.recorded.update(word.decode() for word in reply[2])
            self._fails = False
        except Exception as error:
            self._metrics.recorded["failed"] += len(prepared)
            if not self._fails and not isinstance(error, RedisUnavailable):  # of that intake speaks
                log.error("status.unrecorded", problem=str(error), action="callbacks go on")
            self._fails = True


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
