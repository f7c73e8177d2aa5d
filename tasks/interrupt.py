"""Ctrl-C during startup: exits at once and silently, with code 130. TERM ends a service likewise, with code 0.

During imports KeyboardInterrupt would print a traceback, or be lost where an import swallows exceptions.
"""

import os
import signal
from types import FrameType

CODE = 130
"""Exit code after Ctrl-C, by the shells' convention: 128 + the signal's number."""


def end_at_once() -> None:
    """Makes Ctrl-C end this process at once, until `started`. Changes nothing if it is ignored, as in a background job."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `hold`


def end_service_at_once() -> None:
    """Makes TERM end this service at once with exit code 0, until the service installs its own handler."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def started() -> None:
    """Startup is over: Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def hold() -> None:
    """Blocks Ctrl-C in the processes that this one starts, until they call `end_at_once`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(CODE)
