"""Has this process give way to the others of its machine."""

import os
import platform
import struct
import sys
from contextlib import suppress

SLICE_NS = 10_000_000
"""Longer than any kernel's own slice, some 3 ms at most: what runs in longer slices than others is what can wait."""
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
"""The number of the system call, which Python and older C libraries lack, by machine."""
_KEEP_POLICY = 8
"""SCHED_FLAG_KEEP_POLICY: whoever started this process may have chosen a policy."""
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""struct sched_attr of sched_setattr(2): size, policy, flags, nice, priority, runtime, deadline, period."""


def give_way(niceness: int) -> None:
    """Adds to the `nice` of this thread and of those that it will start, and asks Linux for longer slices than others have.

    A process that is only nice keeps its core until the kernel's next tick, up to 4 ms. From Linux 6.12 on, what wakes
    and runs in shorter slices mostly takes the core at once (PREEMPT_SHORT in kernel/sched/features.h). What the system
    refuses is left.
    """
    with suppress(OSError):
        os.nice(niceness)
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or sys.platform != "linux" or sys.maxsize < 2**32:
        return
    with suppress(ImportError, OSError, MemoryError, AttributeError):  # a Python or a system without ctypes
        import ctypes  # noqa: PLC0415  it may be missing

        nice = os.getpriority(os.PRIO_PROCESS, 0)
        asked = _ATTRIBUTES.pack(_ATTRIBUTES.size, 0, _KEEP_POLICY, nice, 0, SLICE_NS, 0, 0)
        ctypes.CDLL(None).syscall(ctypes.c_long(number), 0, asked, 0)
