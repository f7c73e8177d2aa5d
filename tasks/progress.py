"""A progress bar on a terminal."""

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.progress import track

from tasks.terminal import err

T = TypeVar("T")


def progress(steps: Sequence[T], what: str) -> Iterable[T]:
    """Yields the steps, with a progress bar if standard error is a terminal."""
    return track(steps, what, console=err, transient=True, disable=not sys.stderr.isatty())
