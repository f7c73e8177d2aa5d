"""A workspace as a hash in Redis: which fields may be set, and how secrets and headers are encrypted in it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from dispatcher.errors import InvalidInput
from dispatcher.rules.addresses import parse_callback_url
from dispatcher.rules.workspace import ORDERINGS, Secret, Workspace
from dispatcher.store.sealing import SecretBox

MAX_CONCURRENCY = 1000
MIN_RATE, MAX_RATE = 0.001, 10_000


class WorkspaceRecord:
    """Parses and builds the fields of a workspace's hash. No I/O."""

    def __init__(self, box: SecretBox, *, allow_http: bool = False) -> None:
        self._box = box
        self._allow_http = allow_http

    def read(self, workspace: str, fields: Mapping[bytes, bytes]) -> Workspace:
        """Parses a workspace. If its secrets cannot be decrypted, it has none, and `problem` says why."""
        limit, rate = fields.get(b"max_concurrency"), fields.get(b"rate_per_second")
        opened, headers, problem = self._open(fields)
        return Workspace(
            workspace,
            fields[b"dialect"].decode(),
            fields[b"callback_url"].decode(),
            opened,
            int(fields[b"created"]),
            fields[b"revision"].decode(),
            headers,
            int(limit) if limit else None,
            float(rate) if rate else None,
            fields.get(b"ordering", b"first_attempt").decode(),
            int(fields[b"webhook"]) if b"webhook" in fields else None,
            problem,
        )

    def _open(self, fields: Mapping[bytes, bytes]) -> tuple[tuple[Secret, ...], dict[str, str], str | None]:
        """Decrypts secrets and headers; the third value says why that failed."""
        sealed = fields.get(b"headers")
        try:
            opened = msgspec.json.decode(self._box.open(fields[b"secrets"]), type=list[Secret])
            headers = msgspec.json.decode(self._box.open(sealed), type=dict[str, str]) if sealed else {}
        except InvalidInput as error:
            return (), {}, str(error)
        return tuple(opened), headers, None

    def settable(
        self,
        callback_url: str | None = None,
        max_concurrency: int | None = None,
        rate_per_second: float | None = None,
        ordering: str | None = None,
    ) -> dict[str, Any]:
        """Validates the given values (not None); returns them as fields. Raises InvalidInput."""
        if callback_url is not None:
            parse_callback_url(callback_url, allow_http=self._allow_http)
        if max_concurrency is not None and not 1 <= max_concurrency <= MAX_CONCURRENCY:
            raise InvalidInput(f"max_concurrency is 1 to {MAX_CONCURRENCY}, not {max_concurrency}")
        if rate_per_second is not None and not (
            rate_per_second == 0 or MIN_RATE <= rate_per_second <= MAX_RATE
        ):
            raise InvalidInput(
                f"rate_per_second is {MIN_RATE} to {MAX_RATE}, or 0 for no limit, not {rate_per_second}"
            )
        if ordering is not None and ordering not in ORDERINGS:
            raise InvalidInput(f"ordering is one of {', '.join(ORDERINGS)}, not {ordering!r}")
        given = {
            "ordering": ordering,
            "callback_url": callback_url,
            "max_concurrency": max_concurrency,
            "rate_per_second": rate_per_second,
        }
        return {name: value for name, value in given.items() if value is not None}

    def seal(self, value: object) -> bytes:
        """Encrypts secrets or headers for a field; with a key, equal values give other bytes each time."""
        return self._box.seal(msgspec.json.encode(value))


def as_stored(fields: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Fields as Redis returns them."""
    return {
        name.encode(): value if isinstance(value, bytes) else str(value).encode()
        for name, value in fields.items()
    }
