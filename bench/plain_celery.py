"""A contender: callbacks by Celery alone, as a good engineer would write them in a day.

One task for each status change; one `httpx.Client` per process; SET NX, so that an eventId is sent once; `autoretry_for`
with exponential backoff; late acknowledgement, so that a killed worker loses nothing; the same signature.
"""

import functools
import json
import os
import time
from typing import Any

import httpx
import redis
from celery import Celery

from dispatcher.signing import key_of, webhook_headers

SECRET = "whsec_" + "YmVuY2htYXJrLXNlY3JldC1vZi0zMi1ieXRlcyEhISE="
KEPT_SECONDS = 604_800

app = Celery("plain", broker=os.environ.get("PLAIN_REDIS_URL", "redis://"))
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=16,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@functools.cache
def _client() -> httpx.Client:
    return httpx.Client(timeout=10, limits=httpx.Limits(max_connections=100, keepalive_expiry=4))


@functools.cache
def _redis() -> "redis.Redis":
    return redis.Redis.from_url(os.environ["PLAIN_LEDGER_URL"])


@functools.cache
def _key() -> bytes:
    return key_of(SECRET)


def body_of(change: dict[str, Any]) -> str:
    """The callback's JSON."""
    message = change["message"]
    told = ("segments", "units", "attempts", "cost", "reference")
    document = {
        "eventId": change["eventId"],
        "eventType": f"MESSAGE_{change['status']}",
        "timestamp": change["timestamp"],
        "message": {
            "uuid": message["uuid"],
            "src": message["src"],
            "dest": message["dest"],
            "status": change["status"],
        }
        | {name: message[name] for name in told if name in message},
    }
    return json.dumps(document, separators=(",", ":"))


@app.task(
    bind=True, autoretry_for=(httpx.HTTPError,), retry_backoff=15, retry_backoff_max=61_440, max_retries=4
)  # type: ignore[untyped-decorator]
def deliver(task: Any, change: dict[str, Any]) -> None:
    """Delivers one callback."""
    ledger = f"event:{change['workspace']}:{change['eventId']}"
    if task.request.retries == 0 and not _redis().set(ledger, "pending", nx=True, ex=KEPT_SECONDS):
        return
    body = body_of(change).encode()
    headers = webhook_headers([_key()], change["eventId"], int(time.time()), body)
    answer = _client().post(
        change["callbackUrl"], content=body, headers={"content-type": "application/json"} | headers
    )
    answer.raise_for_status()
    _redis().set(ledger, "delivered", ex=KEPT_SECONDS)
