"""`python tools/doctor.py` and `gcpo-doctor` are one command: gcpo_mcore/commands/doctor.py says what it does."""

import sys

from gcpo_mcore.commands.doctor import main

if __name__ == "__main__":
    sys.exit(main())
