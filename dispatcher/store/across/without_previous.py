"""Reads what is of one message without the previous Redis, while that is away too.

A message is with the previous Redis or in the partitions, never in both: what the partitions have is whole without it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from dispatcher.store.across.partitions import Partitions

T = TypeVar("T")


async def without_previous(
    partitions: Partitions,
    workspace: str,
    ask: Callable[[int], Awaitable[T]],
    is_whole: Callable[[Sequence[T]], bool] = any,
) -> list[T] | None:
    """The answers of a workspace's partitions, if they have all that is looked for, which `is_whole` says.

    None if they have not, or one of them did not answer, or there is no previous Redis. Raises RedisUnavailable.
    """
    *own, last = await partitions.of(workspace)
    if last != partitions.partitioning.previous:
        return None
    found: list[T] = []
    for answer in await asyncio.gather(*(partitions.ask(one, ask) for one in own), return_exceptions=True):
        if isinstance(answer, BaseException):
            return None  # who asks all meets it again
        found.append(answer)
    return found if is_whole(found) else None
