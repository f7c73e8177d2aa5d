"""The site that may show the portal in a frame: it goes into a header, so only what can stand there unchanged is taken."""

import re

from dispatcher.errors import InvalidInput

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ORIGIN = re.compile(rf"(https?)://({_LABEL}(?:\.{_LABEL})*)(?::([0-9]{{1,5}}))?")
_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}")
MOST_CHARACTERS = 253 + len("https://:65535")
WRITE = "write https://HOST or https://HOST:PORT, without a path and without wildcards"


def frame_origin(text: str) -> str:
    """The origin in lower case, as in a source list of CSP 3 (§2.3.1). Raises InvalidInput.

    http:// is for this machine alone: elsewhere who is on the way could put a page of their own around the portal.
    """
    found = _ORIGIN.fullmatch(text.lower()) if text.isascii() and len(text) <= MOST_CHARACTERS else None
    if found is None or (found[3] and not 0 < int(found[3]) <= 65_535):
        raise InvalidInput(WRITE)
    if found[1] == "http" and not _LOOPBACK.fullmatch(found[2]):
        raise InvalidInput("must be https://, unless its host is localhost or 127.0.0.1")
    return found[0]
