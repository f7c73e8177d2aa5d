"""The servers of a producer, from its URL."""

import re

from dispatcher.errors import InvalidInput
from dispatcher.store.cluster_placement import ClusterPlacement
from dispatcher.store.placement import Placement, PlainPlacement
from dispatcher.store.redis_url import ENCODE, RedisUrl

_NEXT = re.compile(r"[\s,]+(?=(?:redis|rediss|unix)://)", re.IGNORECASE)
"""What separates the URLs of a list: a password may have a comma in it."""
_CLUSTER = re.compile(r"(rediss?)\+cluster://(?:(.*)@)?([^@/?#]*)/?(\?[^@]*)?", re.IGNORECASE)


def placement_of(url: str, partitions: int) -> Placement:
    """Which server of those in a URL holds what.

    url: one server, a list of plain servers, separated by blanks or commas, or `redis+cluster://[login@]host:port,host:port`

    Raises InvalidInput for an invalid URL, which it does not quote, and for several servers with one partition.
    """
    if not isinstance(url, str) or "+cluster:" not in url.lower():
        urls = _NEXT.split(url.strip()) if isinstance(url, str) else [url]
        for one in urls:
            _check(one)
        if len(urls) > 1:
            _need_partitions(partitions, "several servers")
        return PlainPlacement(urls)
    _need_partitions(partitions, "a cluster")
    return _cluster(url.strip())


def _cluster(url: str) -> ClusterPlacement:
    found = _CLUSTER.fullmatch(url)
    if not found:
        raise InvalidInput(
            f"the Redis URL of a cluster is redis+cluster://[user:password@]host:port,host:port[?options]; {ENCODE}"
        )
    scheme, login, hosts, options = found.groups(default="")

    def url_of(where: str) -> str:
        return f"{scheme.lower()}://{login and login + '@'}{where}/{options}"

    def url_of_node(host: str, port: int) -> str:
        return url_of(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    start = [url_of(where.strip()) for where in hosts.split(",") if where.strip()]
    if not start:
        raise InvalidInput("the Redis URL of a cluster names no node: redis+cluster://host:port,host:port")
    for one in start:
        if _check(one).db:
            raise InvalidInput("the Redis URL of a cluster names a database, and a cluster has none but 0")
    return ClusterPlacement(start, url_of_node)


def _need_partitions(partitions: int, what: str) -> None:
    if partitions == 1:
        raise InvalidInput(
            f"the Redis URL names {what}, which need partitions: pass partitions=, or set DISPATCHER_PARTITIONS, to the workers' "
            "number"
        )


def _check(url: str) -> RedisUrl:
    try:
        return RedisUrl.parse(url)
    except InvalidInput as error:
        raise InvalidInput(f"the Redis URL {error}") from None
