"""Takes what library code says through `logging` to stderr, and into logs/rank_00000.log of the run folder.

log = logging.getLogger(__name__)   # in any module of ours
log.warning(...), log.info(...)     # on stderr as the bare line, 'rank 3: ...' on ranks above 0; in the run's log
log.debug(...)                      # in the run's log only, with time and level as all there
"""

import logging
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gcpo_mcore.base.errors import Stopped

LOGGER = logging.getLogger("gcpo_mcore")
TIME = "%Y-%m-%d %H:%M:%S"  # local
MAX_EARLY = 1000


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Shows what the library says on stderr while the body runs, or the function that this decorates. Nested: once."""
    if any(isinstance(handler, _Stderr) for handler in LOGGER.handlers):
        yield
        return
    level, propagate = LOGGER.level, LOGGER.propagate
    handlers = [_Stderr(logging.INFO), _Early()]
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False  # some other library's handler at the root would say it a second time
    for handler in handlers:
        LOGGER.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate


@contextmanager
def run_log(folder: Path, rank: int) -> Iterator[None]:
    """Writes what the library says while the body runs into the rank's log, and the traceback that ends the body.

    What was said since `log_to_stderr` began, before the run had a folder, comes first. Resumed runs append. A line is
    in the file when the call that logs it returns.
    """
    path = folder / "logs" / f"rank_{rank:05d}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _File(path, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", TIME))
    with log_to_stderr():
        _hand_over_to(file)
        LOGGER.addHandler(file)
        try:
            yield
        except BaseException as error:  # stderr has it from whoever ends the process
            ended = None if isinstance(error, Stopped) else (type(error), error, error.__traceback__)
            file.handle(LOGGER.makeRecord(LOGGER.name, logging.CRITICAL, __file__, 0, "ended by %s", (error,), ended))
            raise
        finally:
            LOGGER.removeHandler(file)
            file.close()


def open_logs() -> list[Path]:
    """The files into which goes what the library says now."""
    return [Path(handler.baseFilename) for handler in LOGGER.handlers if isinstance(handler, logging.FileHandler)]


class _Stderr(logging.Handler):
    """Writes to what sys.stderr is at the time, which may change."""

    def emit(self, record: logging.LogRecord) -> None:
        rank = os.environ.get("RANK", "0")
        try:
            with suppress(OSError):  # there is nowhere to say that stderr takes no more
                sys.stderr.write(f"{'' if rank == '0' else f'rank {rank}: '}{self.format(record)}\n")
                sys.stderr.flush()
        except Exception:
            self.handleError(record)


class _File(logging.FileHandler):
    """A log that takes no more ends no run and hides no reason: that is said on stderr, once."""

    has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by `emit`, inside of the exception."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
        elif not self.has_failed:
            self.has_failed = True
            with suppress(OSError):
                sys.stderr.write(f"{self.baseFilename} takes no more: {sys.exc_info()[1]}\n")

    def close(self) -> None:
        """Closes the file, whatever is left of it."""
        with suppress(OSError):
            super().close()


class _Early(logging.Handler):
    """Keeps what is said before there is a file for it, the newest `MAX_EARLY` records."""

    def __init__(self):
        super().__init__()
        self.records: deque[logging.LogRecord] = deque(maxlen=MAX_EARLY)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def _hand_over_to(file: logging.Handler) -> None:
    """Moves the early records, if any are kept, into the file, and keeps no more."""
    for early in [handler for handler in LOGGER.handlers if isinstance(handler, _Early)]:
        LOGGER.removeHandler(early)
        for record in early.records:
            file.handle(record)
