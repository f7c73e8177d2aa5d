"""What the previous Redis of an installation that has grown knows: such messages stay there until they are over.

So a change of a message joins those before it, in their order, and a repeated eventId is known where it was first accepted.
"""

from collections.abc import Sequence

from dispatcher.errors import PreviousUnavailable, RedisUnavailable
from dispatcher.model import StatusChange
from dispatcher.store.connection import translated
from dispatcher.store.keys import Keys
from dispatcher.store.wire import PartitionWire


class Previous:
    """Asks the previous Redis, whose keys are `keys`."""

    def __init__(self, wire: PartitionWire, keys: Keys, url: str = "") -> None:
        self._wire = wire
        self._keys = keys
        self._url = url

    async def known(self, changes: Sequence[StatusChange]) -> list[bool]:
        """Of each change, whether its eventId or its message is known there; one round trip. Raises PreviousUnavailable."""
        if not changes:
            return []
        try:
            with translated(self._url):
                found = await self._wire.call_all([("EXISTS", *self._keys_of(one)) for one in changes])
                for reply in found:
                    if isinstance(reply, BaseException):
                        raise reply
        except RedisUnavailable as error:
            raise PreviousUnavailable.of(error) from error
        return [reply > 0 for reply in found]

    def _keys_of(self, change: StatusChange) -> tuple[str, ...]:
        keys, workspace, uuid = self._keys, change.workspace, change.message.uuid
        return (
            keys.event(workspace, change.event_id),
            keys.message(workspace, uuid),
            keys.status(workspace, uuid),
        )
