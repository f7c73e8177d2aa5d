"""Hints as Celery messages: parsing and building them. No I/O.

Anyone who can write to the broker can put anything there. So only a message's endpoints and probe are used,
and Celery gets a new message built from them (`hint_channel.py`).
"""

import json
import re
import uuid
from base64 import b64decode, b64encode
from typing import Any

from config.broker import HINT_TASK
from dispatcher.store.replies import Hint
from dispatcher.worker.hints import HINT_ENDPOINTS

MAX_BODY = 4096
"""Characters. Our own hints have at most 2,000."""
ENDPOINT = re.compile(r"[A-Za-z0-9_-]{12}( [A-Za-z0-9_-]{1,64}( [0-9]{1,4})?)?")
"""An endpoint id (`dispatcher.store.keys.endpoint_id`), followed by the workspace if the sender knows it, and by the partition."""
PROBE = re.compile(r"[0-9a-f]{1,64}")


class NotAHint(Exception):
    """A message that no worker or command of ours can have sent."""


def text_of(hint: Hint) -> str:
    """A hint as written in a Celery message: `endpoint workspace partition`, without the partition if it is the first."""
    endpoint, workspace, partition = hint
    return f"{endpoint} {workspace} {partition}" if partition else f"{endpoint} {workspace}".rstrip()


def hint_of(text: str) -> Hint:
    """Parses what `text_of` writes; older versions send the endpoint alone."""
    endpoint, workspace, partition = f"{text}  ".split(" ")[:3]
    return Hint(endpoint, workspace, int(partition or 0))


def read_hint(raw: Any) -> tuple[list[str], str]:
    """The endpoints and the probe (or "") of a raw kombu message. Raises NotAHint."""
    try:
        if (raw["headers"]["task"], raw["content-type"]) != (HINT_TASK, "application/json"):
            raise NotAHint("another task, or another content type")
        body = raw["body"]
        if len(body) > MAX_BODY:
            raise NotAHint(f"a body of {len(body)} characters")
        (endpoints,), keywords, _ = json.loads(b64decode(body, validate=True))
        probe = keywords.pop("probe", "")
        if keywords or not _are_endpoints(endpoints) or (probe and not PROBE.fullmatch(probe)):
            raise NotAHint("arguments that are not a hint's")
    except NotAHint:
        raise
    except Exception as error:  # any other malformed shape
        raise NotAHint(type(error).__name__) from None
    return endpoints, probe


def _are_endpoints(given: Any) -> bool:
    return len(given) <= HINT_ENDPOINTS and isinstance(given, list) and all(map(ENDPOINT.fullmatch, given))


def make_message(endpoints: list[str], probe: str) -> dict[str, Any]:
    """A raw message that holds only a hint (Celery's message protocol, version 2)."""
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
