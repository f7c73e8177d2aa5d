"""Hints as they come from the broker: only what is one reaches Celery, and as a message that is made here.

Whoever can write to the broker can put anything there. Celery lets some of it raise into the worker's loop, and what
it had taken by then is restored, for the next worker to die of. So nothing of a message is used but the endpoints.
"""

import json
import re
import uuid
from base64 import b64decode, b64encode
from queue import Empty
from typing import Any

import structlog
from kombu.transport import redis

from config.broker import HINT_TASK
from dispatcher.worker.hints import HINT_ENDPOINTS

MAX_BODY = 4096
"""Characters. A hint of ours has 2,000 at most."""
ENDPOINT = re.compile(r"[A-Za-z0-9_-]{12}( [A-Za-z0-9_-]{1,64})?")
"""`dispatcher.store.keys.endpoint_id` makes them; behind it is the workspace, where whoever hints knows it."""
PROBE = re.compile(r"[0-9a-f]{1,64}")

log = structlog.get_logger()


class NotAHint(Exception):
    """A message of the broker's that no worker and no command of ours has sent."""


def read_hint(raw: Any) -> tuple[list[str], str]:
    """The endpoints, and the probe, of a raw message of kombu's. Raises NotAHint."""
    try:
        if (raw["headers"]["task"], raw["content-type"]) != (HINT_TASK, "application/json"):
            raise NotAHint("another task, or another content type")
        body = raw["body"]
        if len(body) > MAX_BODY:
            raise NotAHint(f"a body of {len(body)} characters")
        (endpoints,), keywords, _ = json.loads(b64decode(body, validate=True))
        probe = keywords.pop("probe", "")
        fine = len(endpoints) <= HINT_ENDPOINTS and isinstance(endpoints, list) and not keywords
        if not fine or not all(map(ENDPOINT.fullmatch, endpoints)) or (probe and not PROBE.fullmatch(probe)):
            raise NotAHint("arguments that are none of a hint")
    except NotAHint:
        raise
    except Exception as error:  # whatever may be wrong with its shape
        raise NotAHint(type(error).__name__) from None
    return endpoints, probe


def make_message(endpoints: list[str], probe: str) -> dict[str, Any]:
    """A raw message with a hint and nothing else (Celery's message protocol, version 2)."""
    id_ = str(uuid.uuid4())
    keywords = {"probe": probe} if probe else {}
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return {
        "body": b64encode(json.dumps([[endpoints], keywords, embed]).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": HINT_TASK, "id": id_, "root_id": id_, "retries": 0},
        "properties": {
            "correlation_id": id_,
            "body_encoding": "base64",
            "delivery_tag": id_,
            "delivery_info": {"exchange": "", "routing_key": "dispatcher"},
            "priority": 0,
        },
    }


class HintQoS(redis.QoS):
    """What kombu keeps of messages that are not acknowledged yet, in Redis."""

    _forgets = False

    def restore_visible(self, *args: Any, **kwargs: Any) -> Any:
        """As kombu's, but forgets, unread, what a worker had taken that died: it may be forged, and a waker hints again."""
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
    """A channel to the broker that drops what is not a hint, with a line in the log."""

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
