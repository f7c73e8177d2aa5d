"""redis-py's client over a wire: as its commands parse their replies, on the one connection that all partitions of a server share.

With a connection of a pool for each command that is under way a worker with very many partitions opened as many as a pool has,
and redis-py takes three times as long for a command.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import redis.asyncio
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from dispatcher.store.wire import PartitionWire

_NOT_OF_REPLIES = "keys", "NEVER_DECODE", "EMPTY_RESPONSE"
"""Options of redis-py's commands that do not concern how a reply is parsed."""


class WireClient(redis.asyncio.Redis):
    """Commands and pipelines go over the wire; transactions and subscriptions take a connection of the pool."""

    def __init__(self, pool: "redis.asyncio.ConnectionPool", wire: PartitionWire) -> None:
        super().__init__(connection_pool=pool)
        self._wire = wire

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Sends one command. Raises redis-py's errors, as Wire does."""
        return await _parsed(self, args, options, await self._wire.call(*_words(args)))

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Commands that are sent together; with `transaction` they are one."""
        return super().pipeline(transaction, shard_hint) if transaction else _Pipeline(self, self._wire)


class _Pipeline(Pipeline):
    """Sends commands over the wire, together."""

    def __init__(self, client: WireClient, wire: PartitionWire) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, False, None)
        self._wire = wire

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Sends the commands; returns the reply of each, or the error of one that Redis refused. Raises other errors."""
        stack, self.command_stack = self.command_stack, []
        if not stack:
            return []
        replies = await self._wire.call_all([_words(args) for args, _ in stack])
        for place, ((args, options), found) in enumerate(zip(stack, replies, strict=True)):
            if not isinstance(found, BaseException):
                if args[0] in self.response_callbacks:
                    replies[place] = await _parsed(self, args, options, found)
            elif raise_on_error or not isinstance(found, ResponseError):
                raise found
        return replies


def _words(args: Sequence[Any]) -> tuple[Any, ...]:
    """A command's words: redis-py gives the name of one such as CONFIG GET as one."""
    return (*args[0].split(), *args[1:]) if " " in args[0] else tuple(args)


async def _parsed(client: Any, args: Sequence[Any], options: Mapping[str, Any], found: Any) -> Any:
    """A reply as redis-py's commands give it."""
    if args[0] not in client.response_callbacks:
        return found
    given = {name: value for name, value in options.items() if name not in _NOT_OF_REPLIES}
    result = client.response_callbacks[args[0]](found, **given)
    return await result if inspect.isawaitable(result) else result
