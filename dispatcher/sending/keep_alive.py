"""How long a receiver keeps an idle connection: what is known of one origin. No I/O.

A request must not go out on a connection that its receiver is just closing, because nobody knows then whether it was
received. Receivers say how long they keep one (`Keep-Alive: timeout=`), or show it when they close one.
"""

UNKNOWN_SECONDS = 4.0
"""How long an idle connection is used while nothing is known: common servers keep it for 5 s (Node.js, Apache)."""

LONGEST_SECONDS = 240.0
"""No idle connection is kept for longer: after about this time NATs forget it without a word."""

DOUBT_SECONDS, LONGEST_DOUBT_SECONDS = 30.0, 3600.0
"""How long a receiver is held to the time after which it closed a connection. Doubled each time that it was sooner than
known: it may have been restarted, or be several servers that differ."""

BLINK_SECONDS = 0.25
"""A connection that ends this soon after an answer says nothing of a time: its server may have been restarted."""


def usable(kept_seconds: float) -> float:
    """How long an idle connection may be used that is kept for this time.

    The rest is for the way there and back, for a loop that is busy, and for servers that look only once a second.
    """
    return kept_seconds - min(kept_seconds / 2, max(1.0, kept_seconds / 10))


class KeepAlive:
    """What is known of one origin. All times are seconds; `now` is that of any steady clock."""

    __slots__ = ("_bound", "_bound_until", "_doubt", "_promised", "seconds")

    def __init__(self) -> None:
        self.seconds = UNKNOWN_SECONDS
        """A connection that has been idle for this long is not used."""
        self._promised = LONGEST_SECONDS
        self._bound = self._bound_until = 0.0
        self._doubt = DOUBT_SECONDS

    def promised(self, seconds: float, now: float) -> None:
        """An answer said how long the receiver keeps the connection."""
        seconds = min(seconds, LONGEST_SECONDS)
        if seconds != self._promised:
            self._promised = seconds
            self.seconds = self._most(now)

    def survived(self, idle_seconds: float, now: float) -> None:
        """A connection was still open after this time."""
        self.seconds = max(self.seconds, min(usable(idle_seconds), self._most(now)))

    def closed(self, idle_seconds: float, now: float) -> None:
        """The receiver closed an idle connection, or one on which a request had just been sent."""
        if idle_seconds < BLINK_SECONDS:
            return
        self._bound, holds = usable(idle_seconds), LONGEST_DOUBT_SECONDS
        if self._bound < self.seconds:
            if now > self._bound_until + LONGEST_DOUBT_SECONDS:
                self._doubt = DOUBT_SECONDS
            holds, self._doubt = self._doubt, min(self._doubt * 2, LONGEST_DOUBT_SECONDS)
        self._bound_until = now + holds
        self.seconds = self._most(now)

    def silent(self, idle_seconds: float, now: float) -> None:
        """A request on a reused connection was not answered in time: something on the way may have forgotten it."""
        if idle_seconds > UNKNOWN_SECONDS:
            self.closed(UNKNOWN_SECONDS + 1.0, now)

    def learns(self, now: float) -> bool:
        """Whether to keep a connection for longer than it is used, to see when the receiver closes it."""
        return self.seconds < self._most(now)

    def _most(self, now: float) -> float:
        promised = usable(self._promised)
        return min(self._bound, promised) if now < self._bound_until else promised
