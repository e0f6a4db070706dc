"""`python tools/golden.py` and `gcpo-golden` are one command: gcpo_mcore/commands/golden.py says what it does."""

import sys

from gcpo_mcore.commands.golden import main

if __name__ == "__main__":
    sys.exit(main())
