"""Moves what is in the outbox to the dispatcher's queue. Run one; it may be killed at any moment."""

import logging
import os
import time
from contextlib import suppress

from sqlalchemy import delete, select

from database import Outbox, Session
from dispatcher import Dispatcher, InvalidInput, RedisUnavailable, StatusChange

BATCH = select(Outbox).where(Outbox.problem.is_(None)).order_by(Outbox.id).limit(500)


def relay(dispatcher: Dispatcher) -> int:
    """Moves up to 500 rows, in one transaction; returns how many it read."""
    with Session.begin() as session:
        rows = session.scalars(BATCH.with_for_update(skip_locked=True)).all()  # on SQLite: no lock
        moved = list(rows)
        try:
            dispatcher.enqueue_many([StatusChange.from_json(row.change.encode()) for row in rows])
        except InvalidInput:  # none was enqueued; one by one, so that the others get through
            moved = [row for row in rows if enqueued(dispatcher, row)]
        session.execute(delete(Outbox).where(Outbox.id.in_([row.id for row in moved])))
        return len(rows)


def enqueued(dispatcher: Dispatcher, row: Outbox) -> bool:
    """Enqueues one row, or sets it aside with the reason why it cannot be used."""
    try:
        dispatcher.enqueue(StatusChange.from_json(row.change.encode()))
    except InvalidInput as error:
        row.problem = str(error)
        logging.error(f"row {row.id} is set aside: {error}")
        return False
    return True


def main() -> None:
    """Relays until Ctrl-C."""
    url = os.environ.get("DISPATCHER_REDIS_URL")
    if not url:
        raise SystemExit("set DISPATCHER_REDIS_URL")
    with suppress(KeyboardInterrupt), Dispatcher.from_url(url) as dispatcher:
        while True:
            try:
                if relay(dispatcher) == 0:
                    time.sleep(0.5)
            except RedisUnavailable as error:  # the transaction was rolled back: all of it comes again
                logging.warning(f"the outbox waits: {error}")
                time.sleep(1)


if __name__ == "__main__":
    main()
