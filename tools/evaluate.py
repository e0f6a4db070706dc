"""`python tools/evaluate.py` and `gcpo-evaluate` are one command: gcpo_mcore/commands/evaluate.py says what it does."""

import sys

from gcpo_mcore.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
