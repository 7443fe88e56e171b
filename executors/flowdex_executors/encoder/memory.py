"""Keeping the memory of one batch for the next.

    batch: tensors of megabytes --free--> glibc gives the pages back --next batch--> the kernel clears and maps new ones

On Linux that costs a transformer some 500 page faults a text, a tenth of its time; a process that computes all day
rather keeps them. Its size is then that of its largest batch, which `batch_tokens` bounds.
"""

from __future__ import annotations

import ctypes
import functools
import sys

__all__ = ["keep_freed_memory"]

# Of <malloc.h>: what is cut off at the end of the heap, what threads keep of theirs, what does not come from a heap.
_SETTINGS = {
    "M_TRIM_THRESHOLD": (-1, 2**30),
    "M_TOP_PAD": (-2, 64 * 2**20),  # a heap of a thread is that large; it costs address space, not memory
    "M_MMAP_THRESHOLD": (-3, 32 * 2**20),  # the most that glibc takes
}


@functools.cache
def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed, for this process; whether it does. Elsewhere than in glibc: nothing."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return all(bool(mallopt(number, value)) for number, value in _SETTINGS.values())
