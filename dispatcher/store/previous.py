"""What the previous Redis of an installation that has grown knows: such messages stay there until they are over.

So a change of a message joins those before it, in their order, and a repeated eventId is known where it was first accepted.
"""

from collections.abc import Sequence

from dispatcher.errors import PreviousUnavailable, RedisUnavailable
from dispatcher.fast_decode import Change
from dispatcher.store.known_messages import KnownMessages


class Previous(KnownMessages):
    """Asks the previous Redis."""

    async def known(self, changes: Sequence[Change]) -> list[bool]:
        """As KnownMessages; raises PreviousUnavailable."""
        try:
            return await super().known(changes)
        except RedisUnavailable as error:
            raise PreviousUnavailable.of(error) from error
