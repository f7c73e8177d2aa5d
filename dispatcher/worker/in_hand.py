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
        self.under_way: dict[str, int] = {}
        """Claim numbers by eventId, of those whose attempt has not ended."""
        self._unrecorded: set[tuple[str, int]] = set()
        """EventIds and claim numbers of those whose attempt has ended."""

    def take(self, callback: Claimed) -> bool:
        """Whether to send a callback that was claimed; False if this worker sends it already.

        What it sends then counts as the attempt of the newer claim. A callback whose last attempt has ended is sent if
        its claim number is another one, because then that attempt is recorded, though the reply is not here yet.
        """
        event_id, number = callback.event_id, callback.claim
        is_under_way = event_id in self.under_way
        if not is_under_way and (event_id, number) in self._unrecorded:
            return False
        self.under_way[event_id] = number
        return not is_under_way

    def ended(self, settlement: Settlement) -> Settlement:
        """Notes that an attempt has ended; returns its result with the number of the claim that it counts for."""
        number = self.under_way.pop(settlement.event_id)
        self._unrecorded.add((settlement.event_id, number))
        return settlement if number == settlement.claim else replace(settlement, claim=number)

    def recorded(self, settlements: Iterable[Settlement]) -> None:
        """Results were recorded, or could not be: then their callbacks come back when their lease ends."""
        self._unrecorded.difference_update([(one.event_id, one.claim) for one in settlements])
