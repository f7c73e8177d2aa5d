"""Checks Celery's broker: whether it accepts messages, and whether the connection to it is encrypted."""

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from kombu.connection import Connection
from redis.exceptions import NoPermissionError, RedisError

from config import broker
from config.settings import Settings
from dispatcher.errors import InvalidInput
from dispatcher.store.check_finding import Finding, Verdict
from dispatcher.store.connection_security import encryption

CONNECT_SECONDS = 4.0
"""Celery's own default."""
ANSWER_SECONDS = 2.0
"""A broker that does not answer for so long is away, as a server of the ledger is; Celery itself waits longer."""

SET_ANOTHER = "set DISPATCHER_BROKER_URL to one Redis, Sentinel (redis+sentinel://) or RabbitMQ"
NO_BROKER = {
    "cluster": "the broker is a node of a cluster: Celery cannot use its queues there",
    "sentinel": "the broker is a sentinel, not a server",
}
"""By a Redis's mode: why it is no broker."""


def look_at_broker(settings: Settings) -> list[Finding]:
    """Whether Celery's broker accepts messages, and how Celery's connection to it is encrypted."""
    try:
        url, tls, others = broker.of(settings.celery_url, settings.redis_ca_file)
    except InvalidInput as error:
        return [Finding("celery", Verdict.BAD, str(error), "set DISPATCHER_BROKER_URL")]
    shown = settings.celery_url if url.startswith("sentinel:") else url
    options = broker.transport_options(settings.key_prefix, {"socket_timeout": ANSWER_SECONDS} | others)
    connecting: Any = Connection(url, ssl=tls, transport_options=options, connect_timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]  # kombu ships no types
    with connecting as connection:
        encrypted = celery_encryption(connection)
        try:
            connection.ensure_connection(max_retries=1, timeout=ANSWER_SECONDS)
        except Exception as error:
            if "MISCONF" in str(error):
                detail, advice = (
                    "the broker refuses writes: it cannot write its files",
                    "make room on its disk",
                )
                return [Finding("celery", Verdict.BAD, detail, advice), encrypted]
            why = broker.problem(error, shown, settings.redis_ca_file)
            detail = f"the broker is not reachable: {why}"
            return [Finding("celery", Verdict.BAD, detail, "look at DISPATCHER_BROKER_URL"), encrypted]
        if connection.transport.driver_type == "memory":
            detail, advice = (
                "the broker is each process's own memory: hints reach no other worker",
                SET_ANOTHER,
            )
            return [Finding("celery", Verdict.WARNING, detail, advice), encrypted]
        if detail := NO_BROKER.get(_mode(connection), ""):
            return [Finding("celery", Verdict.BAD, detail, SET_ANOTHER), encrypted]
        if refused := _refused(connection):
            detail = f"its user may not {', '.join(refused)}: hints do not come through"
            advice = "give it the rights of docs/operations.md, A user for each role"
            return [Finding("celery", Verdict.BAD, detail, advice), encrypted]
    return [Finding("celery", Verdict.OK, "the broker is reachable"), encrypted]


def _refused(connection: Any) -> list[str]:
    """What a worker does all the time with a broker that is a Redis, and its user there may not. Leaves nothing behind."""
    if connection.transport.driver_type != "redis":
        return []
    client, key = connection.default_channel.client, f"check-{secrets.token_hex(8)}"
    refused: list[str] = []
    tries: tuple[tuple[str, Callable[[], object]], ...] = (
        ("LPUSH", lambda: client.lpush(key, "x")),
        ("BRPOP", lambda: client.brpop([key], 0.01)),
        ("SADD", lambda: client.sadd(f"{key}-set", "x")),
    )
    for name, work in tries:
        try:
            work()
        except NoPermissionError:
            refused.append(name)
        except (
            RedisError
        ):  # a broker that takes no writes now: what the ledger's Redis says is told for that too
            break
    with suppress(RedisError):
        client.delete(key, f"{key}-set")
    return refused


def _mode(connection: Any) -> str:
    """What kind of a Redis the broker is, as far as it tells."""
    if connection.transport.driver_type == "redis":
        with suppress(Exception):  # our Redis user there need not be allowed to ask
            found = connection.default_channel.client.info("server")
            return str(found.get("server_mode") or found["redis_mode"])  # Valkey's word, and Redis's
    return ""


def celery_encryption(connection: Any) -> Finding:
    """How kombu's connection is really encrypted, whatever the settings say."""
    subject, scheme = "celery encryption", str(connection.transport_cls)
    if scheme in ("redis", "rediss", "sentinel", "amqp", "pyamqp") and not (
        connection.ssl and "amqp" in scheme
    ):
        own = connection.hostname or ""
        hosts = [urlsplit(url).hostname or "" for url in connection.alt]  # a list of brokers, or of sentinels
        hosts = hosts or ["" if own.startswith("socket://") else own]
        found = [encryption(subject, host, connection.ssl or {}) for host in hosts]
        worst = next((one for one in found if one.verdict is not Verdict.OK), found[0])
        return replace(worst, advice=worst.advice.replace("rediss:", "amqps:")) if "amqp" in scheme else worst
    if scheme == "amqps" and isinstance(connection.ssl, dict) and "server_hostname" in connection.ssl:
        return encryption(subject, connection.hostname or "", connection.ssl)
    if scheme == "amqps":
        detail = "TLS, certificates verified, but not their names: Celery has one name for all hosts"
        return Finding(subject, Verdict.WARNING, detail, "name one host, or use a network you trust")
    return Finding(
        subject, Verdict.UNKNOWN, f"{scheme}: by that transport's own rules", "see Celery's manual"
    )
