"""A manager process (multiprocessing) that ends with the process that started it, however that ends."""

import ctypes
import multiprocessing
import os
import signal
from multiprocessing.managers import SyncManager

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def tied_manager() -> SyncManager:
    """A started manager, in an interpreter of its own. On Linux it is killed when the thread that asked for it ends."""
    manager = SyncManager(ctx=multiprocessing.get_context("spawn"))
    manager.start(_tie, (os.getpid(),))
    return manager


def _tie(parent: int) -> None:
    """Runs in the manager's process."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
