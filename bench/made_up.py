"""Made-up callbacks of some months, each from its number, so that none need be remembered to be looked up."""

import uuid
from hashlib import blake2b

from dispatcher.store.archive.archived_callback import ArchivedCallback, Id, Kept

BATCH, CUSTOMERS, DAYS = 1000, 100, 90
OF_A_MESSAGE = 3
"""Callbacks of a message; they end one after the other."""
FAILED_EVERY = 33
DAY_MS = 86_400_000
FIRST_MS = 20_500 * DAY_MS
TOOK_MS = 35
BODY = b"https://hooks.customer.example/callbacks\n" + b"x" * 340


class MadeUp:
    """`rows` callbacks, evenly over the days."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def batch(self, first: int) -> list[ArchivedCallback]:
        """The next ones, from a number on."""
        return [self._one(number) for number in range(first, min(first + BATCH, self.rows))]

    def key(self, number: int) -> Id:
        """Workspace and id."""
        return f"customer{number // OF_A_MESSAGE % CUSTOMERS}", _uuid("event", number)

    def message(self, number: int) -> str:
        """Its message's uuid."""
        return _uuid("message", number // OF_A_MESSAGE)

    def ended_ms(self, number: int) -> int:
        """When it ended."""
        return FIRST_MS + number * DAYS * DAY_MS // self.rows + TOOK_MS

    def day(self, number: int) -> int:
        """The day on which it ended."""
        return self.ended_ms(number) // DAY_MS

    def _one(self, number: int) -> ArchivedCallback:
        workspace, id_ = self.key(number)
        failed = number % FAILED_EVERY == 0
        state, record = ("failed", "500 http_500") if failed else ("d", "200")
        accepted = self.ended_ms(number) - TOOK_MS
        entry = (
            f"{_uuid('digest', number)[:18]} MESSAGE_DELIVERED d {accepted} {state} 1 {'A' * 12} {self.message(number)} "
            f"172800000 {TOOK_MS}\n3 12 {record}"
        )
        name = f"{workspace} https://hooks.{workspace}.example:443"
        answer, body = (b"Internal Server Error", BODY) if failed else (None, None)
        return Kept(workspace, id_, entry.encode(), name, answer, body).archived()


def _uuid(of: str, number: int) -> str:
    return str(uuid.UUID(bytes=blake2b(f"{of} {number}".encode(), digest_size=16).digest()))
