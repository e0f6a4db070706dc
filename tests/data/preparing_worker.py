"""One of several processes that prepare the same rows: `ROWS FOLDER MADE [DIES_AT]`.

Every row that it makes a prompt of is a line of its own file in MADE, so that a test sees who made what. At row
DIES_AT the process is gone, as after kill -9.
"""

import os
import sys
from functools import partial
from pathlib import Path

from gcpo_mcore.data import preparing
from gcpo_mcore.data.files import Row
from gcpo_mcore.data.preparing import Made, prepare
from gcpo_mcore.samples import Prompt

ROWS_PER_PART = 50


def row(number: int) -> Row:
    """Row `number` of an endless source."""
    return Row(number, f"row {number}", {"level": number % 3})


def main(rows: str, folder: str, made: str, dies_at: str = "-1") -> None:
    preparing.ROWS_PER_PART, preparing.ROWS_PER_BATCH = ROWS_PER_PART, 20
    notes = Path(made) / str(os.getpid())

    def make(read: Row) -> Made | None:
        if read.number == int(dies_at):
            os._exit(9)
        with notes.open("a") as file:
            file.write(f"{read.number}\n")
        if read.number % 7 == 3:
            return None
        text = str(read.number)
        return Made(Prompt(f"s:{text}", "s", text, [read.number], text, columns=read.values), read.number, None)

    prepare(Path(folder), lambda: (partial(row, number) for number in range(int(rows))), make, lambda: "plain")


if __name__ == "__main__":
    main(*sys.argv[1:])
