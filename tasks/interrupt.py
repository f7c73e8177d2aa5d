"""Ctrl-C while a program starts: it ends at once, in silence, with exit code 130. TERM ends a service likewise, with 0.

While modules are imported, KeyboardInterrupt would come out as a traceback, or get lost where exceptions are swallowed.
"""

import os
import signal
from types import FrameType

CODE = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the number of the signal."""


def end_at_once() -> None:
    """Has Ctrl-C end this process at once, until `started`. Changes nothing where it is ignored, as behind `nohup`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `hold`


def end_service_at_once() -> None:
    """Has TERM end this service at once, with exit code 0, until it has a handler that ends what it has begun."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def started() -> None:
    """The program runs: Ctrl-C is KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def hold() -> None:
    """Has Ctrl-C wait in the processes that this one starts, until they call `end_at_once`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(CODE)
