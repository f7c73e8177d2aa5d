"""Celery's broker: URL, TLS and options, by the same rules as our own connection to Redis."""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any
from urllib.parse import unquote

from dispatcher.errors import InvalidInput, RedisUnavailable, sentence
from dispatcher.store.connection import other_scheme, safe_url, tls_problem, translate
from dispatcher.store.redis_url import SCHEMES, split_url, with_authorities
from dispatcher.store.topology import Kind, Topology, hosts_url

HINT_TASK = "dispatcher.deliver"
"""The name of the only task, which is a hint."""
OVERRIDES = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")


def redis_of(url: str) -> Topology | None:
    """The broker as one Redis or its sentinels; None if it is neither.

    Raises InvalidInput, whose text quotes nothing of the URL.
    """
    scheme, mark, rest = url.strip().partition("://")
    match scheme.lower():
        case "redis+socket":
            path, _, query = rest.partition("?")
            return Topology.parse(f"unix{mark}{path}?{query.replace('virtual_host=', 'db=')}")
        case "rediss+socket":
            raise InvalidInput("asks for TLS on a unix socket: write unix:///path")
        case "sentinel":
            raise InvalidInput("must say which primary: write redis+sentinel://HOST:PORT,HOST:PORT/NAME")
        case known if known in SCHEMES or known.startswith(("redis+", "rediss+")):
            return _one(Topology.parse(url))
    import_module("config.other_broker").check(url)
    return None


def _one(topology: Topology) -> Topology:
    if topology.kind in (Kind.ONE, Kind.SENTINEL):
        return topology
    what = "a cluster" if topology.kind is Kind.CLUSTER else topology.kind
    raise InvalidInput(
        f"names {what}, and Celery's broker is one Redis, Sentinel (redis+sentinel://) or RabbitMQ (amqp://)"
    )


def of(url: str, ca_file: str | None) -> tuple[str, dict[str, Any] | None, dict[str, Any]]:
    """Celery's `broker_url` and `broker_use_ssl`, and the URL's own transport options. Raises InvalidInput.

    kombu does not verify certificates of a rediss:// URL without TLS options, nor names of an amqps:// one, so these are always set.
    """
    for name in OVERRIDES:
        if os.environ.get(name):
            raise InvalidInput(
                f"{name} (or celery --broker) is set: unset it, and set DISPATCHER_BROKER_URL instead"
            )
    where = redis_of(with_authorities(url, ca_file))
    if where is None:
        return url.strip(), import_module("config.other_broker").tls(url.strip(), ca_file), {}
    server = where.server
    if where.kind is Kind.SENTINEL:
        urls, options = import_module("config.sentinel_broker").of(where)
        return urls, server.tls or None, server.others | options
    return server.celery, server.tls or None, server.others


def transport_options(key_prefix: str, others: Mapping[str, Any]) -> dict[str, Any]:
    """kombu's transport options; `others`, from the URL, take precedence."""
    return {
        "global_keyprefix": f"{key_prefix}:celery:",
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        **others,
    }


def refusal(error: BaseException, url: str) -> RedisUnavailable:
    """Our error for an error of kombu's; it has a `why` if the broker is a Redis that answers and refuses."""
    cause = error.__cause__ or error
    found = translate(cause, url) if isinstance(cause, Exception) else cause
    return found if isinstance(found, RedisUnavailable) else RedisUnavailable(problem(error, url))


def problem(error: BaseException, url: str, ca_file: str | None = None) -> str:
    """Why the broker cannot be used, in one line, with all users and passwords removed from kombu's text.

    Asks sentinels that named no primary again: redis-py's error does not say why.
    """
    shown = ";".join(safe_url(one) for one in _each(url))
    text = tls_problem(error, shown) or " ".join(str(error).split()) or type(error).__name__
    if "No master found" in text and hosts_url(url):
        return str(import_module("config.sentinel_broker").why_none(with_authorities(url, ca_file)))
    if hint := other_scheme(text, url):
        text = sentence(text) + hint
    try:
        logins = [login for one in _each(url) for login in _logins(one)]
    except InvalidInput:
        return type(error).__name__
    for login in logins:
        text = text.replace(f"{login}@", "")
    passwords = {shape for login in logins for shape in _shapes(login.partition(":")[2])}
    for password in sorted(passwords, key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(password, "********")
    return text


def _shapes(password: str) -> set[str]:
    return {password, unquote(password)} - {""}


def _logins(url: str) -> list[str]:
    """Each `user:password` that a text about a URL may have, as it is written there and as kombu writes it."""
    if (hosts := hosts_url(url)) is None:
        return _login(url)
    found = Topology.parse(url)
    written = [hosts.login.removesuffix("@")] if hosts.login else []
    return written + _login(found.server.plain) + _login(found.urls[0])


def _login(url: str) -> list[str]:
    login = split_url(url).netloc.rpartition("@")[0]
    return [login] if login else []


def _each(url: str) -> list[str]:
    """The URLs of a list, as Celery separates them; Redis is one URL, whose password may hold a semicolon."""
    return [url] if url.strip().lower().startswith(("redis", "unix")) else url.split(";")
