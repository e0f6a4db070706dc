"""One writer of a run folder: rank 0 holds a lock on it for as long as the run lives.

RUN/lock          the lock: flock's, which the system takes back when the process ends, however it ends. Linux passes it
                  on to an NFS server, so other nodes see it; after a node's death until the server's lease has run out.
RUN/writer.json   who holds it: {"host", "pid", "since"}
"""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gcpo_mcore.base.errors import UserError
from gcpo_mcore.base.files import CANNOT_WRITE, make_folder, write_atomically

LOCK, WRITER = "lock", "writer.json"
RESTART_WAIT_S = 120.0  # for the rank 0 of before: torchrun's grace, an NFS server's lease
POLL_S = 0.2
TIME = "%Y-%m-%d %H:%M:%S"  # local

log = logging.getLogger(__name__)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """The scope in which this process alone writes into `folder`, which is made if it is not there.

    UserError, which says who, if another process does; a rank that was started again waits for the one before it.
    """
    make_folder(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=RESTART_WAIT_S if is_restarted() else 0, poll_interval=POLL_S)
        _sign(folder)
    except Timeout:
        raise UserError(
            f"{folder}: {_holder(folder)} writes into it; end that run, or choose another run.name"
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
        log.warning("%s: its file system has no locks (%s): nothing keeps a second run out of it", folder, error)
    try:
        yield
    finally:
        if lock.is_locked:
            (folder / WRITER).unlink(missing_ok=True)
            lock.release()


def is_restarted() -> bool:
    """Whether torchrun or Slurm started this process again, by itself and with the command of before."""
    return any(os.environ.get(name, "0") != "0" for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def _sign(folder: Path) -> None:
    writer = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime(TIME)}
    write_atomically(folder / WRITER, json.dumps(writer) + "\n")


def _holder(folder: Path) -> str:
    try:
        writer = json.loads((folder / WRITER).read_text())
        return f"process {writer['pid']} on {writer['host']}, since {writer['since']},"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just begun
        return "another process"
