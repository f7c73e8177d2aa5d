"""Builds what the HTTP API of an installation with an archive reads."""

from collections.abc import Mapping
from typing import Any

from config.settings import Settings
from dispatcher.store.archive.archive import Archive
from dispatcher.store.archive.history import CallbacksAndArchive
from dispatcher.store.archive.stored_messages import MessagesAndArchive


def with_archive(settings: Settings, stored: Mapping[str, Any], archive: Archive) -> dict[str, Any]:
    """What is read from the archive too, by the names of ApiParts; `stored`: from Redis."""
    retention_ms = settings.status_retention_seconds * 1000
    return {
        "messages": MessagesAndArchive(stored["messages"], archive.messages, retention_ms),
        "callbacks": CallbacksAndArchive(stored["callbacks"], archive),
    }
