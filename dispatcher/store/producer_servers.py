"""The queue and the servers of a producer, from what it is given."""

from collections.abc import Mapping

from dispatcher.errors import InvalidInput, visible
from dispatcher.rules.partitions import MOST, MOST_WIDTH
from dispatcher.store.cluster_placement import ClusterPlacement
from dispatcher.store.keys import is_prefix
from dispatcher.store.placement import Placement, PlainPlacement
from dispatcher.store.producer_queue import ProducerQueue
from dispatcher.store.topology import Kind, Topology


def queue_of(
    url: str,
    key_prefix: str,
    partitions: int,
    widths: Mapping[str, int] | None,
    batch: int,
    *,
    is_url: bool,
) -> ProducerQueue:
    """The queue to write to.

    is_url: whether the URL says on which servers it is; or it is that of a client

    Raises InvalidInput.
    """
    if not is_prefix(key_prefix):
        raise InvalidInput(
            f"key_prefix is {_shown(key_prefix)}: give the workers' DISPATCHER_KEY_PREFIX, which is "
            "1 to 32 letters, digits, _, . or -"
        )
    if not _is_count(partitions, MOST):
        raise InvalidInput(
            f"partitions is {_shown(partitions)}: give the workers' DISPATCHER_PARTITIONS, which is 1 to {MOST:,}"
        )
    if not isinstance(widths, Mapping | None):
        raise InvalidInput(f"widths is {_shown(widths)}: give a dict of workspaces and their widths")
    for workspace, width in (widths or {}).items():
        if not _is_count(width, MOST_WIDTH):
            raise InvalidInput(
                f"the width of {_shown(workspace)} is {_shown(width)}: it is 1 to {MOST_WIDTH}"
            )
    placement = placement_of(url, partitions) if is_url else PlainPlacement([url])
    return ProducerQueue(key_prefix, placement, batch, partitions, dict(widths or {}))


def placement_of(url: str, partitions: int) -> Placement:
    """Which server of those in a URL holds what.

    url: as DISPATCHER_REDIS_URL (store/topology.py)

    Raises InvalidInput for an invalid URL, which it does not quote, and for several servers with one partition.
    """
    try:
        topology = Topology.parse(url)
    except InvalidInput as error:
        raise InvalidInput(f"the Redis URL {error}") from None
    match topology.kind:
        case Kind.ONE | Kind.SENTINEL:
            return PlainPlacement([url])
        case Kind.SEVERAL:
            _need_partitions(partitions, "several servers")
            return PlainPlacement(topology.urls)
        case Kind.CLUSTER:
            _need_partitions(partitions, "a cluster")
            return ClusterPlacement(topology.urls, topology.url_of_node)


def _need_partitions(partitions: int, what: str) -> None:
    if partitions == 1:
        raise InvalidInput(
            f"the Redis URL names {what}, which need partitions: pass partitions=, or set DISPATCHER_PARTITIONS, to the workers' "
            "number"
        )


def _is_count(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _shown(value: object) -> str:
    return visible(repr(value))[:50]
