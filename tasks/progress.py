"""A bar on a terminal that shows how many steps are done."""

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.progress import track

from tasks.console import err

T = TypeVar("T")


def progress(steps: Sequence[T], what: str) -> Iterable[T]:
    """The steps one by one, with a bar where standard error is a terminal."""
    return track(steps, what, console=err, transient=True, disable=not sys.stderr.isatty())
