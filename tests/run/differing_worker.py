"""Run by test_agreement.py with two ranks: python differing_worker.py FOLDER OVERRIDE ...

Trains. Rank 1 is in FOLDER, has what lies in its `packages` first on its path, and the overrides in its `overrides`.
"""

import os
import sys
from pathlib import Path

from gcpo_mcore.commands.train import train
from gcpo_mcore.run.load import run_tool

if __name__ == "__main__":
    folder = Path(sys.argv.pop(1))
    if os.environ["RANK"] == "1":
        os.chdir(folder)
        sys.path.insert(0, str(folder / "packages"))
        sys.argv += (folder / "overrides").read_text().split()
    else:
        os.chdir(folder.parent / "first")
    run_tool(train)
