"""Sends commands to the servers that hold their keys, and follows a cluster's redirections. No I/O: `round_trips.py` sends."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from redis.exceptions import AskError, ClusterDownError, RedisError

from dispatcher.errors import RedisUnavailable
from dispatcher.store.connection import refused, safe_url, translate
from dispatcher.store.durability import Durability
from dispatcher.store.placement import Command, Placement
from dispatcher.store.round_trips import Request, Trips, Word

REDIRECTIONS = 5
"""How often a command follows the nodes of a cluster from one to the next."""

ASKING: tuple[Word, ...] = ("ASKING",)


class Failure(NamedTuple):
    """Why a command was not certainly run, and on which server."""

    error: Exception
    node: str

    @property
    def ours(self) -> Exception:
        """Our error for it: a producer raises no other."""
        if isinstance(self.error, AskError):  # of a server that is not known as a node of a cluster
            return RedisUnavailable(
                f"Redis at {safe_url(self.node)} is a node of a cluster, which has redis+cluster:// in its URL"
            )
        if "cluster support disabled" in str(self.error):
            return RedisUnavailable(
                f"Redis at {safe_url(self.node)} is no node of a cluster: its URL starts with redis://, rediss:// or unix://"
            )
        found = translate(self.error, self.node)
        return refused(found, self.node) if isinstance(found, RedisError) else found


def send(
    placement: Placement, commands: Sequence[Command], durable: Durability | None = None
) -> Trips[list[Any]]:
    """The reply to each command, or a Failure. With `durable` a reply is there only if its server confirmed it.

    Raises our error if it cannot be known which server holds what.
    """
    if failed := (yield from placement.prepare()):
        raise Failure(failed[1], failed[0]).ours from failed[1]
    replies: list[Any] = [None] * len(commands)
    asking: set[int] = set()
    by_node = placement.group(commands)
    for _ in range(1 + REDIRECTIONS):
        answers = yield from _round(commands, by_node, asking, durable)
        failures: list[int] = []
        for (node, numbers), answer in zip(by_node.items(), answers, strict=True):
            placement.answered(node)  # `redirected` is told if it has not
            for number, reply in zip(numbers, answer, strict=True):
                replies[number] = reply
                if type(reply) is Failure:
                    failures.append(number)
        by_node = _redirected(placement, replies, sorted(failures), asking)
        if not by_node:
            return replies
    for node, numbers in by_node.items():
        for number in numbers:
            replies[number] = Failure(ClusterDownError("its nodes redirect us in a circle"), node)
    return replies


def _redirected(
    placement: Placement, replies: Sequence[Any], failures: Sequence[int], asking: set[int]
) -> dict[str, list[int]]:
    """The commands to send again, by server and in their order: what follows another on a queue stays behind it."""
    further: dict[str, list[int]] = {}
    for number in failures:
        if target := placement.redirected(replies[number].node, replies[number].error):
            further.setdefault(target.node, []).append(number)
            (asking.add if target.is_asking else asking.discard)(number)
    return further


def _round(
    commands: Sequence[Command],
    by_node: Mapping[str, Sequence[int]],
    asking: Collection[int],
    durable: Durability | None,
) -> Trips[list[Sequence[Any]]]:
    """One round trip to some servers, the replies by server; with `durable` one more for servers that are new to it."""
    failed = (yield from durable.learn(by_node.keys())) if durable else {}
    requests = [
        Request(node, _words(commands, node, numbers, asking, durable))
        for node, numbers in by_node.items()
        if node not in failed
    ]
    rest = iter((yield requests) if requests else ())
    return [
        [Failure(failed[node], node)] * len(numbers)
        if node in failed
        else _replies(node, numbers, asking, durable, next(rest))
        for node, numbers in by_node.items()
    ]


def _words(
    commands: Sequence[Command],
    node: str,
    numbers: Sequence[int],
    asking: Collection[int],
    durable: Durability | None,
) -> list[tuple[Word, ...]]:
    """What is sent to one server: each command, after ASKING if need be, and what waits for confirmation."""
    if asking:
        words = [one for n in numbers for one in (*([ASKING] if n in asking else ()), commands[n].words)]
    else:
        words = [commands[number].words for number in numbers]
    return [*words, durable.words(node)] if durable else words


def _replies(
    node: str,
    numbers: Sequence[int],
    asking: Collection[int],
    durable: Durability | None,
    answer: Sequence[Any],
) -> list[Any]:
    """The replies of one server to its commands, an exception as a Failure."""
    rest = iter(answer)
    replies = [(next(rest), next(rest))[1] if number in asking else next(rest) for number in numbers]
    unconfirmed = durable.failure(node, next(rest)) if durable else None
    return [
        Failure(reply, node)
        if isinstance(reply, Exception)
        else Failure(unconfirmed, node)
        if unconfirmed
        else reply
        for reply in replies
    ]
