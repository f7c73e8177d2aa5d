"""Celery's broker by Sentinel: kombu's own transport, with our options. Loads redis-py's credentials: import it lazily."""

from dataclasses import replace
from typing import Any

from redis.backoff import NoBackoff
from redis.credentials import UsernamePasswordCredentialProvider
from redis.retry import Retry

from dispatcher.errors import RedisUnavailable
from dispatcher.store.connection import connect, translated
from dispatcher.store.redis_url import RedisUrl
from dispatcher.store.sentinel import TIMEOUT_SECONDS
from dispatcher.store.topology import Topology


def of(topology: Topology) -> tuple[str, dict[str, Any]]:
    """kombu's URL, which has a part for each sentinel and in it the servers' login, and its transport options."""
    sentinels = [RedisUrl.parse(url) for url in topology.urls]
    parts = [
        replace(topology.server, scheme="sentinel", host=one.host, port=one.port).plain for one in sentinels
    ]
    return ";".join(parts), {"master_name": topology.master, "sentinel_kwargs": _asked(sentinels[0])}


def why_none(url: str) -> str:
    """Why the sentinels of a redis+sentinel:// URL name no primary, in one line."""
    try:
        with connect(url) as client, translated(url):
            client.ping()
    except RedisUnavailable as error:
        return str(error)
    return "the sentinels named no primary, and name one now"


def _asked(sentinel: RedisUrl) -> dict[str, Any]:
    """redis-py's options of a connection to a sentinel; no `repr` of them shows the password."""
    login = UsernamePasswordCredentialProvider(sentinel.username or None, sentinel.password or None)
    return {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "ssl": sentinel.scheme == "rediss",
        **({"credential_provider": login} if sentinel.password else {}),
        **sentinel.others,
        **sentinel.tls,
    }
