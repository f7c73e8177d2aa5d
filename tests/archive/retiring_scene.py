"""A ledger whose callbacks may be retired, on a real Redis."""

from dispatcher.rules.callback import Callback
from dispatcher.rules.outcomes import Delivered, Outcome
from tests.world import TOKEN, World

WEEK_MS = 604_800_000


class Scene(World):
    """A ledger of an installation with an archive, in which callbacks may be retired."""

    def end(self, *callbacks: Callback, outcome: Outcome | None = None) -> None:
        """Has callbacks accepted and ended: delivered, unless there is an outcome."""
        self.accept(*callbacks)
        while claimed := self.claim(count=500).callbacks:
            for one in claimed:
                self.settle(one.event_id, one.claim, outcome or Delivered(), error=outcome and "http_500")

    def entry(self, id_: str) -> bytes | None:
        """What Redis has of a callback."""
        found: bytes | None = self.call("get", self.keys.event("acme", id_))
        return found

    def retire(self, *ids: str, token: str = TOKEN) -> int | None:
        """Retires callbacks as they are."""
        entries = [(("acme", id_), self.entry(id_) or b"") for id_ in ids]
        return self.run(self.ledger.retire(token, entries, ()))

    def made_up(self, number: int, first: int = 0) -> list[str]:
        """Retires so many callbacks, whose entries are written by hand."""
        ids = [f"x{n}" for n in range(first, first + number)]
        entries = [(("acme", id_), f"d T s {self.now} d 1 endpoint{id_} m{id_} 9 5".encode()) for id_ in ids]
        pipe = self.client.pipeline(transaction=False)
        for (_, id_), text in entries:
            pipe.set(self.keys.event("acme", id_), text)
        self.run(pipe.execute())
        for at in range(0, number, 500):
            some = entries[at : at + 500]
            assert len(some) == self.run(self.ledger.retire(TOKEN, some, ()))
        return ids

    def tables(self) -> dict[int, tuple[int, int]]:
        """The tables of fingerprints: buckets and count, by number."""
        found = self.call("hgetall", self.keys.fingerprints)
        words = {int(number): [int(word) for word in text.split()] for number, text in found.items()}
        return {number: (buckets, count) for number, (buckets, count, _, _) in words.items()}

    def buckets(self) -> list[bytes]:
        """The keys of all sets of fingerprints."""
        found: list[bytes] = self.call("keys", f"{self.keys.prefix}:fingerprint:*")
        return found
