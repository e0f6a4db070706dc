"""`python tools/ablate.py` and `gcpo-ablate` are one command: gcpo_mcore/commands/ablate.py says what it does."""

import sys

from gcpo_mcore.commands.ablate import main

if __name__ == "__main__":
    sys.exit(main())
