"""Celery's broker: URL, TLS and options, by the same rules as our own connection to Redis."""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any
from urllib.parse import unquote

from dispatcher.errors import InvalidInput, RedisUnavailable, sentence
from dispatcher.store.connection import other_scheme, safe_url, tls_problem, translate
from dispatcher.store.redis_url import SCHEMES, RedisUrl, split_url, with_authorities

HINT_TASK = "dispatcher.deliver"
"""The name of the only task, which is a hint."""
OVERRIDES = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")


def redis_of(url: str) -> RedisUrl | None:
    """The broker as a Redis URL; None if it is not Redis. Raises InvalidInput, whose text quotes nothing of the URL."""
    scheme, mark, rest = url.strip().partition("://")
    match scheme.lower():
        case "redis+socket":
            path, _, query = rest.partition("?")
            return RedisUrl.parse(f"unix{mark}{path}?{query.replace('virtual_host=', 'db=')}")
        case "rediss+socket":
            raise InvalidInput("asks for TLS on a unix socket: write unix:///path")
        case known if known in SCHEMES:
            return RedisUrl.parse(url)
    import_module("config.other_broker").check(url)
    return None


def of(url: str, ca_file: str | None) -> tuple[str, dict[str, Any] | None, dict[str, Any]]:
    """Celery's `broker_url` and `broker_use_ssl`, and the URL's own transport options. Raises InvalidInput.

    kombu does not verify certificates of a rediss:// URL without TLS options, so these are always set.
    """
    for name in OVERRIDES:
        if os.environ.get(name):
            raise InvalidInput(
                f"{name} (or celery --broker) is set: unset it, and set DISPATCHER_BROKER_URL instead"
            )
    where = redis_of(with_authorities(url, ca_file))
    if where is None:
        return url.strip(), None, {}
    return where.celery, where.tls or None, where.others


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


def problem(error: BaseException, url: str) -> str:
    """Why the broker cannot be used, in one line, with all users and passwords removed from kombu's text."""
    urls = _each(url)
    shown = ";".join(safe_url(one) for one in urls)
    text = tls_problem(error, shown) or " ".join(str(error).split()) or type(error).__name__
    if hint := other_scheme(text, url):
        text = sentence(text) + hint
    try:
        parts = [split_url(one) for one in urls]
    except InvalidInput:
        return type(error).__name__
    for one in parts:
        login, password = one.netloc.rpartition("@")[0], one.password or ""
        if login:
            text = text.replace(f"{login}@", "")
        for shape in {password, unquote(password)} - {""}:
            text = text.replace(shape, "********")
    return text


def _each(url: str) -> list[str]:
    """The URLs of a list, as Celery separates them; Redis is one URL, whose password may hold a semicolon."""
    return [url] if url.strip().lower().startswith(("redis", "unix")) else url.split(";")
