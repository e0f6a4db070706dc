"""`python tools/prepare.py` and `gcpo-prepare` are one command: gcpo_mcore/commands/prepare.py says what it does."""

import sys

from gcpo_mcore.commands.prepare import main

if __name__ == "__main__":
    sys.exit(main())
