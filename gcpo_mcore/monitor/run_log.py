"""logs/rank_00000.log of the run folder: what a rank did, with times, and the traceback it died with."""

import time
import traceback
from pathlib import Path


class RunLog:
    """`with RunLog(run_folder, rank) as log: log.line('step 1/60 ...')`. Lines of a resumed run are appended."""

    def __init__(self, folder: Path, rank: int):
        self.path = folder / "logs" / f"rank_{rank:05d}.log"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def line(self, text: str) -> None:
        """Appends one line with the local time; it is in the file when this returns."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if error is not None:
            self.line("ended by " + "".join(traceback.format_exception(kind, error, trace)).rstrip())
