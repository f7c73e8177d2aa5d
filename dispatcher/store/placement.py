"""Which server a producer's command goes to, for each topology. No I/O: `round_trips.py` sends."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from dispatcher.store.round_trips import Trips, Word


class Command(NamedTuple):
    """A command on one key."""

    partition: int
    """The partition that the key belongs to; 0 for a key of the installation as a whole."""
    key: str
    words: tuple[Word, ...]


class Target(NamedTuple):
    """Where a command is sent again, because a node of a cluster said so."""

    node: str
    is_asking: bool
    """Whether the node takes the command only after ASKING, because the slot is on its way there."""


class Placement(Protocol):
    """The servers of an installation, and which of them holds what."""

    def prepare(self) -> Trips[tuple[str, Exception] | None]:
        """Finds out what `node` has to know; returns which server could not say it, and why."""

    def node(self, command: Command) -> str:
        """The URL of the server that holds a command's key, as far as is known."""

    def group(self, commands: Sequence[Command]) -> Mapping[str, Sequence[int]]:
        """The numbers of the commands that go to each server."""

    def answered(self, node: str) -> None:
        """A server has answered."""

    def redirected(self, node: str, reply: Any) -> Target | None:
        """Where a command is to be sent again, if a server's reply says so; learns from every reply that is an exception."""


class PlainPlacement:
    """Servers that know nothing of each other, one or several: partition i lies on server i modulo their number."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls

    def prepare(self) -> Trips[None]:
        """Nothing is to be found out."""
        yield from ()

    def node(self, command: Command) -> str:
        """The URL of the server that holds a command's key."""
        return self._urls[command.partition % len(self._urls)]

    def group(self, commands: Sequence[Command]) -> Mapping[str, Sequence[int]]:
        """The numbers of the commands that go to each server."""
        if len(self._urls) == 1:
            return {self._urls[0]: range(len(commands))}
        return grouped(self, commands)

    def answered(self, node: str) -> None:
        """That changes nothing here."""

    def redirected(self, node: str, reply: Any) -> Target | None:
        """Plain servers redirect nothing."""
        return None


def grouped(placement: Placement, commands: Sequence[Command]) -> Mapping[str, Sequence[int]]:
    """The numbers of the commands that go to each server, in order."""
    found: dict[str, list[int]] = {}
    for number, command in enumerate(commands):
        found.setdefault(placement.node(command), []).append(number)
    return found
