"""The latest alerts of all workers, for the console's overview: kept in one Redis, whether or not there is a URL to send them to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from dispatcher.model import encode_json
from dispatcher.store.connection import translated
from dispatcher.store.damaged import of_type
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Call

KEPT = 200

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class KeptAlert:
    """An alert, and when a worker raised it."""

    at_ms: int
    worker: str
    kind: str
    workspace: str
    facts: Mapping[str, Any]
    """What else the alert says."""


class LatestAlerts:
    """Keeps and reads them. Every method raises RedisUnavailable."""

    def __init__(self, call: Call, keys: Keys, url: str = "", retention_ms: int = 604_800_000) -> None:
        self._call = call
        self._keys = keys
        self._url = url
        self._retention_ms = retention_ms

    async def keep(self, worker: str, alerts: Sequence[Mapping[str, Any]], now_ms: int) -> None:
        """Adds alerts of a worker; the oldest beyond KEPT are dropped."""
        if not alerts:
            return
        texts = [encode_json({"at": now_ms, "worker": worker, **one}) for one in alerts[-KEPT:]]
        with translated(self._url):
            await self._call("LPUSH", self._keys.alerts, *texts)
            await self._call("LTRIM", self._keys.alerts, 0, KEPT - 1)
            await self._call("PEXPIRE", self._keys.alerts, self._retention_ms)

    async def read(self, limit: int) -> list[KeptAlert]:
        """The latest ones, newest first. One that cannot be read is logged and left out."""
        with translated(self._url):
            found = await of_type(
                self._call("LRANGE", self._keys.alerts, 0, limit - 1), self._keys.alerts, []
            )
        return [one for raw in found if (one := _read(raw))]


def _read(raw: bytes) -> KeptAlert | None:
    try:
        of = msgspec.json.decode(raw, type=dict[str, Any])
        return KeptAlert(int(of.pop("at")), of.pop("worker"), of.pop("kind"), of.pop("workspace"), of)
    except (msgspec.DecodeError, LookupError, TypeError, ValueError):
        log.error("alerts.unreadable", action="DEL the list `alerts`, or wait until it is dropped")
        return None
