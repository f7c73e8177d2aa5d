"""What goes with which Redis topology among the settings. No I/O."""

from dispatcher.store.redis_url import RedisUrl
from dispatcher.store.topology import Kind, Topology


def check(topology: Topology, partitions: int, *, has_broker: bool) -> None:
    """Raises ValueError, whose text is one line that says what to change. `has_broker`: the broker is set by itself."""
    if topology.kind not in (Kind.CLUSTER, Kind.SEVERAL):
        return
    servers = len(topology.urls)
    what = "a cluster" if topology.kind is Kind.CLUSTER else f"{servers} servers"
    if partitions == 1:
        raise ValueError(
            f"DISPATCHER_REDIS_URL names {what}: set DISPATCHER_PARTITIONS, which is chosen once, above 1, for example to 256"
        )
    if topology.kind is Kind.SEVERAL and partitions < servers:
        raise ValueError(
            f"DISPATCHER_PARTITIONS ({partitions}) must be at least the number of servers in DISPATCHER_REDIS_URL ({servers}), "
            "or some would hold nothing"
        )
    if not has_broker:
        raise ValueError(
            f"DISPATCHER_REDIS_URL names {what}, which cannot be Celery's broker: set DISPATCHER_BROKER_URL to one Redis, "
            "Sentinel (redis+sentinel://) or RabbitMQ (amqp://)"
        )


def check_previous(topology: Topology, previous: Topology, partitions: int) -> None:
    """Raises ValueError if an installation with these servers cannot have grown from that one Redis."""
    name = "DISPATCHER_PREVIOUS_REDIS_URL"
    if previous.kind not in (Kind.ONE, Kind.SENTINEL):
        raise ValueError(
            f"{name} names {previous.described}: it is one Redis, that of the installation with one partition"
        )
    if partitions == 1:
        raise ValueError(
            f"{name} is for an installation that was divided: set DISPATCHER_PARTITIONS above 1, or leave it out"
        )
    if _addresses(topology) & _addresses(previous):
        raise ValueError(
            f"{name} is among the servers of DISPATCHER_REDIS_URL: the partitions must be on other servers, or in another database"
        )


def _addresses(topology: Topology) -> set[tuple[object, ...]]:
    found = (RedisUrl.parse(url) for url in topology.urls)
    return {(one.host, one.port, one.path, topology.db, topology.master) for one in found}
