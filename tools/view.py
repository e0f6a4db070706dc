"""`python tools/view.py` and `gcpo-view` are one command: gcpo_mcore/commands/view.py says what it does."""

import sys

from gcpo_mcore.commands.view import main

if __name__ == "__main__":
    sys.exit(main())
