"""Divides long lists, so that no command has more arguments than a proxy before Redis lets through."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

MOST_ARGUMENTS = 3900
"""Most arguments of one command, its name and keys included. Some proxies refuse more than 3,999."""
MOST_LISTED = MOST_ARGUMENTS - 50
"""Most of those that a list may take; the others are the command's name, its keys and a script's own arguments."""

T = TypeVar("T")


def in_parts(values: Iterable[T], arguments_of: Callable[[T], int] = lambda _: 1) -> Iterator[list[T]]:
    """Yields the values in order, in as few lists as are needed for each to fit into one command; none for no values.

    `arguments_of` says how many arguments a value becomes.
    """
    part: list[T] = []
    left = MOST_LISTED
    for value in values:
        size = arguments_of(value)
        if part and size > left:
            yield part
            part, left = [], MOST_LISTED
        part.append(value)
        left -= size
    if part:
        yield part
