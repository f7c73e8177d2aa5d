"""Remembers for seconds which producers' keys are valid, so that their calls do not each ask Redis."""

import asyncio
import time
from collections.abc import Callable
from hashlib import sha256

from dispatcher.store.api_keys import PRODUCERS, ApiKey, ApiKeys

KEPT_SECONDS = 5.0
"""How long a key counts as valid after Redis said so, and so how long a revoked one may still be used."""
MAX_KEPT = 1000


class ProducerKeys:
    """Valid keys of producers, by a digest of their text. No other text is remembered, however many are tried."""

    def __init__(self, api_keys: ApiKeys, clock: Callable[[], float] = time.monotonic) -> None:
        self._api_keys = api_keys
        self._clock = clock
        self._kept: dict[bytes, tuple[ApiKey, float]] = {}
        self._asking: dict[bytes, asyncio.Task[ApiKey | None]] = {}

    def kept(self, text: str) -> ApiKey | None:
        """The key of this text, if it was valid within the last KEPT_SECONDS."""
        key, until = self._kept.get(_digest(text), (None, 0.0))
        return key if self._clock() < until else None

    async def identify(self, text: str) -> ApiKey | None:
        """The valid producer's key of this text, or None. Asks Redis once for all that ask at the same time.

        Raises RedisUnavailable.
        """
        if key := self.kept(text):
            return key
        digest = _digest(text)
        if digest not in self._asking:
            asking = self._asking[digest] = asyncio.create_task(self._ask(digest, text))
            asking.add_done_callback(lambda _: self._asked(digest))
        return await asyncio.shield(self._asking[digest])

    def _asked(self, digest: bytes) -> None:
        asking = self._asking.pop(digest)
        if not asking.cancelled():
            asking.exception()  # the callers get it, and if all were cancelled, asyncio must not log it

    async def _ask(self, digest: bytes, text: str) -> ApiKey | None:
        asked_at = self._clock()
        key = await self._api_keys.verify(text)
        self._kept.pop(digest, None)
        if not key or key.platform != PRODUCERS:
            return None
        self._kept[digest] = key, asked_at + KEPT_SECONDS
        if len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]  # the one that was asked for longest ago
        return key


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
