"""A receiver of callbacks in Python.

pip install fastapi uvicorn
WEBHOOK_SECRET=whsec_... PORT=8000 python receiver.py
"""

import base64
import hmac
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import uvicorn
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request

TOLERANCE_SECONDS = 300
MAX_BODY_BYTES = 1024 * 1024
MAX_SEEN = 100_000

app = FastAPI()
seen: dict[str, None] = {}  # the webhook-ids of late, oldest first; yours: a table with a unique key


def key_of(secret: str) -> bytes:
    """The key in a secret: what follows whsec_, decoded from base64."""
    secret = secret.strip()
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith("whsec_") or len(key) < 24:
        raise SystemExit("WEBHOOK_SECRET must be the secret you were given: whsec_...")
    return key


KEY = key_of(os.environ.get("WEBHOOK_SECRET", ""))


def problem(headers: Mapping[str, str], body: bytes) -> str | None:
    """Why a callback does not verify; None if it does. `body` is the bytes as they came."""
    event_id, timestamp, given = (
        headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
    )
    if not (event_id and timestamp and given):
        return "a header is missing"
    if not (timestamp.isdecimal() and abs(time.time() - float(timestamp)) <= TOLERANCE_SECONDS):
        return "webhook-timestamp is too old, or the clock is off"
    signed = f"{event_id}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(KEY, signed, "sha256"))
    if not any(hmac.compare_digest(expected, one.encode()) for one in given.split()):
        return "no signature matches"
    return None


def read(body: bytes) -> Any:
    """The JSON in a body. Raises ValueError or RecursionError where there is none."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(body.decode(), parse_constant=refuse)


def work(event_id: str, callback: Any) -> None:
    """Your work; it runs after the answer."""
    line = f"callback {event_id} {json.dumps(callback)}\n"
    print(line, end="", flush=True)  # in one piece: others print at the same time


@app.post("/callbacks", status_code=204)
async def callbacks(request: Request, tasks: BackgroundTasks) -> None:
    """Verifies a callback, answers at once, and works afterwards."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, "the body is too long")
    if found := problem(request.headers, body):
        raise HTTPException(401, found)
    try:
        callback = read(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None
    event_id = request.headers["webhook-id"]
    if event_id in seen:
        return  # it came before: answered 2xx again, and not worked on
    seen[event_id] = None  # store the callback here, before the answer: it does not come again
    if len(seen) > MAX_SEEN:
        del seen[next(iter(seen))]
    tasks.add_task(work, event_id, callback)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
