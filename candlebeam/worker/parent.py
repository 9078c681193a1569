"""A process that ends with the one that has started it, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
#: Seconds between two looks where the system does not tell.
_INTERVAL = 1.0


def end_with_parent(parent: int) -> None:
    """Has this process killed once its parent has ended.

    On Linux the parent's end is that of its thread that has started this process: it must be one
    that lives as long as the parent.

    Args:
        parent: the process id of the parent, as the parent has told it: by now it may be gone.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_INTERVAL)
    os.kill(os.getpid(), signal.SIGKILL)
