"""Run by test_agreement.py with two ranks: python differing_worker.py FOLDER OVERRIDE ...

Trains. Rank 1 is in FOLDER, has the parts of the package that lie in its `packages`, and the overrides in `overrides`.
"""

import os
import sys
from pathlib import Path

import gcpo_mcore
from gcpo_mcore.commands.train import train
from gcpo_mcore.run.load import run_tool

if __name__ == "__main__":
    folder = Path(sys.argv.pop(1))
    if os.environ["RANK"] == "1":
        os.chdir(folder)
        gcpo_mcore.__path__.insert(0, str(folder / "packages"))
        sys.argv += (folder / "overrides").read_text().split()
    else:
        os.chdir(folder.parent / "first")
    run_tool(train)
