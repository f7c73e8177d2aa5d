"""The channel on which workers publish their attempts for `dispatcher tail`; Redis keeps none of them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from dispatcher.errors import RedisUnavailable
from dispatcher.store.connection import translated
from dispatcher.store.keys import Keys
from dispatcher.store.wire import Call


class AttemptChannel:
    """Publishes attempts, from any number of workers to any number of watchers."""

    def __init__(self, call: Call, keys: Keys, url: str = "") -> None:
        self._call = call
        self._name = keys.tail
        self._url = url

    async def publish(self, attempts: Sequence[Mapping[str, Any]]) -> None:
        """Publishes attempts to the current watchers. Raises RedisUnavailable for every Redis error."""
        text = json.dumps(attempts)
        try:
            with translated(self._url):
                await self._call("PUBLISH", self._name, text)
        except RedisError as error:
            raise RedisUnavailable(f"Redis does not publish attempts: {error}") from error
