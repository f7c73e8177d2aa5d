"""The callbacks that a turn was given and has not recorded yet: none of them is sent while it is sent already."""

from collections.abc import Iterable

from msgspec.structs import replace

from dispatcher.rules.callback import Claimed
from dispatcher.store.replies import Settlement


class InHand:
    """Of one turn, so of one endpoint: no other turn of this worker has these callbacks.

    Redis may give a callback again whose POST is under way, if it lost the claim with power: with the same claim number,
    or with the next one if it lost only the lease.
    """

    def __init__(self) -> None:
        self.under_way = 0
        """How many attempts have not ended."""
        self._claims: dict[str, int] = {}
        """Claim numbers (from 1) by eventId; negative once the attempt has ended and is not recorded yet."""

    def take(self, callback: Claimed) -> bool:
        """Whether to send a callback that was claimed; False if this worker sends it already.

        What it sends then counts as the attempt of the newer claim. A callback whose last attempt has ended is sent if
        its claim number is another one, because then that attempt is recorded, though the reply is not here yet.
        """
        known = self._claims.get(callback.event_id, 0)
        if known == -callback.claim:
            return False
        self._claims[callback.event_id] = callback.claim
        if known > 0:
            return False
        self.under_way += 1
        return True

    def ended(self, settlement: Settlement) -> Settlement:
        """Notes that an attempt has ended; returns its result with the number of the claim that it counts for."""
        self.under_way -= 1
        number = self._claims[settlement.event_id]
        self._claims[settlement.event_id] = -number
        return settlement if number == settlement.claim else replace(settlement, claim=number)

    def recorded(self, settlements: Iterable[Settlement]) -> None:
        """Results were recorded, or could not be: then their callbacks come back when their lease ends."""
        for one in settlements:
            if self._claims.get(one.event_id) == -one.claim:
                del self._claims[one.event_id]
