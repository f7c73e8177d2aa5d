"""Which URLs an archive may have."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from dispatcher.errors import InvalidInput
from dispatcher.store.redis_url import ENCODE

_HOST = re.compile(r"(?:\[[^][]*\]|[^][:]*)(?::(\d{0,5}))?")
SQLITE, POSTGRES = "sqlite:///", ("postgresql://", "postgres://")


def check_url(url: str) -> None:
    """Raises InvalidInput if an archive cannot have this URL; says what is wrong, without a password."""
    if url.startswith(SQLITE):
        path = Path(url.removeprefix(SQLITE))
        if not path.name:
            raise InvalidInput("sqlite:/// names no file: sqlite:////var/lib/dispatcher/archive.db")
        if not path.is_absolute():
            raise InvalidInput(
                f"{url} is a file in whatever folder a process runs in, so each has its own: with a fourth slash it is the whole path"
            )
    elif not url.startswith(POSTGRES) or not _is_whole(url):
        raise InvalidInput(
            "an archive is sqlite:////path/of/a/file or postgresql://user:password@host/database"
        )
    elif not _is_encoded(url):
        raise InvalidInput(f"the archive's URL holds a blank, a control character or an @ too many; {ENCODE}")


def _is_encoded(url: str) -> bool:
    """Whether libpq finds its host where it is: it would quote what is left of a password that it takes for a part of the host or database."""
    parts = urlsplit(url)
    return url.isprintable() and " " not in url and parts.netloc.count("@") < 2 and "@" not in parts.path


def _is_whole(url: str) -> bool:
    """Whether it names a database, and the port of each of its hosts is one."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    hosts = [_HOST.fullmatch(one) for one in parts.netloc.rpartition("@")[2].split(",")]
    return bool(parts.path.strip("/")) and all(one and 0 < int(one[1] or 5432) < 65536 for one in hosts)
