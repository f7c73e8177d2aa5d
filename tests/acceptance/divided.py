"""What tests of several partitions look at: who has which lease, and how many each worker leads."""

from collections.abc import Sequence

from dispatcher.store.keys import keys_of
from tests.acceptance.stack import Stack


def divide(stack: Stack, count: int, workspaces: Sequence[str]) -> Stack:
    """Gives a stack so many partitions, and workspaces."""
    stack.environment["DISPATCHER_PARTITIONS"] = str(count)
    for name in workspaces:
        stack.add_workspace(name)
    return stack


def leases(stack: Stack) -> list[bytes | None]:
    """The tokens of all partitions' leases."""
    found: list[bytes | None] = stack.redis.mget([k.intake for k in keys_of("dispatcher", stack.partitions)])
    return found


def shares(stack: Stack) -> list[int]:
    """How many partitions each live worker leads, as `stats` says."""
    owners = stack.cli_json("stats")["partitions"]["owners"]
    return sorted(len(partitions) for partitions in owners.values())
