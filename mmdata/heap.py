"""What glibc is told about memory, so that it keeps what torch frees."""

import ctypes
import sys

GIB = 1 << 30
MALLOPT = {-8: 1, -1: GIB, -3: GIB}  # malloc.h: M_ARENA_MAX, M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(GIB),
    "MALLOC_MMAP_THRESHOLD_": str(GIB),
}
"""The same for a process that is yet to start."""


def keep_freed_memory() -> None:
    """One arena for all threads, and freed memory is kept rather than given back to the kernel.

    Memory that is given back costs a page fault for each page of each activation when it is asked for again. To
    be said before a process has other threads: each may have brought an arena by then, whose pieces of 64 MB
    hold no large activation (figures in docs/decisions.md).
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)
        for option, value in MALLOPT.items():
            mallopt(option, value)
