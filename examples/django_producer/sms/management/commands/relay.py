"""`manage.py relay`: moves what is in the outbox to the dispatcher's queue. Run one; it may be killed at any moment."""

import logging
import time
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from dispatcher import Dispatcher, InvalidInput, RedisUnavailable, StatusChange
from sms.models import Outbox

BATCH = Outbox.objects.filter(problem=None).order_by("id")


class Command(BaseCommand):
    """Relays for ever."""

    help = "Moves status changes from the outbox to the dispatcher's queue."

    def handle(self, *args: Any, **options: Any) -> None:
        """Runs until Ctrl-C."""
        if not settings.DISPATCHER_REDIS_URL:
            raise CommandError("set DISPATCHER_REDIS_URL")
        with suppress(KeyboardInterrupt), Dispatcher.from_url(settings.DISPATCHER_REDIS_URL) as dispatcher:
            while True:
                try:
                    if relay(dispatcher) == 0:
                        time.sleep(0.5)
                except RedisUnavailable as error:  # the transaction was rolled back: all of it comes again
                    logging.warning(f"the outbox waits: {error}")
                    time.sleep(1)


def relay(dispatcher: Dispatcher) -> int:
    """Moves up to 500 rows, in one transaction; returns how many it read."""
    with transaction.atomic():
        rows = moved = list(BATCH.select_for_update(skip_locked=True)[:500])  # on SQLite: no lock
        try:
            dispatcher.enqueue_many([StatusChange.from_json(row.change.encode()) for row in rows])
        except InvalidInput:  # none was enqueued; one by one, so that the others get through
            moved = [row for row in rows if enqueued(dispatcher, row)]
        Outbox.objects.filter(id__in=[row.id for row in moved]).delete()
    return len(rows)


def enqueued(dispatcher: Dispatcher, row: Outbox) -> bool:
    """Enqueues one row, or sets it aside with the reason why it cannot be used."""
    try:
        dispatcher.enqueue(StatusChange.from_json(row.change.encode()))
    except InvalidInput as error:
        row.problem = str(error)
        row.save()
        logging.error(f"row {row.id} is set aside: {error}")
        return False
    return True
