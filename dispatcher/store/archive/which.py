"""Which of the callbacks that have ended are wanted."""

import msgspec

from dispatcher.store.stored_callback import StoredCallback

FOREVER_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""


class Which(msgspec.Struct, frozen=True):
    """A selection: each field that is given narrows it. Times are ms since 1970."""

    workspace: str = ""
    """Empty: of all."""
    states: tuple[str, ...] = ()
    """Empty: any end."""
    since_ms: int = 0
    """Earliest end."""
    until_ms: int = FOREVER_MS
    """Latest end."""
    origin: str = ""
    """The endpoint's scheme, host and port."""
    subscription: str | None = None
    """Empty: the default one."""
    error: str = ""
    """The last attempt's error."""

    def has(self, one: StoredCallback) -> bool:
        """Whether a callback of one of the wanted workspaces matches."""
        ended_ms = one.ended_ms if one.ended_ms is not None else -1
        return (
            (not self.states or one.state in self.states)
            and self.since_ms <= ended_ms <= self.until_ms
            and self.narrows(one)
        )

    def narrows(self, one: StoredCallback) -> bool:
        """Whether a callback is to this endpoint, of this subscription and has this error."""
        return (
            self.origin in ("", one.endpoint)
            and self.subscription in (None, one.subscription)
            and self.error in ("", one.error)
        )
