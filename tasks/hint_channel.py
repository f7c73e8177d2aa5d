"""A worker's channel to a Redis broker: what is not a hint is dropped, with a line in the log.

Celery lets some of what a broker may hold raise into the worker's loop; what a worker had taken by then is restored,
and the next worker dies of it. So a message is looked at before Celery sees it.

kombu has no hook for that: this file alone uses its private names. tests/redis/test_hint_channel.py shows each use, and
pyproject.toml says which versions of kombu have them.
"""

from queue import Empty
from typing import Any

import structlog
from kombu.transport import redis

from tasks.hints import NotAHint, make_message, read_hint

log = structlog.get_logger()


class HintQoS(redis.QoS):
    """What kombu keeps of messages that are not acknowledged yet, in Redis."""

    _forgets = False

    def restore_visible(self, *args: Any, **kwargs: Any) -> Any:
        """As kombu's, but what a dead worker had taken is forgotten, unread: it may be forged, and a waker hints again."""
        self._forgets = True
        try:
            return super().restore_visible(*args, **kwargs)  # type: ignore[no-untyped-call]
        finally:
            self._forgets = False

    def restore_by_tag(self, tag: Any, *args: Any, **kwargs: Any) -> None:
        """As kombu's for what this worker has taken itself, and gives back at its end."""
        if self._forgets:
            self._remove_from_indices(tag).execute()  # type: ignore[no-untyped-call]
        else:
            super().restore_by_tag(tag, *args, **kwargs)  # type: ignore[no-untyped-call]


class HintChannel(redis.Channel):
    """A channel that gives Celery only hints, as messages that are made here."""

    QoS = HintQoS

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """As kombu's; what comes is looked at first."""
        tag = super().basic_consume(queue, *args, **kwargs)  # type: ignore[no-untyped-call]
        if queue in self._fanout_queues:  # Celery's remote control, where it is allowed
            return tag
        deliver = self.connection._callbacks[queue]

        def deliver_hint(raw: Any) -> None:
            try:
                message = make_message(*read_hint(raw))
            except NotAHint as problem:
                log.warning("hint.dropped", problem=str(problem))
            else:
                deliver(message)

        self.connection._callbacks[queue] = deliver_hint
        return tag

    def _brpop_read(self, **options: Any) -> Any:
        """As kombu's, which raises what its JSON reader does into the worker's loop."""
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, RecursionError) as problem:  # no JSON, no UTF-8, too deep
            log.warning("hint.dropped", problem=type(problem).__name__)
            raise Empty from None


def take_only_hints() -> None:
    """Gives every connection of this process to a Redis broker such channels."""
    redis.Transport.Channel = HintChannel
