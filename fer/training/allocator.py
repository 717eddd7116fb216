"""Memory that is kept from one operation to the next.

A training step allocates and frees the same hundreds of arrays of megabytes each time. glibc maps
each of them anew and gives it back when it is freed, so the kernel clears every page again in every
operation, which may take as long as the arithmetic: `benchmarks/training.py` measures both. Kept,
freed memory serves the next array of that size. What is computed does not change.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

# Of malloc.h.
_TRIM_THRESHOLD: Final = -1
_TOP_PAD: Final = -2
_MMAP_MAX: Final = -4
_ARENA_MAX: Final = -8

_STEP: Final = 256 << 20  # bytes by which the heap grows


def keep_freed_memory() -> bool:
    """Have this process keep what it frees; whether its allocator is one that can be told.

    That is glibc's; others have their own ways, and nothing is changed there. Call it before the
    first large array: what is mapped by then stays so.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    settings = {
        _MMAP_MAX: 0,  # all from the heap
        _TRIM_THRESHOLD: -1,  # which never shrinks
        _TOP_PAD: _STEP,
        _ARENA_MAX: 1,  # one for all threads: the others have arrays of 64 MB at most
    }
    taken = [mallopt(name, value) for name, value in settings.items()]
    return all(one == 1 for one in taken)
