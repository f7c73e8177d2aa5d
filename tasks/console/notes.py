"""Sentences about what was done, which the next page shows once: in memory, so that no URL can put words there."""

import secrets
from collections import OrderedDict

MOST = 1000


class Notes:
    """The notes of one process."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def keep(self, text: str, who: str) -> str:
        """Keeps a note for a person; returns what finds it."""
        key = secrets.token_urlsafe(6)
        self._kept[key] = who, text
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return key

    def take(self, key: str, who: str) -> str:
        """The person's note, once; empty if there is none."""
        if key not in self._kept or self._kept[key][0] != who:
            return ""
        return self._kept.pop(key)[1]
