"""`python tools/train.py` and `gcpo-train` are one command: gcpo_mcore/commands/train.py says what it does."""

import sys

from gcpo_mcore.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
