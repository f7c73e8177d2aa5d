"""The URL of a broker that is not Redis. Loads kombu, which takes half a second: import it lazily."""

from typing import Any

from kombu.connection import Connection
from kombu.transport import TRANSPORT_ALIASES

from dispatcher.errors import InvalidInput
from dispatcher.store.redis_url import split_url


def check(url: str) -> None:
    """Checks without connecting that Celery can use the URL. Raises InvalidInput, whose text quotes nothing of it."""
    try:
        for one in url.split(";"):
            if split_url(one).scheme.partition("+")[0] not in TRANSPORT_ALIASES:
                raise InvalidInput(
                    "must start with redis://, rediss://, unix:// or another of Celery's transports"
                )
        Connection(url.strip())  # type: ignore[no-untyped-call]  # kombu ships no types
    except InvalidInput:
        raise
    except ImportError as error:
        raise InvalidInput(f"names a transport that needs the Python package {error.name}") from None
    except Exception:  # its text may quote the URL
        raise InvalidInput(
            "cannot be used by Celery: look at its user, password, host, port and options"
        ) from None


def tls(url: str, ca_file: str | None) -> dict[str, Any] | None:
    """py-amqp's TLS options for an amqps:// URL: left alone, it verifies no name. None for another URL, or for several hosts.

    A `ca_file` takes the place of the system's authorities.
    """
    parsed = [split_url(one) for one in url.split(";")]
    hosts = {one.hostname for one in parsed}
    if {one.scheme for one in parsed} != {"amqps"} or len(hosts) > 1:
        return None
    return {"server_hostname": hosts.pop() or "localhost"} | ({"ca_certs": ca_file} if ca_file else {})
