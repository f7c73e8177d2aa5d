"""A worker's channel to a Redis broker: drops and logs every message that is not a hint.

In Celery some malformed messages raise into the worker's loop. The messages that the worker had fetched are then
restored, and the next worker dies of them. So each message is checked before Celery sees it.

kombu has no hook for that: this file alone uses its private names. tests/redis/test_hint_channel.py covers each use,
and pyproject.toml bounds the kombu versions that have them.
"""

from queue import Empty
from typing import Any

import structlog
from kombu.transport import redis

from tasks.hint_message import NotAHint, make_message, read_hint

log = structlog.get_logger()


class HintQoS(redis.QoS):
    """kombu's record in Redis of messages that are not acknowledged yet."""

    _forgets = False

    def restore_visible(self, *args: Any, **kwargs: Any) -> Any:
        """As kombu's, but drops a dead worker's messages unread: they may be forged, and a waker hints again."""
        self._forgets = True
        try:
            return super().restore_visible(*args, **kwargs)  # type: ignore[no-untyped-call]
        finally:
            self._forgets = False

    def restore_by_tag(self, tag: Any, *args: Any, **kwargs: Any) -> None:
        """As kombu's for messages that this worker fetched itself and returns at its end."""
        if self._forgets:
            self._remove_from_indices(tag).execute()  # type: ignore[no-untyped-call]
        else:
            super().restore_by_tag(tag, *args, **kwargs)  # type: ignore[no-untyped-call]


class HintChannel(redis.Channel):
    """A channel to one Redis that gives Celery only hints, in messages built here."""

    QoS = HintQoS

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """As kombu's, but checks each message first."""
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
        """As kombu's, which lets its JSON reader's errors escape into the worker's loop; here they drop the message."""
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, RecursionError) as problem:  # not JSON, not UTF-8, nested too deeply
            log.warning("hint.dropped", problem=type(problem).__name__)
            raise Empty from None


class SentinelHintChannel(HintChannel, redis.SentinelChannel):
    """The same to the primary that sentinels name."""


def take_only_hints() -> None:
    """Makes every connection of this process to a Redis broker use one of these channels."""
    redis.Transport.Channel = HintChannel
    redis.SentinelTransport.Channel = SentinelHintChannel
