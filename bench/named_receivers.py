"""Endpoints by name, e1.bench.example.test and so on, of receivers that speak one scheme."""

from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from bench.receiver import Group, Receiver, Terms

DOMAIN = "bench.example.test"
"""Its certificate is for `*.` and this."""


class NamedReceivers:
    """Receivers in processes of their own, which share the endpoints; use it in `with`.

    Its names have addresses where a `bench.names.NameServer` is asked.
    """

    def __init__(self, scheme: str, terms: Terms, processes: int = 1) -> None:
        self.scheme = scheme
        self._stack = ExitStack()
        self._receivers = [self._stack.enter_context(Receiver("ok", terms=terms)) for _ in range(processes)]

    def urls(self, count: int) -> list[str]:
        """URLs of `count` endpoints."""
        ports = [receiver.port() for receiver in self._receivers]
        return [
            f"{self.scheme}://e{number}.{DOMAIN}:{ports[number % len(ports)]}/hooks"
            for number in range(1, count + 1)
        ]

    def count(self, group: str) -> int:
        """How many distinct eventIds of a group arrived since the last `take`."""
        return sum(receiver.count(group) for receiver in self._receivers)

    def take(self, group: str) -> Group:
        """Returns what arrived of a group, and resets all groups."""
        return together([receiver.take().get(group, Group()) for receiver in self._receivers])

    def opened(self) -> int:
        """How many connections were opened so far; with https, each had its handshake."""
        return sum(receiver.opened().total for receiver in self._receivers)

    def resumed(self) -> int:
        """How many of the handshakes so far resumed a session."""
        return sum(receiver.opened().resumed for receiver in self._receivers)

    def cpu_seconds(self) -> float:
        """CPU seconds so far of the receiver that used most: it is the one that could be too slow."""
        return max(receiver.cpu_seconds() for receiver in self._receivers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def together(groups: Sequence[Group]) -> Group:
    """One group of several receivers' posts."""
    latencies: array[int] = array("q")
    for group in groups:
        latencies.extend(group.latencies_us)
    return Group(
        sum(group.posts for group in groups),
        sum(group.distinct for group in groups),
        latencies,
        min((group.first_at for group in groups if group.distinct), default=0.0),
        max(group.last_at for group in groups),
    )
