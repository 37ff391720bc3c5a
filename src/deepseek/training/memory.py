"""Memory of a training process on a CPU."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's <malloc.h>
_LARGEST = 1 << 30


def keep_freed_memory() -> bool:
    """Let the process keep what it frees, for the next step needs it again; whether the C library could be told so.

    By default glibc gives every large tensor back to the system, which must then clear each page anew: measured, a
    seventh of a training step, a third of a distillation's. For the whole process, from now on; does nothing without
    glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST - 1))
