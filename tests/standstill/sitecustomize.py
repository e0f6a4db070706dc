"""Lets a process stand still at a moment of a test's choice: tests/still.py puts it on the path of what a test starts.

Python tells its audit hooks what it is about to do, os.rename and open among it. At the first one that is looked for,
the thread that does it waits for as long as the test's flag lies there. Nothing of the program is changed.
"""

import os
import sys
import time

AT, WORD, FLAG = (os.environ.get(f"STAND_STILL_{name}") for name in ("AT", "WORD", "FLAG"))
COUNT = [int(os.environ.get("STAND_STILL_COUNT", "1"))]


def _stand(event: str, args: tuple) -> None:
    if event == AT and WORD in str(args[:2]) and os.path.exists(FLAG):
        COUNT[0] -= 1
        if COUNT[0] > 0:
            return
        with open(f"{FLAG}_met", "w"):
            pass
        while os.path.exists(FLAG):
            time.sleep(0.02)


if AT:  # reward workers get few of the variables: they do not stand still
    sys.addaudithook(_stand)
