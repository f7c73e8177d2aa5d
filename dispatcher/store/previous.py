"""What the previous Redis of an installation that has grown knows: such messages stay there until they are over.

So a change of a message joins those before it, in their order, and a repeated eventId is known where it was first accepted.
"""

from collections.abc import Sequence

from dispatcher.errors import OtherFormat, PreviousUnavailable, RedisUnavailable
from dispatcher.fast_decode import Change
from dispatcher.store.damaged import needed
from dispatcher.store.format import require_previous
from dispatcher.store.keys import FORMAT_TEXT
from dispatcher.store.known_messages import KnownMessages


class Previous(KnownMessages):
    """Asks the previous Redis."""

    async def known(self, changes: Sequence[Change]) -> list[bool]:
        """As KnownMessages; raises PreviousUnavailable, also if it is another Redis that answers, or an empty one."""
        try:
            return await super().known(changes)
        except RedisUnavailable as error:
            raise PreviousUnavailable.of(error) from error

    def _require_own(self, stored: bytes | None) -> None:
        try:
            require_previous(needed(stored, self._keys.format, FORMAT_TEXT), self._keys.partition)
        except OtherFormat as error:
            raise PreviousUnavailable(str(error)) from error
