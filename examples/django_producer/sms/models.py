"""The tables: messages, and the outbox of their status changes."""

import uuid
from datetime import UTC, datetime

from django.db import models

import dispatcher


class Message(models.Model):
    """A message, as this backend keeps it."""

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4)
    workspace = models.CharField(max_length=64)
    src = models.CharField(max_length=256)
    dest = models.CharField(max_length=256)
    status = models.CharField(max_length=16)

    def save_with_status_change(self) -> None:
        """Saves the message, and writes its new status into the outbox; call it in a transaction.

        Raises ValueError where the status change cannot be enqueued.
        """
        change = dispatcher.StatusChange(
            workspace=self.workspace,
            status=dispatcher.Status(self.status),
            timestamp=datetime.now(UTC),
            message=dispatcher.Message(uuid=str(self.uuid), src=self.src, dest=self.dest),
        )
        self.save()
        Outbox.objects.create(change=change.to_json().decode())


class Outbox(models.Model):
    """A status change that is committed and not yet enqueued."""

    change = models.TextField()
    """JSON, as `StatusChange.to_json` writes it. Not a JSONField, which would read `0.10` as the float 0.1."""
    problem = models.TextField(null=True)
    """Why it cannot be enqueued; such a row is set aside."""
