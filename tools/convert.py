"""`python tools/convert.py` and `gcpo-convert` are one command: gcpo_mcore/commands/convert.py says what it does."""

import sys

from gcpo_mcore.commands.convert import main

if __name__ == "__main__":
    sys.exit(main())
