"""Which URLs an archive may have."""

from pathlib import Path
from urllib.parse import urlsplit

from dispatcher.errors import InvalidInput

SQLITE, POSTGRES = "sqlite:///", ("postgresql://", "postgres://")


def check_url(url: str) -> None:
    """Raises InvalidInput if an archive cannot have this URL; says what is wrong, without a password."""
    if url.startswith(SQLITE):
        if not Path(f"/{url.removeprefix(SQLITE)}").name:
            raise InvalidInput("sqlite:/// names no file: sqlite:////var/lib/dispatcher/archive.db")
    elif not url.startswith(POSTGRES) or not urlsplit(url).path.strip("/"):
        raise InvalidInput(
            "an archive is sqlite:////path/of/a/file or postgresql://user:password@host/database"
        )
