"""Opens the archive that a URL names."""

from importlib import import_module
from pathlib import Path

from dispatcher.errors import InvalidInput
from dispatcher.store.archive.archive import Archive
from dispatcher.store.archive.sqlite import SqliteArchive
from dispatcher.store.archive.url import SQLITE, check_url
from dispatcher.store.connection import safe_url


def open_archive(url: str, answer_seconds: float | None = None) -> Archive:
    """The archive; nothing is connected yet. Raises InvalidInput, for a PostgreSQL without its library too.

    answer_seconds: the longest wait for PostgreSQL's answer, if not the usual one
    """
    check_url(url)
    if url.startswith(SQLITE):
        return SqliteArchive(Path(url.removeprefix(SQLITE)))
    try:
        postgres = import_module("dispatcher.store.archive.postgres")
    except ImportError as error:
        raise InvalidInput(
            "an archive in PostgreSQL needs: pip install '.[archive]' in a checkout"
        ) from error
    postgres.check_readable(url)
    found: Archive = postgres.PostgresArchive(url, safe_url(url), answer_seconds)
    return found
