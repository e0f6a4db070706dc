"""Runs `python -m sglang.launch_server ARGUMENTS` with an API key that nobody sees: `python serve.py ARGUMENTS`.

The key is the first line of its standard input, so it is in no command line, which every user of the machine can read.
SGLang writes its arguments into its log: there the key is left out. (It runs in SGLang's own environment, and imports
nothing of the package.)
"""

import logging
import os
import runpy
import sys


def hide(key: str) -> None:
    """Leaves `key` out of all that this process logs."""

    class Record(logging.LogRecord):
        def getMessage(self) -> str:
            return super().getMessage().replace(key, "***")

    logging.setLogRecordFactory(Record)


def main() -> None:
    key = sys.stdin.readline().strip()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.path[0] = os.getcwd()  # as with -m: this file's folder has modules of common names
    sys.argv[1:] += ["--api-key", key] if key else []
    if key:
        hide(key)
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
