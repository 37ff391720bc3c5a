"""A clear end where mapped weights can no longer be read.

When a mapped file is cut, or its disk fails, whoever reads the pages that are gone gets SIGBUS, in the middle of
compiled code: nothing can be raised there, and no answer can be right. So the process says why and ends with status 1,
as after every other error that a user can mend; started again, the server checks its files and packs them anew.
"""

import ctypes
import os
import signal
import sys

_STATUS = 1
_MESSAGE = (
    b"\nerror: a file of weights cannot be read any more: it was cut while it was in use, or its disk failed. "
    b"`deepseek verify MODEL` checks it; start the server again to go on.\n"
)
_kept: list[object] = []  # what C calls must not be collected


def end_clearly_on_bus_errors() -> None:
    """For the whole process, and for good."""
    if sys.platform == "win32":
        return
    set_handler = ctypes.CDLL(None).signal
    set_handler.argtypes = (ctypes.c_int, ctypes.c_void_p)
    set_handler.restype = ctypes.c_void_p
    # Python's own handlers run later, between two bytecodes: here that would be never, as the same read fails again.
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(_end)
    _kept.append(handler)
    set_handler(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p))


def _end(number: int) -> None:
    os.write(2, _MESSAGE)
    os._exit(_STATUS)
