"""On the path of a worker: the process dies when it reads one certain event, as a bug in C would have it."""

import os

from dispatcher import model

_decode = model.decode_json


def _decode_or_die(raw: bytes) -> object:
    document = _decode(raw)
    if isinstance(document, dict) and document.get("eventId") == os.environ["DEADLY_EVENT_ID"]:
        os._exit(99)
    return document


model.decode_json = _decode_or_die
